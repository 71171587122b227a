"""The message archive: one CSV file per UTC day, `timestamp,message_body`, the body as JSON. Only ever appended to.

Not the queue: what stands here was taken, whether or not it was sent. What cannot be done raises `OSError`.
"""

import contextlib
import datetime
import json
import os
from collections.abc import Iterator

from ivy import files
from ivy.types.messages import MessageArchiveItem
from ivy.utils.host import journal
from ivy.utils.host.locks import file_lock

HEADER = "timestamp,message_body\n"

SECONDS_FOR_THE_LOCK = 6.0
"""A holder that hangs must not stop the others: without the lock, a torn line is the worst that can be."""


def append(path: str, lock_path: str, timestamp: float, message_body: str) -> None:
    """Append a message, durably.

    Args:
        path: The CSV file; made with its directory and header if it does not exist.
        timestamp: Unix time in seconds.
        message_body: The body as JSON, on one line.
    """
    line = '{},"{}"\n'.format(timestamp, message_body.replace('"', '""'))
    with files.as_owner_of(os.path.dirname(lock_path)), contextlib.ExitStack() as held:
        files.make_directory(os.path.dirname(path))
        descriptor = files.open_shared(path, os.O_APPEND)
        held.callback(os.close, descriptor)
        with contextlib.ExitStack() as locked:
            with contextlib.suppress(TimeoutError):
                locked.enter_context(file_lock(lock_path, SECONDS_FOR_THE_LOCK))
            _write_whole(descriptor, _missing_start(descriptor) + line)
        os.fdatasync(descriptor)


def _missing_start(descriptor: int) -> str:
    """What must come before a new line: the header of a new file, the end of a line torn by a power cut."""
    size = os.fstat(descriptor).st_size
    if size == 0:
        return HEADER
    return "" if os.pread(descriptor, 1, size - 1) == b"\n" else "\n"


def _write_whole(descriptor: int, text: str) -> None:
    """Write all of it, or leave the file as it was: what did not fit on the disk is written again later."""
    size = os.fstat(descriptor).st_size
    rest = text.encode()
    try:
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    except OSError:
        os.ftruncate(descriptor, size)
        raise


def read(path: str) -> Iterator[MessageArchiveItem]:
    """The messages of a CSV file, one at a time: a day may be larger than the memory.

    In the order in which they were written; none if the file does not exist. A line that is no message (torn by a
    power cut) is left out and reported to the journal.
    """
    with (
        contextlib.suppress(FileNotFoundError),
        open(path, encoding="utf-8", errors="replace", newline="\n") as file,
    ):
        for line in file:
            yield from parse_line(path, line)


def parse_line(path: str, line: str) -> Iterator[MessageArchiveItem]:
    """Parse a line of a CSV file: yields its message, or nothing if it has none."""
    if not line.strip() or line == HEADER:
        return
    timestamp, _, quoted = line.strip().partition(",")
    try:
        body = json.loads(quoted.removeprefix('"').removesuffix('"').replace('""', '"'))
        item = MessageArchiveItem(timestamp=float(timestamp), message_body=body)
        datetime.datetime.fromtimestamp(item.timestamp, datetime.UTC)  # a time that can be shown
    except (ValueError, OverflowError, RecursionError, OSError):
        journal.send("WARNING", f"{path}: left out a line that is no message: {line.strip()[:80]}")
    else:
        yield item


def days(directory: str) -> list[datetime.date]:
    """The days of which there are files, the oldest first. Other names, like those of copies, are nobody's days."""
    try:
        with os.scandir(directory) as entries:
            names = [entry.name for entry in entries if entry.is_file()]
    except FileNotFoundError:
        return []
    found = []
    for name in names:
        with contextlib.suppress(ValueError):
            day = datetime.date.fromisoformat(name.removesuffix(".csv"))
            if name == f"{day}.csv":
                found.append(day)
    return sorted(found)


def file_of(directory: str, date: datetime.date) -> str:
    """The path of a day's file, `YYYY-MM-DD.csv`."""
    return os.path.join(directory, f"{date.isoformat()}.csv")
