"""Many listeners, one engine: requests are cut into sentences, and the sentences of all share the running batch."""
