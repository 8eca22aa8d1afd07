"""Training the unit vocoder."""
