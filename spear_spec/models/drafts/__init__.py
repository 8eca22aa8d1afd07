"""What drafts: decoders, heads, switches; for training and for decoding."""
