"""What the machine says about itself: load, memory, temperature. Reads only; decides nothing."""

import datetime
import os
import time
from pathlib import Path

import psutil


def boot_time() -> datetime.datetime:
    """When the machine was booted."""
    return datetime.datetime.fromtimestamp(psutil.boot_time(), datetime.UTC)


def seconds_since_boot() -> float:
    """How long the machine has been up, whatever its clock says."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def load_percent() -> float:
    """The load average of five minutes, in per cent of all cores.

    Not by getloadavg(3), which asks the kernel for that of the whole machine, in a container too.
    """
    average = float(Path("/proc/loadavg").read_text().split()[1])
    return 100 * average / (os.cpu_count() or 1)


def memory_percent() -> float:
    """The memory in use, in per cent of all."""
    return float(psutil.virtual_memory().percent)


def temperature() -> float | None:
    """The highest temperature of any sensor of the machine, in degrees Celsius; None where there is none."""
    readings = [reading.current for group in psutil.sensors_temperatures().values() for reading in group]
    return max(readings, default=None)
