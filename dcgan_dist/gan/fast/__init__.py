"""Layers' arithmetic in the forms that are fastest on each device; every form equals the plain one beside it."""
