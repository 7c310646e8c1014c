"""From the words of a command line and the lines of a file to settings."""
