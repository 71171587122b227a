"""What Python leaves open about signals: letting them wait, and an event that a handler may set."""

import contextlib
import os
import select
import signal
import threading
import types
from collections.abc import Callable, Generator

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_SECONDS_ASLEEP = 5.0

_depth = 0  # of what is kept together now, by the main thread
_late: list[int] = []  # what came meanwhile

Handler = Callable[[int, types.FrameType | None], None]
"""What Python calls for a signal, with its number, and where it came."""


class _Patient:
    """A handler that waits for the end of what `deferred` keeps together."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler

    def __call__(self, number: int, frame: types.FrameType | None) -> None:
        if _depth:
            _late.append(number)
        else:
            self._handler(number, frame)


def handle(handler: Handler) -> None:
    """Let SIGTERM and SIGINT be handled: at once, or when what `deferred` keeps together is done."""
    for number in _STOP_SIGNALS:
        signal.signal(number, _Patient(handler))


def teach_patience() -> None:
    """Let handlers wait that somebody else has set since: a procedure, or a library of its sensor."""
    if threading.current_thread() is threading.main_thread():
        for number in _STOP_SIGNALS:
            handler = signal.getsignal(number)
            if callable(handler) and not isinstance(handler, _Patient):
                signal.signal(number, _Patient(handler))


@contextlib.contextmanager
def deferred() -> Generator[None, None, None]:
    """Let SIGTERM and SIGINT wait until the body is done, where what they raise would be swallowed or do harm.

    Only handlers wait that `handle` was given, or `teach_patience` has found: to change them here, for each
    message, takes longer than much of the rest. Not by a signal mask: of a process with several threads it masks
    only one, and Python runs the handler all the same. (Handlers run in the main thread only, so in other threads
    there is nothing to do. The handlers of commands do not wait: they end the process.)
    """
    global _depth
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1
        if _late and not _depth:
            numbers = set(_late)
            _late.clear()  # what one of them raises is the end of the others
            for number in numbers:
                signal.raise_signal(number)


class SignalEvent:
    """As much of an event as a backend needs. Setting it takes no lock, so that a signal handler may.

    Those of `threading` and `multiprocessing` deadlock if the signal comes while their own lock is held.
    """

    def __init__(self) -> None:
        self._is_set = False
        self._reader, self._writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def is_set(self) -> bool:
        """Whether it was set."""
        return self._is_set

    def set(self) -> None:
        """Set it, for ever, and wake whoever waits for it."""
        if not self._is_set:
            self._is_set = True
            os.write(self._writer, b"!")

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set, or for so many seconds. Returns whether it is set."""
        if timeout is not None:
            select.select([self._reader], [], [], timeout)
            return self._is_set
        while not self._is_set:
            # Python runs the handler of a signal that came just before this sleep when it is over, and not sooner.
            select.select([self._reader], [], [], _SECONDS_ASLEEP)
        return True
