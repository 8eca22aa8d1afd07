"""Whole rounds on tensors: draft, score, settle, append, without a word to the host, as a CUDA graph can hold them."""
