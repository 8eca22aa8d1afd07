"""Is this drafter and rule exact? Checks, and what they are held against."""
