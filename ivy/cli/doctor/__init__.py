"""`ivy doctor`."""
