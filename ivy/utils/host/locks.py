"""A lock between processes, held by an open file and so released by the kernel however its holder ends.

The same lock as that of the library `filelock` on Linux, which services do not load: it brings asyncio,
a megabyte and more for each process.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Generator

from ivy.files import open_shared

_SECONDS_BETWEEN_TRIES = 0.01


@contextlib.contextmanager
def file_lock(path: str, timeout: float) -> Generator[None, None, None]:
    """Hold the lock on a file across the body of a `with`. Threads exclude each other as processes do.

    Args:
        path: The lock file; made if it does not exist, and never removed.
        timeout: Seconds to wait for the lock.

    Raises:
        TimeoutError: Another process held the lock all the time.
    """
    descriptor = open_shared(path)
    try:
        _acquire(descriptor, path, time.monotonic() + timeout)
        yield
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, path: str, deadline: float) -> None:
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise TimeoutError(f"{path} is locked by another process") from None
        time.sleep(_SECONDS_BETWEEN_TRIES)
