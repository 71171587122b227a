"""Sees to an active config that cannot be used, while the services run with the one that was accepted last.

What nobody can have written (zeros, nothing, a sector that cannot be read) is set aside, and the accepted config is
put in its place. What somebody may have written is left for him to correct. To be used by whoever holds the
automation lock.
"""

import contextlib
import os
import time
from pathlib import Path

from ivy import constants, files
from ivy.types import secrets_file
from ivy.types.accepted_config import IN_USE
from ivy.utils.host import units
from ivy.utils.logger import Logger
from ivy.utils.updates import activation
from ivy.utils.updates.releases import Releases, why_unusable

MARK = os.path.join(constants.UPDATER_RUN_DIR, "unusable-config")
"""With the signature of an active config that is not in use: word to units/ivy-generator, which knows no schema."""

_REMEDY = "to correct it: sudo ivy config edit"


def restore(releases: Releases) -> str | None:
    """Put the accepted config in the place of an active one that is damaged.

    Returns: What was done, and why; None if nothing was.

    Raises:
        OSError: It cannot be done.
    """
    version = releases.current()
    if version is None:
        return None
    active, in_use = releases.config_file(version), releases.config_in_use(version)
    if in_use == active or _may_be_written_by_somebody(active):
        return None
    why = why_unusable(active, version)
    aside = _set_aside(active) if os.path.lexists(active) else None
    # Just as it is: so its secrets are found.
    files.write_atomically(active, secrets_file.read(in_use), group_of=releases.root / "data")
    kept = f", and what was there is kept as {aside}" if aside else ""
    return f"{active}: {why}; restored from the config that was accepted last{kept}"


def look(releases: Releases, logger: Logger) -> None:
    """Tell of a config that is left for somebody to correct, once, and of its end; let systemd know as well.

    Raises:
        OSError, CommandError: It cannot be done.
    """
    version = releases.current()
    if version is None:
        return
    active, mark = releases.config_file(version), Path(MARK)
    if releases.config_in_use(version) == active:
        if mark.exists():
            mark.unlink()
            logger.warning("The config can be used again")
        return
    signature = _signature(active)
    with contextlib.suppress(OSError):
        if mark.read_text(encoding="utf-8") == signature:
            return
    with contextlib.suppress(OSError):  # the package of 1.0 has no such place, and its generator looks for no word
        files.make_directory(str(mark.parent))
        files.write_atomically(mark, signature, mode=0o644, durable=False)
    try:
        _let_systemd_look(releases)
    except BaseException:
        with contextlib.suppress(OSError):
            mark.unlink()  # for the next pass to do it all
        raise
    why = f"{active}: {why_unusable(active, version)}\n{_REMEDY}"
    logger.error(f"The config cannot be used: {IN_USE}", details=why)


def _let_systemd_look(releases: Releases) -> None:
    before = activation.services()
    units.reload()
    if activation.services() != before:  # the file asks for another backend, or for none
        activation.switch(activation.backend_unit(releases.active_config()))


def mistake(releases: Releases) -> str | None:
    """The text of an active config that is left for somebody to correct; None if that is in use, or damaged."""
    version = releases.current()
    if version is None or why_unusable(releases.config_file(version), version) is None:
        return None
    active = releases.config_file(version)
    return secrets_file.read(active) if _may_be_written_by_somebody(active) else None


def _may_be_written_by_somebody(config: Path) -> bool:
    try:
        text = config.read_text(encoding=secrets_file.ENCODING)
    except (OSError, UnicodeDecodeError):
        return False
    return bool(text.strip()) and all(character.isprintable() or character.isspace() for character in text)


def _set_aside(config: Path) -> Path:
    """One at most: on a card that rots there would be more and more."""
    for old in config.parent.glob(f"{config.name}.damaged-*"):
        files.remove(str(old))
    aside = config.with_name(f"{config.name}.damaged-{time.time():.0f}")
    config.rename(aside)
    if not aside.is_symlink():
        aside.chmod(0o600)
    return aside


def _signature(config: Path) -> str:
    status = config.stat()
    return f"{status.st_ino} {status.st_mtime_ns} {status.st_size}"
