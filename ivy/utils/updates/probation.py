"""Watches services after a change: whether they run well, and the operator can still be reached."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ivy.types.link_report import LinkReport
from ivy.utils import notify
from ivy.utils.host import units

_MOST_RESTARTS = 3
_SECONDS_WITHOUT_LINK = 86_400.0
_LINES_OF_JOURNAL = 10
_PROPERTIES = (
    "LoadState",
    "ActiveState",
    "SubState",
    "NRestarts",
    "ActiveEnterTimestampMonotonic",
    "Result",
    "InvocationID",
)


@dataclass
class Watch:
    """A probation: what must hold, and for how long it may not."""

    services: Sequence[str]
    """All units that must run."""
    backend: str | None
    """The unit among them that must be connected, if any."""
    seconds: float
    """How long each must have run without an end."""
    most_seconds: float
    """After that, what does not hold fails the probation."""
    say: Callable[[str], None]
    link_was_down: bool = False
    """There was no connection before, so that the lack of one proves nothing for a long time."""
    seconds_between_looks: float = 0.5
    seconds_of_calm: float = 2.0
    """Longer than the time that services need, before what lasts is said."""
    began: float = field(default_factory=time.monotonic)
    pending: str = ""
    pending_since: float = 0.0
    told: str = ""

    def run(self) -> str | None:
        """Watch until it is over. Returns why the change must be undone; None if it is good.

        Raises:
            CommandError: There is no systemd to ask.
        """
        connected = ", and the backend be connected" if self.backend else ""
        self.say(f"On probation: for {self.seconds:.0f} s all services must run well{connected}")
        while True:
            notify.heartbeat()
            failure, pending = self.look()
            if failure or not pending:
                return failure
            self._say_what_lasts(pending)
            time.sleep(self.seconds_between_looks)

    def _say_what_lasts(self, pending: str) -> None:
        """That services need some time is no news."""
        if pending != self.pending:
            self.pending, self.pending_since = pending, time.monotonic()
        elif pending != self.told and time.monotonic() - self.pending_since > self.seconds + self.seconds_of_calm:
            hint = "; there was none before, so this may take days" if self.link_was_down else ""
            self.say(f"Still waiting: {pending}{hint if 'no connection' in pending else ''}")
            self.told = pending

    def look(self) -> tuple[str | None, str | None]:
        """Look once. Returns what fails it for good, and else what does not hold yet."""
        found = units.show_each(self.services, *_PROPERTIES)
        for unit in self.services:
            if failure := _failure(unit, found.get(unit, {})):
                return failure, None
        conditions = [pending for unit in self.services if (pending := self._pending_of(unit, found[unit]))]
        pending_link = self._pending_link(found)
        if not conditions and not pending_link:
            return None, None
        pending = conditions[0] if conditions else str(pending_link)
        is_patient = self.link_was_down and not conditions
        most = max(self.most_seconds, _SECONDS_WITHOUT_LINK) if is_patient else self.most_seconds
        if time.monotonic() - self.began > most:
            return f"after {most:.0f} s {pending}", None
        return None, pending

    def _pending_of(self, unit: str, found: dict[str, str]) -> str | None:
        if found["ActiveState"] != "active":
            return f"{unit} is {found['ActiveState']} ({found['SubState']})"
        seconds = time.clock_gettime(time.CLOCK_MONOTONIC) - int(found["ActiveEnterTimestampMonotonic"]) / 1e6
        return f"{unit} has not run for {self.seconds:.0f} s yet" if seconds < self.seconds else None

    def _pending_link(self, found: dict[str, dict[str, str]]) -> str | None:
        if self.backend is None:
            return None
        report = LinkReport.load()
        invocation = found[self.backend]["InvocationID"]
        if report is None or report.invocation not in ("", invocation):
            return f"{self.backend} has said nothing of its connection"
        return None if report.connected else f"there is no connection: {report.reason}"


def _failure(unit: str, found: dict[str, str]) -> str | None:
    """What no waiting will repair: each second of it may cost samples."""
    restarts = int(found.get("NRestarts") or 0)
    if found.get("LoadState") != "loaded":
        return f"{unit} cannot be loaded ({found.get('LoadState', 'there is no such unit')})"
    if found["ActiveState"] in ("failed", "inactive"):
        return _with_journal(unit, f"{unit} failed ({found['Result']})")
    if restarts >= _MOST_RESTARTS:
        return _with_journal(unit, f"{unit} ended {restarts} times ({found['Result']})")
    return None


def _with_journal(unit: str, reason: str) -> str:
    said = units.journal(unit, _LINES_OF_JOURNAL)
    return f"{reason}; its journal ends with:\n{said}" if said else reason
