"""Tools that procedures, backends and the command share."""
