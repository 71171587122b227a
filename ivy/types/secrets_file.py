"""The file `secrets.json` beside a config: what is `***` there. Knows no schema.

It holds a set of secrets for each config that may yet run, under the digest of its file. So config and secrets
change in one instant, by the rename of the config: before it the old one finds its set, after it the new one.

What a procedure may know, the secrets of its own section, is in `secrets-NAME.json` as well, for its unit to load.
"""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from ivy import files
from ivy.types import secrets

try:  # Python's own: `hashlib` would bring OpenSSL into the memory of each procedure
    from _sha2 import sha256  # type: ignore[import-not-found, unused-ignore]
except ImportError:  # before Python 3.12
    from _sha256 import sha256  # type: ignore[import-not-found, no-redef, unused-ignore]

NAME = "secrets.json"
"""Also of the credential by which systemd hands it to a service."""

COPY = "secrets.copy.json"
"""What the file held when all was well: where it is damaged, the node need not ask anybody."""

ENCODING = "utf-8-sig"
"""Of a config. Some editors begin it with a byte order mark, which is read over."""

_SECONDS_TO_START = 5.0
_NO_PROCEDURES = ("backend", "updater")


def places(config: Path) -> list[Path]:
    """Where the secrets of a config may be read, the credential of a service first."""
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    return [*([Path(credentials, NAME)] if credentials else []), config.resolve().parent / NAME]


def is_known_to(release: Path) -> bool:
    """Whether a release looks for secrets beside its config; 1.0 does not."""
    return (release / "units" / "ivy-owners.service").exists()


def are_stale(config: Path) -> bool:
    """Whether systemd handed a service the secrets of a config that was replaced while the service started."""
    credential = places(config)[0]
    try:
        text = read(config)
        age = credential.stat().st_mtime - config.stat().st_mtime
    except OSError:
        return False
    is_handed = credential.parent != config.resolve().parent
    return is_handed and secrets.HIDDEN in text and age < _SECONDS_TO_START and digest(text) not in load(credential)


def read(config: Path) -> str:
    """The text of a config's file, whatever is in it.

    Raises:
        OSError: It cannot be read.
    """
    return config.read_text(encoding=ENCODING, errors="replace")


def load(path: Path) -> dict[str, Any]:
    """The sets of a file; none where it cannot be read: by most, it cannot."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        found = json.loads(files.read(str(path)))
        if isinstance(found, dict):
            return found
    return {}


def whole(text: str, sets: dict[str, Any], *, is_known: bool = False) -> str:
    """The text of a config with its secrets.

    Args:
        text: The file as it is. Where somebody has edited it, the newest set is taken.
        sets: All secrets.
        is_known: Whether the set must be its own.
    """
    newest = next(iter(sets.values()), None)
    taken = sets.get(digest(text), None if is_known else newest)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return text
    merged = secrets.merge(content, taken)
    return text if merged == content else as_text(merged)


def write(config: Path, shown: str, taken: dict[str, Any], kept: list[Path], group_of: Path) -> None:
    """Write a config and its secrets.

    Args:
        config: The file.
        shown: Its text.
        taken: What is hidden in it.
        kept: Configs that must find their secrets here, too, besides the one that is replaced.
        group_of: Who may read the config, see `files.write_atomically`.

    Raises:
        OSError: Nothing was changed but for secrets that no config has yet.
    """
    beside = config.with_name(NAME)
    known = {}
    for path in [config, *kept]:
        with contextlib.suppress(OSError):
            own = digest(read(path))
            sets = load(path.with_name(NAME))
            if sets:  # where somebody has edited it, the newest is its own, as for `whole`
                known[own] = sets.get(own, next(iter(sets.values())))
    while known.get(digest(shown), taken) != taken:
        shown += "\n"  # two configs that differ by a secret only are told apart by an empty line
    if taken or known or beside.exists():
        sets = {digest(shown): taken, **known}
        files.write_atomically(beside, _as_file(sets), mode=0o600)
        _hand_out(config, sets)
    files.write_atomically(config, shown, group_of=group_of)


def tidy(config: Path, kept: list[Path]) -> None:
    """Forget the secrets of configs that are gone, and keep a copy of the others.

    Raises:
        OSError: A file cannot be written.
    """
    path = config.with_name(NAME)
    sets = load(path)
    try:
        texts = [read(each) for each in [config, *kept] if each.is_file()]
    except OSError:  # which secrets it needs cannot be known
        return
    needed = {digest(text) for text in texts}
    if digest(texts[0] if texts else "") not in sets:  # somebody has edited it, or what it needs was lost
        return
    left = {own: taken for own, taken in sets.items() if own in needed}
    if left != sets:
        files.write_atomically(path, _as_file(left), mode=0o600)
    if left != load(path.with_name(COPY)):
        with contextlib.suppress(OSError):  # a full disk must not keep a pass from more than this
            files.write_atomically(path.with_name(COPY), _as_file(left), mode=0o600)
    _hand_out(config, left)


def _hand_out(config: Path, sets: dict[str, Any]) -> None:
    """Write for each procedure what it may know, and for nobody else."""
    sections = {section for taken in sets.values() if isinstance(taken, dict) for section in taken}
    wanted = {config.with_name(_name_for(section)): section for section in sections.difference(_NO_PROCEDURES)}
    for path in set(config.parent.glob(_name_for("*"))).difference(wanted):
        path.unlink()
    for path, section in wanted.items():
        own = {key: {section: taken[section]} if section in taken else {} for key, taken in sets.items()}
        if load(path) != own:
            files.write_atomically(path, _as_file(own), mode=0o600)


def _name_for(section: str) -> str:
    return f"secrets-{section.replace('_', '-')}.json"


def _as_file(sets: dict[str, Any]) -> str:
    return json.dumps(sets, indent=4) + "\n"


def digest(text: str) -> str:
    """What the file of a config is known by."""
    hexdigest: str = sha256(text.encode(errors="replace")).hexdigest()
    return hexdigest


def as_text(content: Any) -> str:
    """The text of a config file."""
    return json.dumps(content, indent=4, ensure_ascii=False) + "\n"
