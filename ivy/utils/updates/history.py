"""The file in which the updater remembers what it does and did. Only whoever holds the automation lock writes it.

It is root's, beside the releases: no service can make an offer look decided, or a trial passed.
"""

import contextlib
import os
import time
from collections.abc import Generator
from pathlib import Path

import pydantic

from ivy import constants, files
from ivy.types.config import ForeignConfig, describe
from ivy.types.updates import History
from ivy.utils.host import journal

HISTORY_FILE: str = os.path.join(constants.IVY_ROOT_DIR, "updates.json")
"""The file with the history."""


def load() -> History:
    """Load the history; an empty one if there is none yet.

    A damaged file is moved aside, to `updates.json.damaged-<Unix time>`, and reported to the journal.

    Raises:
        OSError: The file can be neither read nor moved aside.
    """
    try:
        return History.model_validate_json(Path(HISTORY_FILE).read_bytes())
    except FileNotFoundError:
        return History()
    except pydantic.ValidationError as error:
        aside = f"{HISTORY_FILE}.damaged-{time.time():.0f}"
        os.rename(HISTORY_FILE, aside)
        journal.send(
            "ERROR", f"{HISTORY_FILE} is damaged: moved to {aside}, starting anew", details=describe(error)
        )
        return History()


@contextlib.contextmanager
def update() -> Generator[History, None, None]:
    """Change the history: it is on disk when the body has ended. Nothing is written if the body raises.

    Raises:
        OSError: The file can be neither read nor moved aside, or not be written (and is unchanged).
    """
    history = load()
    before = history.model_dump_json(indent=4)
    yield history
    after = history.model_dump_json(indent=4)
    if after != before:
        files.write_atomically(Path(HISTORY_FILE), after + "\n", group_of=Path(constants.IVY_DATA_DIR))


def tidy() -> None:
    """Remove what is left of changes that a power cut ended.

    Raises:
        OSError: It cannot be removed.
    """
    files.remove_stale(Path(HISTORY_FILE))


def decided_revision() -> int:
    """The highest revision of a backend's offer that was decided about; -1 if there was none.

    For a resident service, which has no use for all the rest.
    """
    return _peek().decided_revision


def is_decided(offer: ForeignConfig) -> bool:
    """Whether an offer of the backend was decided about. For a resident service as well."""
    return _peek().is_decided(offer)


def _peek() -> History:
    """What there is to read, without mending anything: a service may not."""
    try:
        return History.model_validate_json(Path(HISTORY_FILE).read_bytes())
    except (OSError, ValueError):
        return History()
