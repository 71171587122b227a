"""Waiting for a condition, never for a time."""

import time
from collections.abc import Callable
from typing import TypeVar

from testbed.run import BedError

T = TypeVar("T")


class WaitedInVain(BedError):
    """The condition did not come true in time."""


def wait_for(condition: Callable[[], T | None], timeout: float, what: str, interval: float = 0.05) -> T:
    """The first truthy result of `condition`. What it raises is passed on at once."""
    deadline = time.monotonic() + timeout
    while True:
        asked = time.monotonic()
        if result := condition():
            return result
        if time.monotonic() >= deadline:
            raise WaitedInVain(f"waited {timeout:g} s in vain for {what}")
        # Who asks a command is not to keep the node busy with answers.
        time.sleep(max(interval, time.monotonic() - asked))
