"""Keeps the link report: at once when the connection changes, now and then when messages are acknowledged."""

import os
import time
from collections.abc import Sequence

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
            broker=broker,
            connected=False,
            since=time.time(),
            has_delivered=False,
            invocation=os.environ.get("INVOCATION_ID", ""),
        )

    def changed(
        self, connected: bool, reason: str | None = None, warning: str | None = None, protocol: str | None = None
    ) -> None:
        """Publish that the connection is there, by which version of MQTT, and what is wrong with it; or why not."""
        changes = {"connected": connected, "since": time.time(), "reason": reason}
        self._publish({**changes, "warning": warning, "protocol": protocol})

    def tell(self, troubles: Sequence[str], *, nobody_listens: bool) -> None:
        """Publish what the broker does not take, if it is news."""
        changes: dict[str, object] = {"troubles": list(troubles), "nobody_listens": nobody_listens}
        if changes != self._report.model_dump(include=set(changes)):
            self._publish(changes)

    def stuck(self, since: float | None) -> None:
        """Publish, if it is news, that the broker has acknowledged nothing since then (seconds since the boot)."""
        if since != self._report.stuck_since:
            self._publish({"stuck_since": since})

    def acknowledged(self) -> None:
        """Remember that a message was delivered, and publish the first time. Costs nothing but for that."""
        self._acknowledged = time.time()
        if not self._report.has_delivered:
            self._publish({"has_delivered": True})

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
