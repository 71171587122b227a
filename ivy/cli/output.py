"""What the command prints. Much of it others wrote: samples' keys, statuses of services, reasons of brokers.

A terminal does what it is told by control characters, so none of theirs gets there: each is shown as `\\u001b`,
which means the same in JSON.
"""

import contextlib
import datetime
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any, TextIO, TypeVar

_Item = TypeVar("_Item")

# C0 and C1, and what changes the direction of a line, or ends it.
_CONTROLS = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_CONTROLS_OF_LINES = re.compile(f"{_CONTROLS.pattern}|[\t\n]")


def plain(text: str) -> str:
    """A text of several lines, without what would command a terminal."""
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def line(text: str) -> str:
    """A text on one line: nobody's text looks like a line of ours."""
    return _CONTROLS_OF_LINES.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def moment(timestamp: float) -> str:
    """A Unix time for people: to the second, in UTC, and in a form that `--since` takes."""
    return f"{datetime.datetime.fromtimestamp(timestamp, datetime.UTC):%Y-%m-%dT%H:%M:%SZ}"


def raw(text: str) -> None:
    """Print our own control characters, such as colours."""
    stream = sys.stdout
    (stream.stream if isinstance(stream, _Plain) else stream).write(text)


def progress(items: Sequence[_Item], doing: str) -> Iterator[_Item]:
    """Goes through items, and tells whoever watches on a terminal how many are done; leaves nothing there."""
    stream = getattr(sys.stderr, "stream", sys.stderr)
    shown = ""
    try:
        for number, item in enumerate(items):
            if stream.isatty():
                shown = f"{doing}: {item}, {number} of {len(items)}"
                print(f"\r{shown}", end="", file=stream, flush=True)
            yield item
    finally:
        if shown:
            print(f"\r{' ' * len(shown)}\r", end="", file=stream, flush=True)


@contextlib.contextmanager
def plain_streams() -> Iterator[None]:
    """Let all that is printed be plain, across the body of a `with`."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _Plain(sys.stdout), _Plain(sys.stderr)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def exactly_to_files() -> None:
    """Print what programs read as it is, but not to a terminal."""
    if isinstance(sys.stdout, _Plain):
        sys.stdout.is_plain = sys.stdout.stream.isatty()


class _Plain:
    """A stream for text. What else a stream can do, the one below does."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.is_plain = True

    def write(self, text: str) -> int:
        self.stream.write(plain(text) if self.is_plain else text)
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)
