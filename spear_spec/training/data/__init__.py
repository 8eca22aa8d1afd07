"""A prepared corpus: clips, durations, shards."""
