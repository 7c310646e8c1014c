"""A run folder, read back and shown: one page of HTML and one picture."""
