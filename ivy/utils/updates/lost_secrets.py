"""Finds secrets again that a config says `***` for, and that `secrets.json` beside it does not have any more.

A card rots, and people remove files. The copy beside it has them, or a config that ran before with the same host
and port beside them. Where nothing has, the backend says which field is missing.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ivy.types import secrets, secrets_file
from ivy.types.config import ForeignConfig, lost_secrets
from ivy.utils.updates import history
from ivy.utils.updates.releases import Releases


def restore(releases: Releases) -> list[str]:
    """Put back what can be found. To be used by whoever holds the automation lock.

    Returns: The fields that have their value again.

    Raises:
        OSError: A file cannot be written.
    """
    restored: list[str] = []
    version = releases.current()
    in_use = releases.config_in_use(version) if version is not None else None
    for path in filter(None, (in_use, releases.kept_config())):
        text, found = _with_lost(releases, path)
        if found:
            releases.write(path, text)
            restored += found
    return list(dict.fromkeys(restored))


def _with_lost(releases: Releases, path: Path) -> tuple[str, list[str]]:
    try:
        text = releases.read(path)
    except OSError:
        return "", []
    lost = lost_secrets(text)
    if not lost:
        return text, []
    content = json.loads(text)
    found: dict[str, str] = {}
    for known in _known(releases, path, text):
        for field in lost:
            value = secrets.find(known, field)
            goes_there = dict(secrets.guards(known, field)) == dict(secrets.guards(content, field))
            if isinstance(value, str) and value != secrets.HIDDEN and goes_there:
                found.setdefault(field, value)
    for field, value in found.items():
        content = secrets.merge(content, _nested(field, value))
    return secrets_file.as_text(content), list(found)


def _known(releases: Releases, path: Path, text: str) -> Iterator[Any]:
    """All configs of this node that may have its secrets, the likeliest first."""
    yield _parsed(secrets_file.whole(text, secrets_file.load(path.with_name(secrets_file.COPY))))
    past = history.peek()
    configs: list[ForeignConfig | None] = [past.trial.config if past.trial else None, past.last_good]
    for config in filter(None, [*configs, *reversed(past.former_connections)]):
        yield config.model_dump(mode="json")
    for version in reversed(releases.installed()):
        config_file = releases.config_file(version)
        yield _parsed(releases.read_config(version))
        sets = secrets_file.load(config_file.with_name(secrets_file.COPY))
        yield _parsed(secrets_file.whole(releases.read_config(version), sets))


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _nested(path: str, value: str) -> Any:
    nested: Any = value
    for step in reversed(path.split(".")):
        nested = {step: nested}
    return nested
