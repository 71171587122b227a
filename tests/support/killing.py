"""Kills what it tests between any two of its steps, as a power cut does."""

import os
import sys
from collections.abc import Callable


def killed_at(step: int, work: Callable[[], object]) -> bool:
    """Do something in a process that dies at its n-th step: a step is whatever Python's audit hooks see.

    Returns: Whether it died, and did not come to its end.
    """
    child = os.fork()
    if child == 0:
        steps = iter(range(step))
        sys.addaudithook(lambda _event, _arguments: None if next(steps, None) is not None else os._exit(1))
        try:
            work()
            os._exit(0)
        finally:
            os._exit(2)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 1)
    return status == 1
