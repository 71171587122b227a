"""Keeps a copy of the list of who may sign a version, which the admin writes, for when a card has lost it.

The copy follows whatever the admin makes of the list, also that nobody may: by a list of comments only. A list that
was removed stays so.
"""

import base64
import binascii
import itertools
import os
from pathlib import Path

from ivy import files
from ivy.utils.logger import Logger
from ivy.utils.updates import source

_COPY = ".copy"
_MODE = 0o644
_FIRST_DAY = 86_400 * 10**9


def restore(logger: Logger) -> None:
    """Put back a list that is damaged, or let the copy be as the list is. What cannot be done is told.

    Damaged is what cannot be read, is empty, as after a power cut, or no list; and what differs from the copy,
    although nobody has written it. Times are only compared for being the same, as clocks of nodes jump.
    """
    path = source.ALLOWED_SIGNERS
    copy = path.with_name(path.name + _COPY)
    if not path.exists():
        return
    listed, copied = _read(path), _read(copy)
    is_damaged = listed is None or (copied not in (None, listed) and _written(path) == _written(copy) != 0)
    try:
        if is_damaged and copied is not None:
            _write(path, copied, _written(copy))
            logger.warning(f"{path} was damaged: it is again as it was before")
        elif is_damaged:
            logger.error(f"{path} is damaged, so that no version can be installed: write it again")
        elif listed is not None and listed != copied:
            _write(copy, listed, _written(path))
    except OSError as error:
        logger.without_messages().warning(f"{path} and its copy cannot be kept the same: {error}")


def lines_with_a_key(content: bytes) -> dict[int, bool]:
    """Whether each line that is to hold a key does, by its number. One without spoils all, for ssh-keygen(1)."""
    lines = {number: line.split() for number, line in enumerate(content.splitlines(), start=1)}
    wanted = {number: words for number, words in lines.items() if words and not words[0].startswith(b"#")}
    return {number: _begins_with_a_key(words) for number, words in wanted.items()}


def _begins_with_a_key(words: list[bytes]) -> bool:
    kinds = [place for place, word in enumerate(words) if word.startswith((b"ssh-", b"ecdsa-", b"sk-"))]
    return bool(kinds) and _has_key(b" ".join(words[kinds[0] : kinds[0] + 2]))


def _read(path: Path) -> bytes | None:
    """The content of a list; None if it is none."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    lines = [line for line in content.splitlines() if line.strip()]
    are_good = bool(lines) and b"\0" not in content
    wanted = [line for line in lines if not line.startswith(b"#")]
    return content if are_good and (not wanted or any(map(_has_key, wanted))) else None


def _has_key(line: bytes) -> bool:
    """Whether there is a key in a line: the name of its kind, and that name again in what follows."""
    words = line.split()
    for kind, key in itertools.pairwise(words):
        try:
            if kind in base64.b64decode(key, validate=True)[: len(kind) + 4]:
                return True
        except binascii.Error:
            continue
    return False


def _written(path: Path) -> int:
    """When, in nanoseconds; 0 where that is not known: images of disks say 1970 of all files."""
    written = path.stat().st_mtime_ns if path.exists() else 0
    return written if written > _FIRST_DAY else 0


def _write(path: Path, content: bytes, written: int) -> None:
    files.write_atomically(path, content, mode=_MODE)
    os.utime(path, ns=(written, written))
