"""The config that was accepted last, in a file beside the active one: what runs where that one cannot be used.

A card rots, power fails while an editor writes, and people mistype. None of that may cost a sample, or the
operator. Not for writing that file: that is the updater's, see `ivy.utils.updates.releases`. Its secrets are where
those of the active config are.
"""

import json
from pathlib import Path

from ivy import constants
from ivy.types import secrets_file
from ivy.types.config import ACCEPTED, Config, ConfigError, load_file, split_text

IN_USE = "the config that was accepted last is in use instead"
"""What is said of it."""

_LETTERS = 12  # of a digest: as many as people compare


def load() -> tuple[Config, str | None]:
    """Load the config that the services of this release run with.

    Returns: The config; and why it is not the active one, by file, line or field. None if it is that.

    Raises:
        ConfigError: Neither can be used. The text is about the active one.
    """
    active = Path(constants.PROJECT_DIR, "config", "config.json")
    try:
        return load_file(active), None
    except ConfigError as error:
        trouble = error
    try:
        return load_file(active.with_name(ACCEPTED)), str(trouble)
    except ConfigError:
        raise trouble from trouble.__cause__


def digest(*, is_accepted: bool) -> str | None:
    """What a config is known by to people: 12 hexadecimal digits of the SHA-256 of its file.

    Two nodes whose files say the same have the same one, in whatever order and layout. Secrets are left out: nobody
    can try passwords by it, and a service that may not read them comes to the same.

    Args:
        is_accepted: Whether that of the config that was accepted last; else of the active one.

    Returns: None where the file cannot be read.
    """
    active = Path(constants.PROJECT_DIR, "config", "config.json")
    try:
        text = split_text(secrets_file.read(active.with_name(ACCEPTED) if is_accepted else active))[0]
        return secrets_file.digest(json.dumps(json.loads(text), sort_keys=True))[:_LETTERS]
    except (OSError, ValueError, RecursionError):
        return None
