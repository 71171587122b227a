"""What the node stores: the queue and the archive."""
