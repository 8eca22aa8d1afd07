"""Training the transformer."""
