"""A voice on disk, and the parts that it names."""
