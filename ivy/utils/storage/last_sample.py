"""When a procedure sampled last, and how long it rests between two samples: the two times of a file.

On a node the file is a pipe that `ivy-owners.service` makes, and that only the procedure itself may touch. Its
times count from the boot: a clock that is set makes nobody silent. "Modified" is the last sample. "Accessed" is by
the longest rest of late before that; or, if it is later, since when a sample is to be expected, as the service was
to start then. A time in the future is none.
"""

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

from ivy import constants

LAST_SAMPLE = os.path.join(constants.SAMPLES_DIR, "ivy-")
"""With a procedure's name behind it, the file."""

_FORGETS = 8
"""A rest is forgotten after so many times its length: a sensor that was dead for an hour has no rhythm of one."""


@dataclass(frozen=True)
class Sampling:
    """What is known of a procedure's samples since the boot; times in seconds."""

    age: float | None
    """Of the last one; None if there was none."""
    waited: float | None
    """For how long there was none that was to be expected; None if nobody knows."""
    rest: float | None
    """The longest of late between two; None if there were not two."""


def note(procedure: str) -> None:
    """A procedure has sampled. Costs two calls; never raises, as it is of no use to the sample."""
    path = f"{LAST_SAMPLE}{procedure}"
    with contextlib.suppress(OSError):
        if not os.path.exists(path):  # in a checkout; on a node, nobody else can make it
            os.makedirs(os.path.dirname(path), exist_ok=True)
            Path(path).touch()
        now = _now()
        os.utime(path, (now - _longest_rest(os.stat(path), now), now))


def _longest_rest(noted: os.stat_result, now: float) -> float:
    """Counted from when the first sample was to be expected, too: what a sensor takes to warm up."""
    last, mark = noted.st_mtime, noted.st_atime
    if last > now or mark > last:
        return now - mark if mark <= now else 0.0
    return max(now - last, last - mark - (now - last) / _FORGETS)


def look(procedure: str) -> Sampling:
    """What is known of a procedure."""
    try:
        noted, now = os.stat(f"{LAST_SAMPLE}{procedure}"), _now()
    except OSError:
        return Sampling(None, None, None)
    last, mark = (moment if moment <= now else None for moment in (noted.st_mtime, noted.st_atime))
    known = [moment for moment in (last, mark) if moment is not None]
    return Sampling(
        age=None if last is None else now - last,
        waited=now - max(known) if known else None,
        rest=last - mark if last is not None and mark is not None and mark < last else None,
    )


def _now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
