"""An image of a card: a Debian with ivy that is written to a card, and boots. The command is packaging/image."""
