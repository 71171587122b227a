"""The `ivy` command."""
