"""What it means when git cannot fetch: the offer is no good, or the network is not there now. Fetches nothing."""

from typing import Optional

from ivy.utils.host import commands
from ivy.utils.updates.errors import NetworkTrouble, Rejected

# What git says (LC_ALL=C) when trying again would not help …
_VERDICTS = (
    ("fsck error", "the repository holds objects that git does not accept"),
    ("couldn't find remote ref", "there is no such tag in the repository"),
    ("Authentication failed", "the repository refuses the login: check updater.access_token"),
    ("could not read Username", "the repository wants a login: check updater.repository and updater.access_token"),
    ("returned error: 403", "the repository refuses the login: check updater.access_token"),
    ("not found", "there is no such repository: check updater.repository and updater.access_token"),
    ("No space left on device", "there is no space left on the node's disk"),
)
# … and when it would. (Nothing at all is what a time limit leaves.)
_TROUBLES = ("unable to access", "RPC failed", "early EOF", "hung up", "disconnect", "timed out", "Connection")


def judge(error: commands.CommandError, text: str) -> Optional[Exception]:
    """Tell what a failed fetch says about the offer, or about the network.

    Args:
        error: What git said.
        text: What was to be fetched, for the reason.

    Returns: A `Rejected`, or a `NetworkTrouble`; None if it says neither.
    """
    for pattern, verdict in _VERDICTS:
        if pattern in error.said:
            return Rejected(f"{text}: {verdict}")
    if not error.said or any(pattern in error.said for pattern in _TROUBLES):
        return NetworkTrouble(f"{text} cannot be fetched now: {error.said or error}")
    return None
