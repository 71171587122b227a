"""Tells a service which configs may yet be decided for instead of its own. Only looks, and decides nothing.

What a config on trial would have deleted cannot be brought back when it is undone. So whoever deletes because of a
setting asks here first. Releases of version 1.0.0 do not, see `policy`.
"""

import json
import os
from pathlib import Path

from ivy import constants, files
from ivy.types import secrets, secrets_file
from ivy.types.config import Config, ConfigError, ForeignConfig

_PREVIOUS = Path(constants.IVY_ROOT_DIR, "previous")
_KEPT = _PREVIOUS / "config" / "config.previous.json"
_ACTIVE = Path(constants.IVY_ROOT_DIR, "current", "config", "config.json")

_Signature = tuple[int, int, int] | None


class Standing:
    """The standing of the config that a process runs with."""

    def __init__(self, config: Config) -> None:
        """Looks at nothing yet.

        Args:
            config: What the process runs with.
        """
        self._config = config
        self._seen: tuple[bool, _Signature, _Signature] | None = None
        self._rivals: list[ForeignConfig] | None = []

    @property
    def is_on_trial(self) -> bool:
        """Whether anything is on trial now."""
        return os.path.lexists(_PREVIOUS)

    def rivals(self) -> list[ForeignConfig] | None:
        """The configs that run instead if it is so decided, or already should: none, if this one is accepted.

        None where that cannot be known. Costs three looks at files, as long as nothing changes.
        """
        seen = (self.is_on_trial, _signature(_KEPT), _signature(_ACTIVE))
        if seen != self._seen:
            self._rivals = self._find(is_on_trial=seen[0])
            self._seen = seen
        return self._rivals

    def _find(self, *, is_on_trial: bool) -> list[ForeignConfig] | None:
        active = self._load(_ACTIVE)
        # What was undone is on disk before this process is restarted, and one that hangs is so a minute later.
        found = [active] if active is not None and not self._is_own(active) else []
        if is_on_trial:
            kept = self._load(_KEPT)
            return None if kept is None else [kept, *found]
        return found

    def _load(self, path: Path) -> ForeignConfig | None:
        """With the secrets that this process was handed; others are taken to be its own."""
        try:
            text = files.read(str(path)).decode()
            sets = next(filter(None, map(secrets_file.load, secrets_file.places(_ACTIVE))), {})
            content = json.loads(secrets_file.whole(text, sets, is_known=True))
            _, own = secrets.split(self._config.model_dump(mode="json"), Config)
            return ForeignConfig.model_validate(secrets.merge(content, own))
        except (OSError, ValueError, RecursionError):
            return None

    def _is_own(self, config: ForeignConfig) -> bool:
        try:
            return Config.load_from_string(config.model_dump_json()) == self._config
        except ConfigError:
            return False


def _signature(path: Path) -> _Signature:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
