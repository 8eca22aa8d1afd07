"""Parts of a round as one kernel each, in Triton: laws with their draws, and verification. `ops.available` says where."""
