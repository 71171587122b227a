"""Access to the state, through which the services of a node tell each other what they know.

Two files: what procedures write, and the pending configs, which only backends and the updater may write.
"""

import contextlib
import os
from collections.abc import Callable, Generator

from ivy import constants, files
from ivy.types.config import ForeignConfig
from ivy.types.state import BackendState, State
from ivy.utils.host.json_file import JsonFile
from ivy.utils.host.locks import file_lock

STATE_FILE: str = os.path.join(constants.IVY_DATA_DIR, "state.json")
"""The file with the state."""

STATE_FILE_LOCK: str = os.path.join(constants.IVY_DATA_DIR, "state.lock")
"""Whoever holds the lock on this file may use the state file."""

SECONDS_TO_WAIT = 6.0
"""How long to wait for whoever holds that lock."""


def _locked(directory: str, lock: str) -> Callable[[], contextlib.AbstractContextManager[None]]:
    @contextlib.contextmanager
    def hold() -> Generator[None, None, None]:
        files.make_directory(directory)
        with files.as_owner_of(directory), file_lock(lock, SECONDS_TO_WAIT):
            yield

    return hold


_FILE = JsonFile(STATE_FILE, State, _locked(constants.IVY_DATA_DIR, STATE_FILE_LOCK))

BACKEND_STATE_FILE: str = os.path.join(constants.BACKEND_DIR, "state.json")
"""The file with what backends know: the pending configs, and how long the link has been away."""

BACKEND_STATE = JsonFile(
    BACKEND_STATE_FILE,
    BackendState,
    _locked(constants.BACKEND_DIR, os.path.join(constants.BACKEND_DIR, "state.lock")),
)
"""What backends know. A file of its own: no procedure can write it, or hold up its users by a lock."""


def pending_configs() -> list[ForeignConfig]:
    """The offers that wait, the oldest first; none for whoever may not look there. Makes no file."""
    return BACKEND_STATE.load().pending_configs if os.path.exists(BACKEND_STATE_FILE) else []


class StateInterface:
    """Load and update the state, one process at a time.

    Each method raises `TimeoutError` where another process held the state for 6 seconds, and other `OSError`s where
    the file can be neither read, moved aside nor written. It is then unchanged.
    """

    @staticmethod
    def load() -> State:
        """Load the state; a state with all defaults if there is none yet. Procedures see no pending configs.

        A damaged file is moved aside, to `state.json.damaged-<Unix time>`, and reported to the journal.
        """
        state = _FILE.load()
        state.pending_configs = pending_configs()
        return state

    @staticmethod
    @contextlib.contextmanager
    def update() -> Generator[State, None, None]:
        """Change the state: the file is locked from before the body is entered until the change is on disk.

        Nothing is written if the body raises.

            with StateInterface.update() as state:
                state.system.last_5_min_load = 12.5
        """
        if not _may_offer():
            with _FILE.update() as state:
                state.pending_configs = []
                yield state
                state.pending_configs = []
            return
        with BACKEND_STATE.update() as offers, _FILE.update() as state:
            state.pending_configs = list(offers.pending_configs)
            yield state
            offers.pending_configs, state.pending_configs = state.pending_configs, []

    @staticmethod
    def tidy() -> bool:
        """Remove what is left of changes that a power cut ended. Returns whether a damaged file was moved aside."""
        return _FILE.tidy()


def _may_offer() -> bool:
    directory = constants.BACKEND_DIR
    return os.access(directory if os.path.exists(directory) else os.path.dirname(directory), os.W_OK)
