"""Semantic tokens to waveform: the AcousticStage protocol and the unit vocoder."""
