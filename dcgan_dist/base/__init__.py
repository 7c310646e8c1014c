"""What needs nothing else of this package: errors, files, random numbers by position."""
