"""The archive as one wide table for programs such as pandas: a row per message, a column per key, CSV in UTF-8."""

import csv
import datetime
import functools
import itertools
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from typing import IO, Any, TextIO

from ivy.cli.archive.selection import Selection
from ivy.types.messages import DataMessageBody, LogMessageBody, MessageArchiveItem

_COLUMNS = ("timestamp", "time_utc", "timestamp_in_doubt")
_SCRATCH = "/var/tmp"
"""For a file without a name. Not /tmp, which is in memory."""

_MOST_BYTES = 8_000_000_000
_PIECE = 1 << 16

_Row = tuple[float, bool, Mapping[str, Any]]


def write_csv(selection: Selection, out: TextIO, room: int | None = None) -> None:
    """Write a table. A cell is empty where a message lacks the key.

    The header needs all keys, and a table of years is larger than the memory. So the archive is read once, and the
    rows wait in a file without a name. Where that has no room, the archive is read a second time for the others; a
    key that is sampled for the first time in between is left out.

    Args:
        selection: What is wanted.
        out: Where it goes.
        room: How many bytes may wait; None: half of what is free.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8", newline="", dir=_scratch()) as file:
        draft = _Draft(file, _room() if room is None else room)
        for row in _rows(selection):
            draft.add(row)
        draft.copy(out)
        if draft.left_over:
            rest = itertools.islice(_rows(selection), draft.rows, None)
            csv.writer(out, lineterminator="\n").writerows(_cells(row, draft.columns) for row in rest)


class _Draft:
    """Rows before all columns are known: each with the columns of its time, which new ones follow."""

    def __init__(self, file: IO[str], most_bytes: int) -> None:
        self.columns: dict[str, int] = {}
        self.left_over = 0
        self.rows = 0
        self._file = file
        self._most = most_bytes
        self._size = 0
        self._writer = csv.writer(file, lineterminator="\n")
        self._parts: list[tuple[int, int]] = []  # how many rows have how many columns

    def add(self, row: _Row) -> None:
        _, _, fields = row
        if not self.columns.keys() >= fields.keys():
            for key in fields:
                self.columns.setdefault(key, len(self.columns))
        if self._size > self._most:
            self.left_over += 1
            return
        self._size += self._writer.writerow(_cells(row, self.columns))
        if self._parts and self._parts[-1][1] == len(self.columns):
            self._parts[-1] = (self._parts[-1][0] + 1, len(self.columns))
        else:
            self._parts.append((1, len(self.columns)))
        self.rows += 1

    def copy(self, out: TextIO) -> None:
        """Write header and rows."""
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow([*_COLUMNS, *(f"data.{key}" if key in _COLUMNS else key for key in self.columns)])
        self._file.seek(0)
        reader = csv.reader(iter(self._file.readline, ""))  # which reads no further than it is asked to
        for count, width in self._parts:
            if width == len(self.columns):
                break  # the rest is as it should be
            missing = [""] * (len(self.columns) - width)
            for _ in range(count):
                writer.writerow([*next(reader), *missing])
        while piece := self._file.read(_PIECE):
            out.write(piece)


def _cells(row: _Row, columns: Mapping[str, int]) -> list[Any]:
    """The cells of a row."""
    timestamp, synchronised, fields = row
    return [timestamp, _iso(timestamp), "0" if synchronised else "1", *(fields.get(key, "") for key in columns)]


def _iso(timestamp: float) -> str:
    """The time in UTC, with milliseconds. Only the minute is looked up: that takes as long as all of the rest."""
    minute, rest = divmod(timestamp, 60)
    microseconds = round(rest * 1e6)
    if microseconds == 60_000_000:
        minute, microseconds = minute + 1, 0
    seconds, milliseconds = divmod(microseconds // 1000, 1000)
    return f"{_minute(minute)}:{seconds:02}.{milliseconds:03}Z"


@functools.lru_cache(maxsize=16)
def _minute(number: float) -> str:
    return datetime.datetime.fromtimestamp(60 * number, datetime.UTC).isoformat(timespec="minutes")[:16]


def _scratch() -> str:
    return _SCRATCH if os.access(_SCRATCH, os.W_OK) else tempfile.gettempdir()


def _room() -> int:
    status = os.statvfs(_scratch())
    return min(_MOST_BYTES, status.f_bavail * status.f_frsize // 2)


def _rows(selection: Selection) -> Iterator[_Row]:
    if selection.kind == "data":
        for timestamp, data, synchronised in selection.samples(progress=not sys.stdout.isatty()):
            yield timestamp, synchronised, data
        return
    for item in selection.read():
        yield item.timestamp, item.message_body.clock_synchronised, _fields(item)


def _fields(item: MessageArchiveItem) -> dict[str, Any]:
    body = item.message_body
    if isinstance(body, DataMessageBody):
        return dict(body.data)
    if isinstance(body, LogMessageBody):
        return {"level": body.level, "subject": body.subject, "body": body.body}
    general = body.config.general
    return {
        "status": body.status,
        "config_revision": general.config_revision,
        "software_version": str(general.software_version),
    }
