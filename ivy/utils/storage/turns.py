"""Whose turn it is to write: one short lock over queue and archive, and a note of how far its holders came.

SQLite's own lock makes those who wait nap for up to 100 ms, whoever came first. The kernel wakes them in turn.
Knows neither messages nor SQL.
"""

import contextlib
import fcntl
import os
import signal
import threading
import time
import types
from collections.abc import Generator

from ivy import files
from ivy.utils import notify
from ivy.utils.host import clock, locks

_MOST = 1 << 47
"""What is larger is no number that was counted up to."""
_NOTE = 100
"""Bytes of a note, and more."""
_NAP = 0.001
_AGAIN = 0.1
"""Seconds between alarms: one that comes just before the wait does not end it."""
_LONGEST_LEAP = 60_000
"""Milliseconds by which a message may be later than the clock; beyond, the clock was set back."""


class Turn:
    """What the last writer left; `keep` leaves it to the next one."""

    def __init__(self, note: int | None, boot_id: str) -> None:
        self._note, self._boot_id = note, boot_id
        self.number: int | None
        """The last message that stands in the archive, too; None if nobody has noted it since the boot."""
        self.milliseconds: int
        """Those of the last message."""
        self.number, self.milliseconds = _parse(os.pread(note, _NOTE, 0) if note is not None else b"", boot_id)

    def own_millisecond(self, timestamp: float) -> float:
        """The time, or that of the next millisecond that no message has: a platform keeps one value for each."""
        timestamp = own_millisecond(timestamp, self.milliseconds)
        self.milliseconds = round(timestamp * 1000)
        return timestamp

    def keep(self, number: int | None) -> None:
        """Note how far the archive goes, and the time of the last message; where that cannot be done, next time."""
        self.number = number
        known = "unknown" if number is None else f"{number:020}"
        note = f"{self._boot_id} {known:20} {max(0, self.milliseconds):020}\n"
        with contextlib.suppress(OSError):  # what it says less than was done is found out
            if self._note is not None:
                os.pwrite(self._note, note.encode(), 0)


class Turns:
    """A lock file, and a note where a boot leaves nothing. Both stay open."""

    def __init__(self, lock_path: str, note_path: str) -> None:
        self._lock, self._note = _Lock(lock_path), _Lock(note_path)
        self._boot_id = clock.boot_id()  # where there is no tmpfs, the note outlives its boot

    @contextlib.contextmanager
    def take(self, patience: float) -> Generator[Turn, None, None]:
        """Be the only one who writes, across the body of a `with`. Waits with heartbeats.

        Where memory takes no note (a full `/run`), the lock alone must do: less fair, and slower.

        Raises:
            TimeoutError: Somebody else was, all of this many seconds.
            OSError: The lock file cannot be opened.
        """
        deadline = time.monotonic() + patience
        # Whoever comes out and wants in again waits behind who is next: else a busy writer would keep others out.
        note = self._take_note(deadline)
        try:
            lock = self._lock.acquire(deadline)
        finally:
            if note is not None:
                fcntl.flock(note, fcntl.LOCK_UN)
        try:
            yield Turn(note, self._boot_id)
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)

    def _take_note(self, deadline: float) -> int | None:
        try:
            return self._note.acquire(deadline)
        except TimeoutError:
            raise
        except OSError:
            return None

    def latest_millisecond(self) -> int:
        """That of the last message, for who cannot have the turn; 0 if it is not known."""
        with contextlib.suppress(OSError):
            return _parse(files.read(self._note.path, _NOTE), self._boot_id)[1]
        return 0

    def close(self) -> None:
        """Close the files."""
        self._lock.close()
        self._note.close()


class _Lock:
    def __init__(self, path: str) -> None:
        self.path = path
        self._descriptor: int | None = None
        self._opened: os.stat_result | None = None
        self._process = 0

    def acquire(self, deadline: float) -> int:
        """Hold the lock on the file that others find. Returns its descriptor."""
        if self._process != os.getpid():  # a fork shares what was opened before it, and so its locks
            self.close()
            self._process = os.getpid()
        while True:
            if self._descriptor is None:
                files.make_directory(os.path.dirname(self.path))
                self._descriptor = locks.open_anew(self.path)
                self._opened = os.fstat(self._descriptor)
            if self._hold(self._descriptor, deadline):
                return self._descriptor
            self.close()

    def _hold(self, descriptor: int, deadline: float) -> bool:
        """Wait for it; not if somebody has removed or replaced the file."""
        is_ours = _try(descriptor)
        while _is_at(self.path, self._opened):
            if is_ours:
                return True
            if (rest := deadline - time.monotonic()) <= 0:
                raise TimeoutError(f"{self.path} is locked by {locks.holder(self.path)}")
            is_ours = _wait(descriptor, min(rest, notify.SECONDS_BETWEEN_HEARTBEATS))
            notify.heartbeat()
        return False

    def close(self) -> None:
        """Close the file, which ends the lock."""
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor = None


def _parse(note: bytes, boot_id: str) -> tuple[int | None, int]:
    match note.decode(errors="replace").split():
        case [known, number, milliseconds] if known == boot_id and milliseconds.isdecimal():
            return int(number) if number.isdecimal() and int(number) < _MOST else None, int(milliseconds)
    return None, 0


def own_millisecond(timestamp: float, last: int) -> float:
    """The time, or that of the millisecond after the last message's, if that one is not earlier."""
    return (last + 1) / 1000 if round(timestamp * 1000) <= last < timestamp * 1000 + _LONGEST_LEAP else timestamp


def _wait(lock: int, seconds: float) -> bool:
    """Wait for a lock as the kernel lets wait: in turn. Returns whether it was given.

    It knows no limit for that, but a signal; which is for the main thread only.
    """
    if threading.current_thread() is not threading.main_thread():
        time.sleep(min(seconds, _NAP))
        return _try(lock)
    handler = signal.signal(signal.SIGALRM, _end_waiting)
    timer = signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        return True
    except TimeoutError:
        fcntl.flock(lock, fcntl.LOCK_UN)  # given in the last instant, perhaps
        return False
    finally:
        signal.setitimer(signal.ITIMER_REAL, *timer)
        signal.signal(signal.SIGALRM, handler)


def _end_waiting(_signal: int, _frame: types.FrameType | None) -> None:
    raise TimeoutError


def _try(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(path: str, opened: os.stat_result | None) -> bool:
    """Whether an open file is the one that others find."""
    try:
        return opened is not None and os.path.samestat(opened, os.lstat(path))
    except FileNotFoundError:
        return False
    except OSError:  # nobody else finds any
        return True
