"""The procedure that watches the machine, tells the operator, and keeps queue and archive within their bounds."""

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ivy import constants, files
from ivy.procedures._housekeeping import SECONDS_BETWEEN_ROUNDS, Housekeeper
from ivy.procedures._silence import SilenceWatch
from ivy.types.config import Config
from ivy.types.messages import DataMessageBody
from ivy.utils import notify
from ivy.utils.functions import get_time_to_next_datapoint
from ivy.utils.host import clock, mounts, vitals
from ivy.utils.logger import Logger
from ivy.utils.messaging_agent import MessagingAgent
from ivy.utils.state_interface import StateInterface

_FULL_DISK = 90.0  # per cent
_TOLD_OF_LOSS = Path(constants.IVY_RUN_DIR, "told-of-loss")  # gone after a boot, like what it is about


def run(config: Config, logger: Logger) -> None:
    """Check the machine at once and at each check time: put load and boot time into the state, send all as data.

    Args:
        config: `system_checks.seconds_between_checks`, `queue`, `archive` and `metrics` are used.
    """
    interval = config.system_checks.seconds_between_checks
    messaging_agent = MessagingAgent()
    housekeeper = Housekeeper(config, logger, messaging_agent.database)
    chores = [messaging_agent.keep_durable, housekeeper.work, SilenceWatch(config, logger).work]
    if config.metrics.textfile_directory is not None:
        from ivy.procedures._metrics import MetricsFile  # not at the top: few nodes want it

        chores.append(MetricsFile(config.metrics.textfile_directory, logger, messaging_agent).write)
    disk_was_full = files_were_few = False
    logger.info("Starting the system checks")
    _tell_what_is_lost(config, logger)
    while True:
        load, disk = vitals.load_percent(), mounts.disk()
        try:
            _update_state(load)
        except OSError as error:  # a full disk, say: the checks are wanted all the more
            logger.warning(f"The state could not be updated: {error}")
        messaging_agent.add_message(DataMessageBody(data=_vital_signs(load, disk)))
        if disk.used_percent > _FULL_DISK and not disk_was_full:
            logger.warning(f"The disk is {disk.used_percent:.0f} % full")
        disk_was_full = disk.used_percent > _FULL_DISK
        if disk.has_few_files and not files_were_few:
            logger.warning(f"The disk can take only {disk.free_files} files more, whatever room there is")
        files_were_few = disk.has_few_files
        notify.status(f"checking every {interval} s: load {load:.0f} %, disk {disk.used_percent:.0f} % full")
        _keep_house(chores, get_time_to_next_datapoint(interval))


def _tell_what_is_lost(config: Config, logger: Logger) -> None:
    """Tell the operator, once between two boots, that the next one loses what is stored."""
    try:
        lost = mounts.lost_places()
        if not lost or _TOLD_OF_LOSS.exists():
            return
        logger.error(f"{mounts.LOST[0].upper()}{mounts.LOST[1:]}: {', '.join(lost)}; {mounts.WAY_OUT}")
        if config.backend is not None:  # else nobody was told yet, but for the journal
            files.make_directory(constants.IVY_RUN_DIR)
            _TOLD_OF_LOSS.touch()
    except OSError as error:
        logger.warning(f"It is not known whether the next boot loses what is stored: {error}")


def _keep_house(chores: Sequence[Callable[[], None]], seconds: float) -> None:
    """Rest for so many seconds, but look after the disk once a minute: it fills up sooner than the next check."""
    deadline = time.monotonic() + seconds
    rest = math.inf
    while rest > SECONDS_BETWEEN_ROUNDS:
        for chore in chores:
            chore()
        rest = max(0.0, deadline - time.monotonic())
        notify.sleep(min(rest, SECONDS_BETWEEN_ROUNDS))


def _update_state(load: float) -> None:
    boot_time = vitals.boot_time()
    with StateInterface.update() as state:
        state.system.last_5_min_load = round(load, 1)
        known = state.system.last_boot_time
        # It is computed from the clock, so it jitters by a second and jumps when the clock is set.
        if known is None or abs(known.timestamp() - boot_time.timestamp()) > 2:
            state.system.last_boot_time = boot_time


def _vital_signs(load: float, disk: mounts.Disk) -> dict[str, float | int | str]:
    signs: dict[str, float | int | str] = {
        "last_5_min_load_percent": round(load, 1),
        "memory_usage_percent": vitals.memory_percent(),
        "disk_usage_percent": disk.used_percent,
        "disk_free_megabytes": disk.free_megabytes,
        "seconds_since_boot": round(vitals.seconds_since_boot()),
    }
    if (synchronised := clock.is_synchronised()) is not None:
        signs["clock_synchronised"] = int(synchronised)
    if (temperature := vitals.temperature()) is not None:
        signs["temperature_celsius"] = temperature
    return signs
