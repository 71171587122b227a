"""What is wrong with the data directory or its archive, noted where all can read it, until it takes messages again.

Knows nothing of its cause. Best effort: who cannot note it goes on without.
"""

import contextlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

from ivy import constants, files

PATH = os.path.join(constants.IVY_RUN_DIR, "queue-trouble")
ARCHIVE_PATH = os.path.join(constants.IVY_RUN_DIR, "archive-trouble")
"""The note where only the archive takes none."""

_MOST_BYTES = 10_000
_LONGEST_REASON = 300


@dataclass(frozen=True)
class Trouble:
    """Why it takes no messages, and since when."""

    reason: str
    seconds: float


def begin(reason: str, path: str = PATH) -> bool:
    """Note it. Returns whether nobody had."""
    note = {"reason": reason[:_LONGEST_REASON], "since": time.clock_gettime(time.CLOCK_BOOTTIME)}
    with contextlib.suppress(OSError):
        if look(path) is None:
            files.make_directory(constants.IVY_RUN_DIR)
            files.write_atomically(Path(path), json.dumps(note), mode=0o664, durable=False, follow=False)
            return True
    return False


def is_noted(path: str = PATH) -> bool:
    """Whether somebody has; costs one call."""
    return os.path.lexists(path)


def look(path: str = PATH) -> Trouble | None:
    """What was noted; None if all is well."""
    try:
        note = json.loads(files.read(path, _MOST_BYTES))
        seconds = time.clock_gettime(time.CLOCK_BOOTTIME) - float(note["since"])
        # Of an earlier boot, where there is no tmpfs.
        return Trouble(str(note["reason"])[:_LONGEST_REASON], round(seconds, 1)) if seconds >= 0 else None
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None


def end(path: str = PATH) -> float | None:
    """Note that it is over. Returns the seconds that it took; None if there was none, or others noted it."""
    trouble = look(path)
    try:
        os.unlink(path)
    except OSError:
        return None
    return trouble.seconds if trouble else None
