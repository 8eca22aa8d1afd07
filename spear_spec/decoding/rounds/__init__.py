"""Whole rounds on tensors: draft, score, settle and append without a word to the host, as a CUDA graph can hold them."""
