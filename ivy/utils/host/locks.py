"""A lock between processes, held by an open file and so released by the kernel however its holder ends.

The same lock as that of the library `filelock` on Linux, which services do not load: it brings asyncio,
a megabyte and more for each process.
"""

import contextlib
import fcntl
import os
import select
import signal
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path

from ivy import files

_SECONDS_BETWEEN_TRIES = 0.01
_LOCKS = Path("/proc/locks")
_LONGEST_COMMAND = 100


@contextlib.contextmanager
def file_lock(path: str, timeout: float, *, is_private: bool = False) -> Generator[None, None, None]:
    """Hold the lock on a file across the body of a `with`. Threads exclude each other as processes do.

    Args:
        path: The lock file; made if it does not exist, and never removed. What is no file there is replaced.
        timeout: Seconds to wait for the lock.
        is_private: Whether only its owner may open it: whoever can open it can hold it, too.

    Raises:
        TimeoutError: Another process held the lock all the time; the text names it.
        OSError: The lock file cannot be opened.
    """
    descriptor = open_anew(path, is_private=is_private)
    try:
        _acquire(descriptor, path, time.monotonic() + timeout)
        yield
    finally:
        os.close(descriptor)


def holder(path: str) -> str:
    """Who holds the lock on a file, for people: `process 4711 (python3 -m ivy …)`, as far as it can be seen."""
    try:
        pids = list(_holders(os.stat(path)))
    except (OSError, ValueError):
        pids = []
    if not pids:
        return "another process"
    command = _command(pids[0])
    return f"process {pids[0]} ({command})" if command else f"process {pids[0]}"


def end_holder(path: str, is_meant: Callable[[Sequence[str]], bool], seconds: float) -> str | None:
    """Let the process that holds the lock on a file end, by SIGTERM, and wait for that.

    Args:
        path: The lock file.
        is_meant: Whether a process of such a command may be ended. Others are left alone.
        seconds: How long to wait.

    Returns: Who that was, for people; None if nothing was ended.
    """
    with contextlib.suppress(OSError, ValueError):
        for pid in _holders(os.stat(path)):
            descriptor = os.pidfd_open(pid)  # so that it is this process, and no later one of the same number
            try:
                if pid in _holders(os.stat(path)) and pid != os.getpid() and is_meant(_words(pid)):
                    who = holder(path)
                    signal.pidfd_send_signal(descriptor, signal.SIGTERM)
                    select.select([descriptor], [], [], seconds)
                    return who
            finally:
                os.close(descriptor)
    return None


def open_anew(path: str, *, is_private: bool = False) -> int:
    """Open a lock file; what is no file there is replaced. Returns its descriptor."""
    try:
        return _open_file(path, is_private)
    except OSError as error:
        if not files.is_out_of_place(error):
            raise
    files.remove(path)  # a link, a pipe, a directory: nobody could hold the lock any more
    return _open_file(path, is_private)


def _open_file(path: str, is_private: bool) -> int:
    if not is_private:
        return files.open_shared(path)
    descriptor = files.open_regular(path, os.O_RDWR | os.O_CREAT, 0o600)
    with contextlib.suppress(PermissionError):
        os.fchmod(descriptor, 0o600)  # of an earlier version, whose lock everybody could hold
    return descriptor


def _acquire(descriptor: int, path: str, deadline: float) -> None:
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise TimeoutError(f"{path} is locked by {holder(path)}") from None
        time.sleep(_SECONDS_BETWEEN_TRIES)


def _holders(status: os.stat_result) -> Iterator[int]:
    """The processes that hold a lock on a file, by proc_locks(5). F_GETLK knows nothing of this kind of lock."""
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    lines = [line.split() for line in _LOCKS.read_text(encoding="ascii", errors="replace").splitlines()]
    held = [line for line in lines if len(line) > 5 and line[1] == "FLOCK"]
    # Some file systems (btrfs, an overlay) tell another device there.
    exact = [line for line in held if line[5] == device]
    for line in exact or [line for line in held if line[5].endswith(f":{status.st_ino}")]:
        yield int(line[4])


def _command(pid: int) -> str:
    """The command of a process, as far as it can be seen and printed."""
    words = " ".join(_words(pid))
    return "".join(letter if letter.isprintable() else "?" for letter in words)[:_LONGEST_COMMAND]


def _words(pid: int) -> list[str]:
    try:
        return files.read(f"/proc/{pid}/cmdline").decode(errors="replace").strip("\0").split("\0")
    except OSError:
        return []
