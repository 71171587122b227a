"""`ivy messages`: what was sampled, from the archive."""
