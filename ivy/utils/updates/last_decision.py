"""How the last offer was decided, for services that may not read the history: there are configs in that.

On /run, where only root may write; the pass at each boot notes it again.
"""

import contextlib
import json
import os
from pathlib import Path

from ivy import constants, files
from ivy.types.updates import History

_NOTE = os.path.join(constants.UPDATER_RUN_DIR, "last-decision")
_MOST_BYTES = 1000


def note(past: History) -> None:
    """Leave word of it. Best effort: nothing is decided by this."""
    if past.decisions:
        last = past.decisions[-1]
        content = json.dumps({"accepted": bool(last.accepted), "time": last.time})
        with contextlib.suppress(OSError):
            files.write_atomically(Path(_NOTE), content, mode=0o644, durable=False)


def look() -> tuple[bool, float] | None:
    """Whether it was accepted, and the Unix time of that; None if there was none, or nobody knows."""
    try:
        content = json.loads(files.read(_NOTE, _MOST_BYTES))
        return bool(content["accepted"]), float(content["time"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
