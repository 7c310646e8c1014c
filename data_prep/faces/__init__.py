"""How a face is drawn."""
