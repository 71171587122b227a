"""`ivy take-in`: what somebody wrote onto a card at a desk becomes the node's."""
