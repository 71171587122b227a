"""Reads a release's `requirements.lock`: names, versions and hashes. What else pip would understand is refused.

A URL, for one, makes pip run the code of what it fetches, hash or not, wheels only or not.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from ivy.utils.updates.errors import Rejected

FILE = "requirements.lock"

_MOST_BYTES = 1_000_000
_COMMENT = re.compile(r"(^|\s)#.*")
_MARKER = r" ?;[\w .'\"<>=!~()]+?"  # without a dash: no option can follow
_LINE = re.compile(
    rf"[A-Za-z0-9][\w.-]*(\[[\w.,-]+\])?==[0-9][\w.!+]*({_MARKER})?( --hash=sha(256|384|512):[0-9a-f]+)+",
    re.ASCII,
)


def read(release: Path) -> list[str]:
    """The requirements of a release, one a line. Comments and continued lines are understood.

    Raises:
        Rejected: There is something else in it.
        OSError: It cannot be read.
    """
    file = release / FILE
    if not file.is_file():
        return []
    with file.open("rb") as opened:
        content = opened.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise Rejected(f"its dependencies cannot be installed: {FILE} is longer than {_MOST_BYTES // 1000} kB")
    return [_check(number, line) for number, line in _join(content.decode(errors="replace")) if line]


def _join(text: str) -> Iterator[tuple[int, str]]:
    """Lines without comments, each with the number of its first one; a backslash at the end lets it go on."""
    begun, parts = 0, list[str]()
    for number, line in enumerate(text.split("\n"), 1):
        begun = begun if parts else number
        part = _COMMENT.sub("", line).strip()
        parts.append(part.removesuffix("\\").strip())
        if not part.endswith("\\"):
            yield begun, " ".join(filter(None, parts))
            parts = []
    yield begun, " ".join(filter(None, parts))


def _check(number: int, line: str) -> str:
    line = " ".join(line.split())  # pip's lines end in more ways than ours
    if not _LINE.fullmatch(line):
        raise Rejected(
            f"its dependencies cannot be installed: {FILE}, line {number}: "
            f'must look like "name==version --hash=sha256:…" (Hashes are required), not {line[:200]!r}'
        )
    return line
