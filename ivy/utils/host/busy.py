"""Until when a procedure is not to be disturbed: "not now", by the time of a pipe of its own.

`ivy-owners.service` makes a pipe for each service, of which no other can set the times: none forges for others.
Who looks asks for a time and opens nothing, so it may be root. It is told in seconds since the boot, as the clock
may be set meanwhile. See `ivy.utils.notify.undisturbed`; and units/ivy-busy, which looks from shells.
"""

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from ivy import constants

MOST_SECONDS = 7200.0
"""Nobody waits for longer, nor believes a later time: a new pipe has that of the calendar."""

_own: Path | None = None
_ends: list[float] = []


def begin(procedure: str) -> None:
    """This process is that procedure, and has just started: what was said before does not count any more."""
    global _own
    _own = _pipe(procedure)
    _ends.clear()
    _show()


def add(seconds: float) -> float:
    """This process is not to be disturbed for so long, whatever else it has said. Returns what `remove` wants."""
    end = now() + min(seconds, MOST_SECONDS)
    _ends.append(end)
    _show()
    return end


def remove(end: float) -> None:
    """That is over."""
    _ends.remove(end)
    _show()


def _show() -> None:
    if _own is None:
        return
    end = max(_ends, default=0.0)
    with suppress(OSError):  # in a checkout there is none
        os.utime(_own, (end, end))


def seconds_left(procedure: str) -> float:
    """For how long a procedure that runs is not to be disturbed, as it says itself; 0 if it may be."""
    try:
        left = _pipe(procedure).stat().st_mtime - now()
    except OSError:
        return 0.0
    return left if 0 < left <= MOST_SECONDS else 0.0


def words(procedures: Mapping[str, float]) -> str:
    """Names and for how many seconds more, for people: `co2 until 14:30 UTC`."""
    return ", ".join(f"{name} until {clock_time(seconds)}" for name, seconds in procedures.items())


def clock_time(seconds: float) -> str:
    """What the clock says in so many seconds, in UTC as all that `ivy` prints: `14:30 UTC`."""
    return time.strftime("%H:%M UTC", time.gmtime(time.time() + seconds))


def _pipe(procedure: str) -> Path:
    return Path(constants.BUSY_DIR, f"{constants.NAME}-{procedure}")


def now() -> float:
    """Seconds since the boot."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
