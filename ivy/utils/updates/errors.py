"""The two ways in which an update can come to a halt. Everything else is trouble of the node itself."""


class Rejected(Exception):
    """An offer that cannot be accepted; the text says why, for the operator to read."""


class NetworkTrouble(Exception):
    """Something cannot be fetched now, which says nothing about the offer: to be tried again."""
