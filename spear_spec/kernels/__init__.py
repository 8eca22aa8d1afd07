"""C for what torch is slow at, its packing and its loader."""
