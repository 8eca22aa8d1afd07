"""The unit vocoder: pulses and noise, filtered."""
