"""Text to text tokens: normalisation, sentences, phonemes."""
