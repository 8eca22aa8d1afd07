"""Which setting is fastest on this machine, and where that is kept."""
