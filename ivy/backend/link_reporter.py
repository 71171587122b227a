"""Keeps the link report: at once when the connection changes, now and then when messages are acknowledged."""

import os
import time

from ivy.backend.delays import USUAL, Delays
from ivy.types.link_report import LinkReport
from ivy.utils.logger import Logger


class LinkReporter:
    """What this run of a backend says about its connection to a broker, `host:port`."""

    def __init__(self, broker: str, journal: Logger, delays: Delays = USUAL) -> None:
        self._delays = delays
        earlier = LinkReport.load()
        self._journal = journal
        self._acknowledged = earlier.last_acknowledged if earlier else None
        self._next_renewal = 0.0
        self._report = LinkReport(
            broker=broker, connected=False, since=time.time(), invocation=os.environ.get("INVOCATION_ID", "")
        )

    def changed(self, connected: bool, reason: str | None = None) -> None:
        """Publish that the connection is there, or why not."""
        self._publish({"connected": connected, "since": time.time(), "reason": reason})

    def acknowledged(self) -> None:
        """Remember that the broker acknowledged messages. Costs nothing, so that it may be called for each."""
        self._acknowledged = time.time()

    def renew(self) -> None:
        """Publish when that was, if it is news, and not more often than once a minute."""
        if self._acknowledged != self._report.last_acknowledged and time.monotonic() >= self._next_renewal:
            self._next_renewal = time.monotonic() + self._delays.between_renewals
            self._publish({})

    def _publish(self, changes: dict[str, object]) -> None:
        self._report = self._report.model_copy(update={**changes, "last_acknowledged": self._acknowledged})
        try:
            self._report.write()
        except OSError as error:  # `ivy status` will know less; no reason to stop sending
            self._journal.warning(f"The state of the link could not be published: {error}")
