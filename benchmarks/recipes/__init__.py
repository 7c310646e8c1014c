"""A study: several recipes at equal images with several seeds, and what came out, with its spread."""
