"""What Python leaves open about signals: letting them wait, and an event that a handler may set."""

import contextlib
import os
import select
import signal
import threading
from collections.abc import Generator

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_SECONDS_ASLEEP = 5.0


@contextlib.contextmanager
def deferred() -> Generator[None, None, None]:
    """Let SIGTERM and SIGINT wait until the body is done, where what they raise would be swallowed or do harm.

    Not by a signal mask: of a process with several threads it masks only one, and Python runs the handler all the
    same. (Handlers run in the main thread only, so in other threads there is nothing to do.)
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting: list[int] = []
    before = {number: signal.signal(number, lambda number, _: waiting.append(number)) for number in _STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for late in waiting:
            signal.raise_signal(late)


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
