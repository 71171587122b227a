"""A file that only takes up room, given back when the disk is full: deleting from a database needs room first."""

import contextlib
import os

from ivy import constants, files

BALLAST_FILE = os.path.join(constants.IVY_DATA_DIR, "reserve")
LEAST_FILES = 16
"""The last few files are for the queue and the archive."""

SIZE = 16_000_000
"""Enough to drop messages and to write back the journal of the database (4 MB, at times more)."""


def release() -> bool:
    """Give the room back. Returns whether there was any."""
    try:
        os.unlink(BALLAST_FILE)
    except OSError:
        return False
    return True


def keep(free: int, free_files: int | None = None) -> None:
    """Take the room again if there is plenty; all of it, where that was cut short before.

    Args:
        free: The bytes that are free on the disk.
        free_files: How many files more are possible; None where that has no limit.
    """
    is_short = free < 4 * SIZE or (free_files is not None and free_files < LEAST_FILES)
    if is_short or (os.path.exists(BALLAST_FILE) and os.path.getsize(BALLAST_FILE) >= SIZE):
        return
    with contextlib.suppress(OSError):  # a file system that cannot do it; one more try at the next check
        descriptor = files.open_shared(BALLAST_FILE)
        try:
            os.posix_fallocate(descriptor, 0, SIZE)
        finally:
            os.close(descriptor)
