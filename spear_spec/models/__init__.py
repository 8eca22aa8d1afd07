"""The target (text to semantic tokens) and its drafts."""
