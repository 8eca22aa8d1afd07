"""Who runs a step of the target."""
