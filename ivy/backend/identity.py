"""What identifies a node and its software to an operator. Loads no library for it."""

import datetime
import os
import time
from pathlib import Path
from typing import Any

from ivy import constants
from ivy.types.config import Config

_DEBIAN_VERSION_FILE = "/etc/debian_version"


def identity(config: Config) -> dict[str, Any]:
    """The versions of software, config and system, the host's name, and when it was booted."""
    return {
        "ivy_version": constants.VERSION.as_identifier(),
        "config_revision": config.general.config_revision,
        "hostname": os.uname().nodename,
        "debian_version": _debian_version(),
        "boot_time": _boot_time(),
    }


def _debian_version() -> str:
    try:
        return Path(_DEBIAN_VERSION_FILE).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return "unknown"


def _boot_time() -> str:
    since = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return datetime.datetime.fromtimestamp(since, datetime.UTC).isoformat(timespec="seconds")
