"""Judging speech: word and phoneme error, predicted MOS, speaker similarity, each with a bootstrap interval."""
