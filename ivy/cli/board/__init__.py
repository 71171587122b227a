"""What a node is, on its way from one board to another: `ivy export`, `ivy import`."""
