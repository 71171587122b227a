"""Waits until no procedure says that it is not to be disturbed, before something restarts it. Bounded, and told.

Since when somebody waits is noted in /run, and counts on for whoever waits next: neither procedures that say so
again and again, or in turns, nor offers that replace each other make it longer. Nothing of a wait outlives a boot,
nor does what is waited for.
"""

import json
import os
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from ivy import constants, files
from ivy.utils import notify
from ivy.utils.host import busy, units

NOTE = Path(constants.UPDATER_RUN_DIR, "waits.json")
"""Who waits for whom; root writes it, and all may read it."""

_RESTARTS = units.name_of("restart")

SECONDS_BETWEEN_LOOKS = 10.0
_SECONDS_TO_GO_ON = 600.0  # until the next pass of the updater has come as far
_SECONDS_OF_SILENCE = 60.0  # after which whoever has waited does not any more


@dataclass(frozen=True)
class Wait:
    """That somebody waits before these procedures are restarted."""

    procedures: list[str]
    most_seconds: float
    """For how long more, at most."""
    what: str = "update"
    """What waits: `update` or `reboot`."""


@dataclass(frozen=True)
class _Note:
    """The times are seconds since the boot."""

    procedures: list[str]
    began: float
    looked: float
    what: str = "update"


def everybody() -> list[str]:
    """The units of all that may say that they are not to be disturbed, also of those that a timer has started."""
    with suppress(OSError):
        return [f"{unit}.service" for unit in sorted(os.listdir(constants.BUSY_DIR))]
    return []


def restart_later(unit: str) -> None:
    """Have units/ivy-restart restart a service as soon as it may be disturbed, or has had its two hours.

    Raises:
        OSError: It cannot be asked for.
        CommandError: There is no systemd to ask.
    """
    since = Path(constants.RESTARTED_DIR, f"{units.service_of(unit)}.waits")
    files.write_atomically(since, f"{int(busy.now())}\n", durable=False)
    # Not "start": what is about to end would not look again, and it may be ended at any time.
    units.control("restart", _RESTARTS, "--no-block")


def find(services: Collection[str]) -> dict[str, float]:
    """The units that run and are not to be disturbed, and for how many seconds more.

    Raises:
        CommandError: There is no systemd to ask.
    """
    said = {unit: busy.seconds_left(units.service_of(unit)) for unit in services}
    found = units.show_each([unit for unit, seconds in said.items() if seconds], "ActiveState")
    return {unit: said[unit] for unit, properties in found.items() if properties["ActiveState"] == "active"}


def wait(
    services: Collection[str],
    say: Callable[[str], None],
    look: Callable[[], None] = lambda: None,
    seconds_between_looks: float = SECONDS_BETWEEN_LOOKS,
    what: str = "update",
) -> list[str]:
    """Wait until none of these units is busy, with heartbeats.

    Args:
        services: What is to be restarted then.
        say: Is told what is waited for: once for each, however often it says so again.
        look: Called now and then. Raises if it is better not to go on.
        seconds_between_looks: How often to look.
        what: What waits, for `Wait`.

    Returns: The procedures that are disturbed all the same, as they have been busy for too long.

    Raises:
        CommandError: There is no systemd to ask.
    """
    before = _noted(_SECONDS_TO_GO_ON)
    began = before.began if before else busy.now()
    told = set[str]()
    late: list[str] = []
    while found := find(services):
        procedures = {units.service_of(unit): seconds for unit, seconds in found.items()}
        rest = began + busy.MOST_SECONDS - busy.now()
        if rest <= 0:
            late = [*procedures]
            break
        words = f"waiting for {busy.words(procedures)}, not to be disturbed"
        if not told.issuperset(found):
            told.update(found)
            say(words)
        notify.status(f"not now: {words}")
        with suppress(OSError):  # then nobody is shown it, and a pass that is ended begins to count again
            note = json.dumps(asdict(_Note([*procedures], began, busy.now(), what)))
            files.write_atomically(NOTE, note, mode=0o644, durable=False)
        notify.sleep(min(seconds_between_looks, rest))
        look()
    with suppress(OSError):
        files.remove(str(NOTE))
    return late


def look() -> Wait | None:
    """What somebody waits for now, if anybody does."""
    note = _noted(_SECONDS_OF_SILENCE)
    if note is None:
        return None
    return Wait(note.procedures, max(0.0, round(note.began + busy.MOST_SECONDS - busy.now(), 1)), note.what)


def _noted(seconds: float) -> _Note | None:
    """What was noted so many seconds ago at most."""
    try:
        note = _Note(**json.loads(files.read(str(NOTE), most_bytes=10_000)))
        return note if 0 <= busy.now() - note.looked <= seconds and note.began <= note.looked else None
    except (OSError, ValueError, TypeError):
        return None
