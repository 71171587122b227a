"""When which connection is tried: that of the config, or, after a week without it, one that was accepted before.

Counts only while the backend runs, and by no clock that can be set: a node has none that it can trust without a
network. Knows no MQTT.
"""

import contextlib
import importlib
import time
from collections.abc import Callable
from dataclasses import dataclass

import pydantic

from ivy.backend.delays import USUAL, Delays
from ivy.backend.dialect import Dialect
from ivy.types.config import BackendConfig, Config, ConfigError, ForeignConfig, destination
from ivy.types.state import LinkState
from ivy.utils.state_interface import BACKEND_STATE
from ivy.utils.updates import history
from ivy.utils.updates.standing import Standing

_SECONDS_BETWEEN_SAVES = 600.0


@dataclass(frozen=True)
class FormerLink:
    """A connection that was accepted before that of the config."""

    config: Config
    """The present config, but with that connection."""
    dialect: Dialect


def choose(seconds_without: float, count: int, delays: Delays = USUAL) -> int | None:
    """Which of so many former connections, the newest first, is to be tried now; None: that of the config.

    Args:
        seconds_without: How long that had no connection.
        count: How many former ones there are.
    """
    late = seconds_without - delays.until_former
    if late < 0 or not count:
        return None
    days, rest = divmod(late, delays.between_formers)
    return int(days) % count if rest < delays.of_a_former else None


class FormerLinks:
    """How long the connection of a config has been away, across restarts, and what follows from that."""

    def __init__(self, config: Config, delays: Delays = USUAL, now: Callable[[], float] = time.monotonic) -> None:
        """Goes on where the last run stopped, if that had the same connection."""
        self.trouble = ""  # why the connection of the config is not there, if this run has seen it
        self.delays = delays
        self._config = config
        self._now = now
        self._destination = destination(config.to_foreign_config())
        self._standing = Standing(config)
        self._links: list[FormerLink] | None = None
        self._looked = now()
        self.seconds_without = self._saved = self._load()

    def elapse(self, *, is_connected: bool) -> None:
        """Count the time since the last call, unless the connection of the config was there."""
        now = self._now()
        seconds, self._looked = now - self._looked, now
        if not is_connected:
            self.seconds_without += seconds
            if self.seconds_without - self._saved >= _SECONDS_BETWEEN_SAVES:
                self.save()

    def end(self) -> None:
        """The connection of the config is of use again."""
        self._looked = self._now()
        self.seconds_without = 0.0
        if self._saved:
            self.save()

    def now(self) -> FormerLink | None:
        """What is to be connected to; None: what the config says. That alone, while it is on trial."""
        if self.seconds_without < self.delays.until_former or self._standing.is_on_trial:
            return None
        if self._links is None:
            past = history.peek()
            # Version 1.0.0 remembered only what ran before the last change.
            known = past.former_connections if past.connected_since else filter(None, [past.last_good])
            elsewhere = [former for former in known if destination(former) != self._destination]
            found = map(self._usable, reversed(elsewhere))
            self._links = [link for link in found if link is not None]
        chosen = choose(self.seconds_without, len(self._links), self.delays)
        return None if chosen is None else self._links[chosen]

    def save(self) -> None:
        """Let the next run go on from here. Never raises: there will be another time."""
        if self._standing.is_on_trial or self.seconds_without == self._saved:
            return
        with contextlib.suppress(OSError), BACKEND_STATE.update() as state:
            state.link = LinkState(destination=self._destination, seconds_without=self.seconds_without)
            self._saved = self.seconds_without

    def _load(self) -> float:
        with contextlib.suppress(OSError):
            link = BACKEND_STATE.load().link
            if link.destination == self._destination:
                return link.seconds_without
        return 0.0

    def _usable(self, former: ForeignConfig) -> FormerLink | None:
        """None where this version cannot read it."""
        if former.system_identifier is None:
            return None
        try:
            backend = BackendConfig.model_validate(former.section("backend"))
            general = self._config.general.model_copy(update={"system_identifier": former.system_identifier})
            config = self._config.model_copy(update={"backend": backend, "general": general})
            module = importlib.import_module(f"ivy.backend.{backend.provider}_backend")
            return FormerLink(config, module.make_dialect(config))
        except (pydantic.ValidationError, ConfigError, TypeError):
            return None
