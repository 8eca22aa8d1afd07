"""Training of every part. Only the command line and recipes import this."""
