"""Parts of a round as one kernel each, in Triton: laws with their draws, verification. See `ops.available`."""
