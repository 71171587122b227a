"""What does not change while ivy runs: the version, the places on disk, the time limits shared with the units."""

import os
from typing import Literal

from ivy.version import Version

PROJECT_DIR: str = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
"""The directory that holds the package `ivy`: a release, the bundled copy, or a source checkout."""

VERSION: Version = Version("1.1.0")
"""The version of this software; the only place where it is decided (a test keeps the others in step)."""

NAME: str = "ivy"
"""The name of the project, of its system user and of its directories."""

IVY_ROOT_DIR: str = os.environ.get("IVY_ROOT_DIR", "/var/lib/ivy")
"""Where the releases and the data are; `IVY_ROOT_DIR` in the environment overrides it."""


def _data_dir() -> str:
    checkout = os.path.join(PROJECT_DIR, "data")
    if "IVY_DATA_DIR" in os.environ:
        return os.environ["IVY_DATA_DIR"]
    if "IVY_ROOT_DIR" not in os.environ and os.path.isdir(checkout):
        return checkout  # releases carry no data/, so this is a source checkout
    return os.path.join(IVY_ROOT_DIR, "data")


IVY_DATA_DIR: str = _data_dir()
"""Where state, queue and archive are; `IVY_DATA_DIR` in the environment overrides it."""

IVY_RUN_DIR: str = "/run/ivy" if IVY_DATA_DIR == "/var/lib/ivy/data" else os.path.join(IVY_DATA_DIR, "run")
"""Where sockets and link reports are: gone after a boot on a node, beside the data elsewhere."""

PENDING_CONFIG_FLAG: str = os.path.join(IVY_RUN_DIR, "pending-config")
"""A file that is there when there are config offers to decide about. It is removed by whoever has done so."""

RESTART_FLAG: str = os.path.join(IVY_RUN_DIR, "restart-")
"""With a procedure's name behind it, a file that asks `ivy-restart.service` to restart that procedure."""

LOGGING_LEVEL_PRIORITIES: dict[Literal["DEBUG", "INFO", "WARNING", "ERROR", "EXCEPTION"], int] = {
    "DEBUG": 0,
    "INFO": 1,
    "WARNING": 2,
    "ERROR": 3,
    "EXCEPTION": 4,
}
"""The logging levels from the least to the most important."""

SECONDS_PER_GRACEFUL_PROCEDURE_TEARDOWN: int = 10
"""Seconds between SIGTERM and SIGKILL for a procedure: `TimeoutStopSec=` of the units."""

WATCHDOG_SECONDS: int = 60
"""Seconds without a heartbeat after which systemd kills and restarts a service: `WatchdogSec=` of the units."""

EXIT_CONFIG_ERROR: int = 78
"""Exit status of a service whose config is unusable: `RestartPreventExitStatus=` of the units (EX_CONFIG)."""
