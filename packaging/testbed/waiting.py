"""Waiting for a condition, never for a time."""

import time
from collections.abc import Callable
from typing import TypeVar

from testbed.run import PATIENCE, BedError

T = TypeVar("T")

LONGEST_PAUSE = 5  # intervals


class WaitedInVain(BedError):
    """The condition did not come true in time."""


def wait_for(condition: Callable[[], T | None], timeout: float, what: str, interval: float = 0.05) -> T:
    """The first truthy result of `condition`. What it raises is passed on at once.

    Args:
        timeout: How long a machine may take that has nothing else to do, in seconds; see `testbed.run.PATIENCE`.
    """
    began = time.monotonic()
    while True:
        asked = time.monotonic()
        if result := condition():
            return result
        now = time.monotonic()
        if now - began >= PATIENCE * timeout:
            raise WaitedInVain(f"waited {PATIENCE * timeout:g} s in vain for {what}")
        # Who asks a command is not to keep the node busy with answers, and who has waited for long can wait a
        # little longer.
        time.sleep(max(interval, 2 * (now - asked), min((now - began) / 20, LONGEST_PAUSE * interval)))
