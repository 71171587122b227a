"""From an offer to a decision, and the releases on the disk."""
