"""Training what drafts."""
