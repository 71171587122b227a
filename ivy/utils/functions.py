"""Small functions that procedures and backends share."""

import contextlib
import os
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Literal, Optional

from ivy import constants
from ivy.files import make_directory
from ivy.utils.host import locks

# On a node where only root can put a file: whoever opens it is root.
_LOCK_DIRECTORY = constants.IVY_ROOT_DIR if constants.IVY_RUN_DIR == "/run/ivy" else constants.IVY_RUN_DIR
_AUTOMATION_LOCK_FILE = os.path.join(_LOCK_DIRECTORY, "automation.lock")

_UNITS = ((86_400, "d"), (3600, "h"), (60, "min"))
_MOST_OF_A_UNIT = 3  # of a larger one, until which the smaller one says more


def log_level_is_visible(
    min_log_level: Optional[Literal["DEBUG", "INFO", "WARNING", "ERROR", "EXCEPTION"]],
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "EXCEPTION"],
) -> bool:
    """Whether `log_level` is at least as important as `min_log_level`, the least that is shown (None: nothing)."""
    if min_log_level is None:
        return False
    priorities = constants.LOGGING_LEVEL_PRIORITIES
    return priorities[log_level] >= priorities[min_log_level]


def get_time_to_next_datapoint(seconds_between_datapoints: int) -> float:
    """Calculate how long to wait for the next sampling time.

    Sampling times are counted from midnight UTC: with 10 seconds between datapoints they are 00:00:00, 00:00:10
    and so on, on every node of a fleet alike.

    Returns: Seconds until the next one; more than 0, at most `seconds_between_datapoints`.
    """
    seconds_of_day = time.time() % 86400
    until_next = seconds_between_datapoints - seconds_of_day % seconds_between_datapoints
    return min(until_next, 86400 - seconds_of_day)


def duration(seconds: float) -> str:
    """A time span for people, in the largest unit of which it has a few: `100 s`, `45 min`, `30 h`, `12 d`."""
    for length, unit in _UNITS:
        if seconds >= _MOST_OF_A_UNIT * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def procedure_names() -> list[str]:
    """The procedures of this release, as their units are named: `dummy-procedure` and so on, sorted."""
    modules = Path(constants.PROJECT_DIR, "ivy", "procedures").glob("[!_]*.py")
    return sorted(module.stem.replace("_", "-") for module in modules)


def end_automation(is_meant: Callable[[Sequence[str]], bool], seconds: float) -> str | None:
    """Let whoever changes the installation end, where that is meant; see `locks.end_holder`."""
    return locks.end_holder(_AUTOMATION_LOCK_FILE, is_meant, seconds)


@contextlib.contextmanager
def with_automation_lock() -> Generator[None, None, None]:
    """Hold the lock of whoever changes the installation, across the body of a `with`.

    Raises:
        TimeoutError: Another process holds it; the text names it.
    """
    make_directory(_LOCK_DIRECTORY)
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(locks.file_lock(_AUTOMATION_LOCK_FILE, 0, is_private=True))
        except TimeoutError as error:
            holder = locks.holder(_AUTOMATION_LOCK_FILE)
            raise TimeoutError(f"{holder} is changing this installation of ivy") from error
        yield
