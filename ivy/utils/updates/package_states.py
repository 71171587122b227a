"""What the platform is told of an update package: the states, and their order, that its dashboard reads.

DOWNLOADING, DOWNLOADED, VERIFIED, UPDATING, then UPDATED or FAILED; FAILED may follow any of them. The last one
comes with the decision, see `decisions`. They are samples, as all that is telemetry: an old release that runs again
sends what is queued of them, too. Decides nothing.
"""

import sqlite3
from typing import Literal

from ivy import constants
from ivy.types.messages import DataMessageBody
from ivy.types.updates import Offer, PackageKind
from ivy.utils.host import rights
from ivy.utils.logger import Logger
from ivy.utils.messaging_agent import MessagingAgent
from ivy.version import Version

Step = Literal["DOWNLOADING", "DOWNLOADED", "VERIFIED", "UPDATING"]


class Progress:
    """Tells of each step of an offer once, however often it is taken: after a power cut, while a host is away."""

    def __init__(self, offer: Offer, logger: Logger) -> None:
        """What is no package has no such states, and nothing is told."""
        self._offer = offer
        self._logger = logger
        self._told: set[Step] = set()

    def reach(self, step: Step) -> None:
        """A step was taken. Where the queue takes nothing now, it is not told: an update does not wait for that."""
        if self._offer.package is None or step in self._told:
            return
        self._told.add(step)
        try:
            rights.ask(lambda: _queue(self._offer, step))
        except (OSError, sqlite3.Error) as error:
            self._logger.without_messages().warning(f"The platform is not told of {step}: {error}")


def _queue(offer: Offer, step: Step) -> None:
    if offer.package is None:
        return
    told: dict[str, float | int | str] = {f"{offer.package.kind}_state": step}
    if step == "DOWNLOADING":
        told[f"{offer.package.kind}_error"] = ""  # that of the last one
    agent = MessagingAgent()
    try:
        agent.add_once(f"{step} {offer.identifier}", [DataMessageBody(data=told)])
    finally:
        agent.teardown()


def updated(kind: PackageKind, version: Version) -> DataMessageBody:
    """An update was accepted, and this version runs."""
    return DataMessageBody(data={f"{kind}_state": "UPDATED", f"{kind}_error": "", **running(kind, version)})


def failed(kind: PackageKind, reason: str) -> DataMessageBody:
    """An update was not accepted, for a reason."""
    return DataMessageBody(data={f"{kind}_state": "FAILED", f"{kind}_error": reason})


def running(kind: PackageKind, version: Version) -> dict[str, str]:
    """Which version runs, in the platform's words."""
    return {f"current_{kind}_title": constants.NAME, f"current_{kind}_version": version.as_identifier()}
