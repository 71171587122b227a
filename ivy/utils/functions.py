"""Small functions that procedures and backends share."""

import contextlib
import os
import time
from collections.abc import Generator
from pathlib import Path
from typing import Literal, Optional

from ivy import constants
from ivy.files import make_directory

# On a node where only root can put a file: whoever opens it is root.
_LOCK_DIRECTORY = constants.IVY_ROOT_DIR if constants.IVY_RUN_DIR == "/run/ivy" else constants.IVY_RUN_DIR
_AUTOMATION_LOCK_FILE = os.path.join(_LOCK_DIRECTORY, "automation.lock")


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


def procedure_names() -> list[str]:
    """The procedures of this release, as their units are named: `dummy-procedure` and so on, sorted."""
    modules = Path(constants.PROJECT_DIR, "ivy", "procedures").glob("[!_]*.py")
    return sorted(module.stem.replace("_", "-") for module in modules)


@contextlib.contextmanager
def with_automation_lock() -> Generator[None, None, None]:
    """Hold the lock of whoever changes the installation, across the body of a `with`.

    Raises:
        TimeoutError: Another process holds it.
    """
    import filelock  # not at the top: it loads asyncio, and no resident service needs this lock

    make_directory(_LOCK_DIRECTORY)
    try:
        with filelock.FileLock(_AUTOMATION_LOCK_FILE, timeout=0):
            yield
    except filelock.Timeout as error:
        raise TimeoutError("another process is changing this installation of ivy") from error
