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

BACKEND_USER: str = f"{NAME}-backend"
"""The user that backends run as, on a node. Procedures run as `NAME`."""

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

_IS_NODE = IVY_DATA_DIR == "/var/lib/ivy/data"

IVY_RUN_DIR: str = "/run/ivy" if _IS_NODE else os.path.join(IVY_DATA_DIR, "run")
"""What all services may write: gone after a boot on a node, beside the data elsewhere."""

BACKEND_DIR: str = os.path.join(IVY_ROOT_DIR if _IS_NODE else IVY_DATA_DIR, "backend")
"""What only backends may write, and no procedure may read: the offers that wait."""

BACKEND_RUN_DIR: str = f"{IVY_RUN_DIR}-backend"
"""What only backends may write, until the next boot: link report, flags, their socket."""

UPDATER_RUN_DIR: str = f"{IVY_RUN_DIR}-updater"
"""What only root may write, until the next boot."""

NOTES_DIR: str = os.environ.get("IVY_NOTES_DIR", IVY_RUN_DIR)
"""Where a service leaves notes for those of its own user; the units of backends and updater name theirs."""

SAMPLES_DIR: str = "/run/ivy-samples" if _IS_NODE else os.path.join(IVY_RUN_DIR, "samples")
"""With a pipe for each service, that only this one can touch: its time is that of the service's last sample."""

BUSY_DIR: str = "/run/ivy-busy" if _IS_NODE else os.path.join(IVY_RUN_DIR, "busy")
"""With another one, whose time is until when the service is not to be disturbed."""

TIMESYNC_FLAG: str = "/run/systemd/timesync/synchronized" if _IS_NODE else os.path.join(IVY_RUN_DIR, "synchronized")
"""A file that systemd-timesyncd makes when it has set the clock for the first time since the boot."""

CONFIG_LINK: str = "/etc/ivy/config.json" if _IS_NODE else os.path.join(IVY_DATA_DIR, "config.json")
"""Where an admin looks for the config: a link to the active one."""

PROVISION_FILE: str = "/etc/ivy/provision.json" if _IS_NODE else os.path.join(IVY_DATA_DIR, "provision.json")
"""By what this file says a new node registers; there until that is done. The unit ivy-provision looks for it."""

PENDING_CONFIG_FLAG: str = os.path.join(BACKEND_RUN_DIR, "pending-config")
"""A file that is there when there are config offers to decide about. It is removed by whoever has done so."""

RESTART_FLAG: str = os.path.join(BACKEND_RUN_DIR, "restart-")
"""With a procedure's name behind it, a file that asks `ivy-restart.service` to restart that procedure."""

CALL_FLAG: str = os.path.join(BACKEND_RUN_DIR, "call-")
"""With a method's name behind it, a file with a remote call that `ivy-call@METHOD.service` is to do."""

ANSWERS_DIR: str = f"{IVY_RUN_DIR}-answers"
"""With files named after methods: what root said to the last remote call of each, for backends to read."""

RESTARTED_DIR: str = "/run/ivy-restarted" if _IS_NODE else os.path.join(IVY_RUN_DIR, "restarted")
"""With files named after procedures: when each was last restarted for a flag, in seconds since the boot; and since
when one waits for that, in `NAME.waits`."""

ENDS_DIR: str = "/run/ivy-ends" if _IS_NODE else os.path.join(IVY_RUN_DIR, "ends")
"""With files named after units: how often each has failed, and how it did last; see units/ivy-report-end."""

MACHINE_DIR: str = "/var/lib/ivy-node" if _IS_NODE else os.path.join(IVY_DATA_DIR, "machine")
"""What the package ivy-node keeps; see packaging/ivy-node/ivy-lost."""

Provider = Literal["tenta", "thingsboard"]
"""The platforms: each has a module `ivy/backend/NAME_backend.py`, and a unit."""

SECONDS_BETWEEN_RESTARTS: int = 60
"""How often a procedure is restarted for a flag: `pause=` of units/ivy-restart."""

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

JSON_SCHEMA: int = 1
"""The version of all that commands print as JSON, see JSON in ivy(1): keys are only ever added to it."""

EXIT_CONFIG_ERROR: int = 78
"""Exit status of a service whose config is unusable: `RestartPreventExitStatus=` of the units (EX_CONFIG)."""

EXIT_TRY_AGAIN: int = 75
"""Exit status of a pass of the updater that must be made again, though nothing failed (EX_TEMPFAIL)."""
