"""Takes this node's secrets out of what is given away: answers to remote calls, and bundles. To be asked by root.

Only what this node itself knows as secret is found, and users and passwords in addresses.
"""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ivy import constants
from ivy.types import secrets, secrets_file
from ivy.types.config import split_text

_SHORT = 4
_IN_ENVIRONMENT = re.compile(r"\s*(?:export\s+)?(\w+)\s*=\s*(.*?)\s*$")
_SECRET_NAME = re.compile(r"TOKEN|PASS|SECRET|KEY|CREDENTIAL|USER", re.IGNORECASE)
_USER_IN_URL = re.compile(r"(://)[^/\s@]*@")


def pattern() -> re.Pattern[str]:
    """Finds what is secret on this node, in each spelling. Of few letters, it counts as a word only: else nothing
    could be read."""
    spelt = {form for secret in _secrets() for form in (secret, quote(secret, safe=""), json.dumps(secret)[1:-1])}
    longest_first = sorted(spelt - {"", constants.NAME}, key=len, reverse=True)
    forms = [
        re.escape(form) if len(form) >= _SHORT else rf"(?<!\w){re.escape(form)}(?!\w)" for form in longest_first
    ]
    return re.compile("|".join(forms) or r"(?!)")


def hidden(content: Any, pattern: re.Pattern[str]) -> Any:
    """A text, or what JSON can carry, with `***` for what a pattern finds, and for users in addresses."""
    if isinstance(content, str):
        return _USER_IN_URL.sub(rf"\1{secrets.HIDDEN}@", pattern.sub(secrets.HIDDEN, content))
    if isinstance(content, dict):
        return {key: hidden(value, pattern) for key, value in content.items()}
    return [hidden(value, pattern) for value in content] if isinstance(content, list) else content


def _secrets() -> Iterator[str]:
    """All that this node must not show: of configs, their files of secrets, and the environment of services."""
    root = Path(constants.IVY_ROOT_DIR)
    releases = (root / "current", root / "previous", Path(constants.PROJECT_DIR))
    for config in {(release / "config").resolve() for release in releases}:
        for path in config.glob("secrets*.json"):
            yield from _texts(secrets_file.load(path))
        for path in config.glob("config*.json"):
            yield from _texts(split_text(_text_of(path))[1])
    for path in (root / ".env", root / "current" / "config" / ".env"):
        for line in _text_of(path).splitlines():
            if (match := _IN_ENVIRONMENT.match(line)) and _SECRET_NAME.search(match[1]):
                yield from _unquoted(match[2])


def _unquoted(value: str) -> list[str]:
    try:
        return [value, *shlex.split(value)]
    except ValueError:
        return [value]


def _text_of(path: Path) -> str:
    try:
        return secrets_file.read(path)
    except OSError:
        return ""


def _texts(taken: Any) -> Iterator[str]:
    return (str(value) for _, value in secrets.values(taken) if value not in (None, "", secrets.HIDDEN))
