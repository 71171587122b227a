"""The ways in which an update can come to a halt. Everything else ends the pass; systemd starts the next one."""


class Rejected(Exception):
    """An offer that cannot be accepted; the text says why, for the operator to read."""


class Refused(Rejected):
    """The server says no, which it may take back: a tag that is not pushed yet, a host that is overloaded.

    An offer of the backend's waits for that for a while; the admin wants to know at once.
    """


class Postponed(Exception):
    """An update package makes way for a config offer, and is tried again after that."""


class Trouble(Exception):
    """Something cannot be done now, which says nothing about the offer: to be tried again."""


class NetworkTrouble(Trouble):
    """Something cannot be fetched now."""


class NodeTrouble(Trouble):
    """This node lacks room, memory or a program."""


class InstallTrouble(NetworkTrouble):
    """The source is here; what it depends on cannot be fetched now."""


class OldRevision(Rejected):
    """Its revision says that it is not a new offer."""
