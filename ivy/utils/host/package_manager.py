"""Whether packages that ivy runs on were changed, and when the package manager is done with them.

dpkg tells by a trigger (debian/ivy.triggers), and the package's script leaves a flag. Installs nothing.
"""

import contextlib
import fcntl
import os
import struct
import time

from ivy import constants, files
from ivy.utils import notify

FLAG = os.path.join(constants.IVY_RUN_DIR, "packages-changed")
"""Starts a pass. A directory: root can make one where others may put links."""

TAKEN = f"{FLAG}.taken"
"""Its name from the start of a pass on, so that what comes then starts another one: see ivy-updater.service."""

LOCKS = ("/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock")
"""Held by apt from its begin to its end, and by each dpkg."""

_LOCK_QUESTION = "hhqqi"  # struct flock, see fcntl(2)
_SECONDS_BETWEEN_LOOKS = 1.0
_SECONDS_OF_REST = 5.0
_MOST_SECONDS = 1800.0


def were_changed() -> bool:
    """Whether packages were changed that ivy runs on, which this pass is to deal with."""
    return os.path.lexists(TAKEN)


def dealt_with() -> None:
    """Forget what was changed; `OSError` if that is impossible."""
    with files.as_owner_of(constants.IVY_RUN_DIR):
        _remove(TAKEN)


def leave_to_next_pass() -> None:
    """Let systemd start another pass when this one has ended; `OSError` if it cannot be told."""
    with files.as_owner_of(constants.IVY_RUN_DIR):
        _remove(FLAG)
        os.rename(TAKEN, FLAG)


def wait_for_end() -> bool:
    """Wait until nobody installs packages, with heartbeats, but not for ever: a question may have been left open.

    Returns: Whether it has come to an end meanwhile, after which whoever has waited is a program of before.
    """
    now = began = free_since = time.monotonic()
    has_waited = False
    # It is free for an instant between two runs of dpkg, too.
    while now - free_since < _SECONDS_OF_REST and now - began < _MOST_SECONDS:
        notify.sleep(_SECONDS_BETWEEN_LOOKS)
        now = time.monotonic()
        if any(map(_is_locked, LOCKS)):
            if not has_waited:
                notify.status("waiting for the end of an installation of packages")
            free_since, has_waited = now, True
    return has_waited and now - began < _MOST_SECONDS


def _remove(path: str) -> None:
    try:
        os.rmdir(path)
    except FileNotFoundError:
        pass
    except OSError:
        files.remove(path)  # what somebody else has put there


def _is_locked(path: str) -> bool:
    """Whether another process holds a lock, by asking: to try it would make another one fail."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            question = struct.pack(_LOCK_QUESTION, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            answer = fcntl.fcntl(descriptor, fcntl.F_GETLK, question)
        finally:
            os.close(descriptor)
        return bool(struct.unpack(_LOCK_QUESTION, answer)[0] != fcntl.F_UNLCK)
    return False
