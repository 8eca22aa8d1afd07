"""Building blocks: key/value cache, trees, attention, transformer."""
