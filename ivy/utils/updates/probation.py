"""Watches services after a change: whether they run well, and the operator can still be reached."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from ivy.types.config import ForeignConfig
from ivy.types.link_report import LinkReport
from ivy.utils import notify
from ivy.utils.host import busy, endings, units
from ivy.utils.storage import last_sample
from ivy.utils.updates import changes

_MOST_RESTARTS = 3
_SECONDS_OF_A_GOOD_RUN = 120.0  # as in units/ivy-reset-backoff
_SECONDS_WITHOUT_LINK = 86_400.0
_LEAST_SILENCE = 10.0  # seconds: what samples ten times in one of them rests for that long now and then
_LINES_OF_JOURNAL = 10
_NOTHING_DELIVERED = "nothing was delivered"
_PROPERTIES = (
    "LoadState",
    "ActiveState",
    "SubState",
    "NRestarts",
    "ActiveEnterTimestampMonotonic",
    "InvocationID",
    "User",
    *endings.PROPERTIES,
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
    """Nothing got through before, so that it proves nothing for a long time if nothing does now."""
    failing_before: Collection[str] = ()
    """The units that did not run well before: what they do now proves nothing."""
    restarts_before: Mapping[str, int] = field(default_factory=dict)
    """How often units had been restarted that run on."""
    must_send: Collection[str] = ()
    """The units that must send data again."""
    ask: Callable[[], None] = lambda: None
    """Has a message sent, where no procedure gives one to be acknowledged."""
    seconds_between_looks: float = 0.5
    seconds_of_calm: float = 2.0
    """Longer than the time that services need, before what lasts is said."""
    began: float = field(default_factory=time.monotonic)
    pending: str = ""
    pending_since: float = 0.0
    told: str = ""
    has_asked: bool = False

    def run(self) -> str | None:
        """Watch until it is over. Returns why the change must be undone; None if it is good.

        Raises:
            CommandError: There is no systemd to ask.
        """
        connected = ", and the backend deliver messages" if self.backend else ""
        self.say(f"On probation: for {self.seconds:.0f} s all services must run well{connected}")
        while True:
            notify.heartbeat()
            failure, pending = self.look()
            if failure or not pending:
                return failure
            if _NOTHING_DELIVERED in pending and not self.has_asked:
                self.has_asked = True
                self.ask()
            self._say_what_lasts(pending)
            time.sleep(self.seconds_between_looks)

    def _say_what_lasts(self, pending: str) -> None:
        """That services need some time is no news."""
        if pending != self.pending:
            self.pending, self.pending_since = pending, time.monotonic()
        elif pending != self.told and time.monotonic() - self.pending_since > self.seconds + self.seconds_of_calm:
            hint = "; it was so before, so this may take days" if self.link_was_down else ""
            is_link = "no connection" in pending or _NOTHING_DELIVERED in pending
            self.say(f"Still waiting: {pending}{hint if is_link else ''}")
            notify.status(f"on probation: {pending}")
            self.told = pending

    def look(self) -> tuple[str | None, str | None]:
        """Look once. Returns what fails it for good, and else what does not hold yet."""
        found = units.show_each(self.services, *_PROPERTIES)
        judged = [unit for unit in self.services if unit not in self.failing_before]
        seconds = time.monotonic() - self.began
        for unit in judged:
            if failure := _failure(unit, found.get(unit, {}), seconds, self.restarts_before.get(unit, 0)):
                return failure, None
        conditions = [pending for unit in judged if (pending := self._pending_of(unit, found[unit]))]
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
        if _seconds_active(found) < self.seconds:
            return f"{unit} has not run for {self.seconds:.0f} s yet"
        if unit in self.must_send and not _has_sent(unit, _seconds_active(found)):
            limit = f"procedures.{units.service_of(unit).replace('-', '_')}.max_silent_seconds"
            return f"{unit} has sent no data since, and did before; if it may rest for long, let {limit} say so"
        return None

    def _pending_link(self, found: dict[str, dict[str, str]]) -> str | None:
        if self.backend is None:
            return None
        if self.backend not in found:
            return f"there is no {self.backend}"
        report = LinkReport.load(found[self.backend].get("User", ""))
        if report is None or not report.is_of(found[self.backend]["InvocationID"]):
            return f"{self.backend} has said nothing of its connection"
        if not report.connected:
            return f"there is no connection: {report.reason}"
        if report.has_delivered is False:  # a release before this one does not say
            why = "; ".join(report.troubles) or f"{report.broker} has acknowledged no message since"
            return f"{_NOTHING_DELIVERED}: {why}"
        return None


def failing(services: Sequence[str]) -> dict[str, str]:
    """The units that do not run well now, and in which way: before a change, what is no fault of it.

    Raises:
        CommandError: There is no systemd to ask.
    """
    found = units.show_each(services, *_PROPERTIES)
    return {unit: words for unit in services if (words := _ailment(found.get(unit, {})))}


def sending(services: Sequence[str], config: ForeignConfig) -> tuple[dict[str, float], list[str]]:
    """The units that send data, and the seconds from one sample to the next; and those that do not any more.

    Of those that took no two samples since the boot, and may rest for any time, nothing is known. Who is not to be
    disturbed is silent by a limit only: a calibration has not the rhythm of before.
    """
    sent: dict[str, float] = {}
    silent: list[str] = []
    for unit in services:
        name = units.service_of(unit)
        found, limit = last_sample.look(name), changes.max_silent_seconds(config, unit)
        usual = None if found.rest is None else max(changes.RESTS * found.rest, _LEAST_SILENCE)
        bounds = [bound for bound in (limit, usual) if bound is not None]
        if found.waited is None or not bounds:
            continue
        if found.waited > bounds[0]:
            silent += [unit] if limit is not None or not busy.seconds_left(name) else []
        elif found.age is not None and found.waited <= min(bounds):
            sent[unit] = found.rest or bounds[0]
    return sent, silent


def restarts(services: Sequence[str]) -> dict[str, int]:
    """How often each unit was restarted by itself.

    Raises:
        CommandError: There is no systemd to ask.
    """
    found = units.show_each(services, "NRestarts")
    return {unit: int(properties.get("NRestarts") or 0) for unit, properties in found.items()}


def _ailment(found: dict[str, str]) -> str | None:
    if found.get("LoadState") != "loaded":
        return "cannot be loaded"
    if found["ActiveState"] == "failed":
        return f"failed ({endings.of_properties(found)})"
    count = int(found["NRestarts"] or 0)
    runs_well = found["ActiveState"] == "active" and _seconds_active(found) >= _SECONDS_OF_A_GOOD_RUN
    if found["SubState"] == "auto-restart" or (count >= _MOST_RESTARTS and not runs_well):
        return f"ended {count} times" if count else "ended by itself"
    return None


def _has_sent(unit: str, seconds: float) -> bool:
    age = last_sample.look(units.service_of(unit)).age
    return age is not None and age <= seconds


def _seconds_active(found: dict[str, str]) -> float:
    return time.clock_gettime(time.CLOCK_MONOTONIC) - int(found["ActiveEnterTimestampMonotonic"] or 0) / 1e6


def _failure(unit: str, found: dict[str, str], seconds: float, restarts_before: int) -> str | None:
    """What no waiting will repair: each second of it may cost samples. `seconds`: since the change."""
    restarts = int(found.get("NRestarts") or 0) - restarts_before
    if found.get("LoadState") != "loaded":
        return f"{unit} cannot be loaded ({found.get('LoadState', 'there is no such unit')})"
    if found["ActiveState"] == "failed":
        return _with_journal(unit, f"{unit} failed ({endings.of_properties(found)})")
    if found["ActiveState"] == "inactive":
        return _with_journal(unit, f"{unit} was stopped")
    if restarts >= _MOST_RESTARTS:
        return _with_journal(unit, f"{unit} ended {restarts} times{_how_it_ended(unit, found, seconds)}")
    return None


def _how_it_ended(unit: str, found: dict[str, str], seconds: float) -> str:
    """Nothing, where it runs again and nobody has counted it: what systemd knows is of this run then."""
    if found["SubState"].startswith("auto-restart"):
        return f" ({endings.of_properties(found)})"
    counted = endings.record(unit)
    return f" ({counted.ending})" if counted is not None and counted.age <= seconds else ""


def _with_journal(unit: str, reason: str) -> str:
    said = units.journal(unit, _LINES_OF_JOURNAL)
    return f"{reason}; its journal ends with:\n{said}" if said else reason
