"""`ivy plot`."""
