"""Access to `data/state.json`, through which the services of a node tell each other what they know."""

import contextlib
import os
from collections.abc import Generator

from ivy import constants, files
from ivy.types.state import State
from ivy.utils.host.json_file import JsonFile
from ivy.utils.host.locks import file_lock

STATE_FILE: str = os.path.join(constants.IVY_DATA_DIR, "state.json")
"""The file with the state."""

STATE_FILE_LOCK: str = os.path.join(constants.IVY_DATA_DIR, "state.lock")
"""Whoever holds the lock on this file may use the state file."""

SECONDS_TO_WAIT = 6.0
"""How long to wait for whoever holds that lock."""


@contextlib.contextmanager
def _locked() -> Generator[None, None, None]:
    files.make_directory(constants.IVY_DATA_DIR)
    with files.as_owner_of(constants.IVY_DATA_DIR), file_lock(STATE_FILE_LOCK, SECONDS_TO_WAIT):
        yield


_FILE = JsonFile(STATE_FILE, State, _locked)


class StateInterface:
    """Load and update the state, one process at a time.

    Each method raises `TimeoutError` where another process held the state for 6 seconds, and other `OSError`s where
    the file can be neither read, moved aside nor written. It is then unchanged.
    """

    @staticmethod
    def load() -> State:
        """Load the state; a state with all defaults if there is none yet.

        A damaged file is moved aside, to `state.json.damaged-<Unix time>`, and reported to the journal.
        """
        return _FILE.load()

    @staticmethod
    @contextlib.contextmanager
    def update() -> Generator[State, None, None]:
        """Change the state: the file is locked from before the body is entered until the change is on disk.

        Nothing is written if the body raises.

            with StateInterface.update() as state:
                state.system.last_5_min_load = 12.5
        """
        with _FILE.update() as state:
            yield state

    @staticmethod
    def tidy() -> None:
        """Remove what is left of changes that a power cut ended."""
        _FILE.tidy()
