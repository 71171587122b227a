"""Tells the operator that a procedure has become silent, and that it sends again; once each.

What was told outlives this process and a boot, on the disk. For how long a procedure may be silent is read again at
each look: a change of that is no reason to start anybody again.
"""

import contextlib
import json
import os
import time
from pathlib import Path

from ivy import constants, files
from ivy.types import accepted_config
from ivy.types.config import Config, ConfigError
from ivy.utils.host import hold, units
from ivy.utils.host.commands import CommandError
from ivy.utils.logger import Logger
from ivy.utils.storage import last_sample

TOLD = os.path.join(constants.IVY_DATA_DIR, "silent-procedures.json")
"""The names of the procedures that the operator knows to be silent."""

_MOST_BYTES = 100_000


class SilenceWatch:
    """To be asked once a minute."""

    def __init__(self, config: Config, logger: Logger, seconds_between_tellings: float = 3600.0) -> None:
        """Reads what was told before.

        Args:
            config: Used until it can be read again.
            seconds_between_tellings: How often it is told of the same procedure that it has become silent: one
                whose rhythm is just its limit must not fill the queue.
        """
        self._config = config
        self._logger = logger
        self._pause = seconds_between_tellings
        self._told = _load()
        self._told_at: dict[str, float] = {}
        self._silent_before: set[str] = set()

    def work(self) -> None:
        """Look once. Who is silent is told of at the second look: it may just have been started. Never raises."""
        with contextlib.suppress(ConfigError):  # the updater sees to it
            self._config = accepted_config.load()[0]
        limits = {
            name: section.max_silent_seconds
            for name, section in self._config.procedures.items()
            if section.enabled and section.max_silent_seconds is not None
        }
        told = self._told & limits.keys()
        silent: set[str] = set()
        held = hold.look()
        for name, most in limits.items():
            found = last_sample.look(units.service_of(units.name_of(name)))
            if found.waited is not None and found.waited > most and not (held and held.stops(name)):
                silent.add(name)
                if name not in told and name in self._silent_before and self._may_tell(name):
                    self._tell(name, found, most)
                    told.add(name)
            elif name in told and found.age is not None and found.age <= most:
                self._logger.warning(f"{name} sends data again")
                told.remove(name)
        self._silent_before = silent
        self._remember(told)

    def _may_tell(self, name: str) -> bool:
        told_at = self._told_at.get(name)
        if told_at is not None and time.monotonic() - told_at < self._pause:
            return False
        try:
            return units.show(units.name_of(name), "LoadState").get("LoadState") != "masked"
        except CommandError:  # not known to be the admin's will
            return True

    def _tell(self, name: str, found: last_sample.Sampling, most: int) -> None:
        self._told_at[name] = time.monotonic()
        since = "since the boot" if found.age is None else f"for {found.age:.0f} s"
        limit = f"procedures.{name}.max_silent_seconds is {most}"
        self._logger.error(f"{name} is silent: it has sent no data {since}, and {limit}")

    def _remember(self, told: set[str]) -> None:
        if told == self._told:
            return
        self._told = told
        try:
            files.write_atomically(Path(TOLD), json.dumps(sorted(told)) + "\n", mode=0o660)
        except OSError as error:
            self._logger.without_messages().warning(f"After a restart, silence is told again: {TOLD}: {error}")


def _load() -> set[str]:
    try:
        names = json.loads(files.read(TOLD, _MOST_BYTES))
        return {name for name in names if isinstance(name, str)}
    except (OSError, ValueError, TypeError, RecursionError):  # it is told once more
        return set()
