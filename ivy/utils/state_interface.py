"""Access to `data/state.json`, through which the services of a node tell each other what they know."""

import contextlib
import errno
import os
import time
from collections.abc import Generator
from pathlib import Path

import pydantic

from ivy import constants, files
from ivy.types.config import describe
from ivy.types.state import State
from ivy.utils.host import journal
from ivy.utils.host.locks import file_lock

STATE_FILE: str = os.path.join(constants.IVY_DATA_DIR, "state.json")
"""The file with the state."""

STATE_FILE_LOCK: str = os.path.join(constants.IVY_DATA_DIR, "state.lock")
"""Whoever holds the lock on this file may use the state file."""

_SECONDS_TO_WAIT = 6
_NO_FILE = (errno.ELOOP, errno.EINVAL, errno.EFBIG)  # see `files.read`


class StateInterface:
    """Load and update the state, one process at a time."""

    @staticmethod
    def load() -> State:
        """Load the state; a state with all defaults if there is none yet.

        A damaged file is moved aside, to `state.json.damaged-<Unix time>`, and reported to the journal.

        Raises:
            TimeoutError: Another process held the state for 6 seconds.
            OSError: The file can be neither read nor moved aside.
        """
        with _locked():
            return _load()

    @staticmethod
    @contextlib.contextmanager
    def update() -> Generator[State, None, None]:
        """Change the state: the file is locked from before the body is entered until the change is on disk.

        Nothing is written if the body raises.

            with StateInterface.update() as state:
                state.system.last_5_min_load = 12.5

        Raises:
            TimeoutError: Another process held the state for 6 seconds.
            OSError: The file can be neither read nor moved aside, or not be written (and is unchanged).
        """
        with _locked():
            state = _load()
            before = state.model_dump_json()
            yield state
            after = state.model_dump_json(indent=4)
            if state.model_dump_json() != before:
                files.write_atomically(Path(STATE_FILE), after + "\n")

    @staticmethod
    def tidy() -> None:
        """Remove what is left of changes that a power cut ended.

        Raises:
            TimeoutError: Another process held the state for 6 seconds.
            OSError: It cannot be removed.
        """
        with _locked():
            files.remove_stale(Path(STATE_FILE))


@contextlib.contextmanager
def _locked() -> Generator[None, None, None]:
    files.make_directory(constants.IVY_DATA_DIR)
    with files.as_owner_of(constants.IVY_DATA_DIR), file_lock(STATE_FILE_LOCK, _SECONDS_TO_WAIT):
        yield


def _load() -> State:
    try:
        return State.model_validate_json(files.read(STATE_FILE))
    except FileNotFoundError:
        return State()
    except (OSError, pydantic.ValidationError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_FILE:
            raise
        aside = f"{STATE_FILE}.damaged-{time.time():.0f}"
        os.rename(STATE_FILE, aside)
        journal.send(
            "ERROR", f"{STATE_FILE} is damaged: moved to {aside}, starting anew", details=_described(error)
        )
        return State()


def _described(error: OSError | pydantic.ValidationError) -> str:
    return str(error) if isinstance(error, OSError) else describe(error)
