"""The message archive: one CSV file per UTC day, `timestamp,message_body`, the body as JSON. Only ever appended to.

Older days are compressed (see `compressed`); whoever reads a day by its plain name gets both.

Not the queue: what stands here was taken, whether or not it was sent. What cannot be done raises `OSError`.
"""

import contextlib
import datetime
import errno
import json
import os
import time
from collections.abc import Iterator
from typing import Any, BinaryIO

from ivy import files
from ivy.types.messages import MessageArchiveItem
from ivy.utils import notify
from ivy.utils.host import journal
from ivy.utils.storage import compressed

HEADER = "timestamp,message_body\n"

LARGEST_DAY = 4_000_000_000
"""Bytes that a day may have for whoever reads it: ten thousand samples a second."""

LONGEST_LINE = 4_000_000
"""Bytes of a line beyond which it is no message."""

_decode = json.JSONDecoder().raw_decode

_EARLIEST, _LATEST = -62135596800.0, 253402300799.0
"""What can be shown: the years 1 to 9999."""


class Appender:
    """The file that was appended to last, kept open. Whoever appends holds the lock on the archive."""

    def __init__(self) -> None:
        self._path = ""
        self._descriptor: int | None = None
        self._opened: os.stat_result | None = None
        self._size = -1

    def append(self, path: str, lines: str) -> None:
        """Append whole lines, all or none of them, unsynced.

        Args:
            path: The CSV file; made with its directory and header if it does not exist.
            lines: See `line`.
        """
        descriptor = self._open(path)
        size, size_before, self._size = os.fstat(descriptor).st_size, self._size, -1
        if size != size_before:  # somebody else has written meanwhile
            start, size = _missing_start(descriptor, size)
            lines = start + lines
        self._size = _write_whole(descriptor, size, lines)

    def _open(self, path: str) -> int:
        if self._descriptor is not None and path == self._path and self._is_the_same():
            return self._descriptor
        self.close()
        files.make_directory(os.path.dirname(path))
        self._descriptor = _open_for_append(path)
        self._path, self._opened = path, os.fstat(self._descriptor)
        return self._descriptor

    def _is_the_same(self) -> bool:
        try:
            return self._opened is not None and os.path.samestat(self._opened, os.lstat(self._path))
        except FileNotFoundError:
            return False
        except PermissionError:  # as for the queue: what is open can still be used
            return True

    def close(self) -> None:
        """Close the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor, self._size = None, -1


def end_line(path: str) -> None:
    """End the last line of a file, if it was torn: more may follow. Whoever calls holds the lock on the archive."""
    appender = Appender()
    try:
        appender.append(path, "")
    finally:
        appender.close()


def line(timestamp: float, message_body: str) -> str:
    """The line of a message: Unix time in seconds, and the body as JSON."""
    return '{},"{}"\n'.format(timestamp, message_body.replace('"', '""'))


def sync(path: str) -> None:
    """Make durable what was appended to a file, by whomever; nothing if there is none."""
    try:
        descriptor = files.open_regular(path)
    except FileNotFoundError:
        return
    try:
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


def fingerprint(whole_line: bytes) -> int:
    """By what a line is known again, also without its end: so it can still be read."""
    return hash(whole_line.removesuffix(b"\n").removesuffix(b'"'))


def tail(path: str, size: int) -> set[int]:
    """The `fingerprint` of each line in the last so many bytes of a file; none of what `Appender` would replace."""
    try:
        with open_day(path) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - size))
            return {fingerprint(found) for found in lines(file)}
    except OSError as error:
        if isinstance(error, FileNotFoundError) or files.is_out_of_place(error):
            return set()
        raise


def _open_for_append(path: str) -> int:
    try:
        return files.open_shared(path, os.O_APPEND)
    except OSError as error:
        if not files.is_out_of_place(error):
            raise
        aside = f"{path}.damaged-{time.time():.0f}"
        os.rename(path, aside)
        journal.send("ERROR", f"{path} is not a regular file: moved to {aside}")
    return files.open_shared(path, os.O_APPEND)


def _missing_start(descriptor: int, size: int) -> tuple[str, int]:
    """What must come before a new line: the header of a new file, the end of a line torn by a power cut.

    NULs that the file ends with are removed.

    Returns: That, and the size of the file now.
    """
    last = os.pread(descriptor, 1, size - 1) if size else b""
    if last == b"\0":
        size = _cut_nuls(descriptor, size)
        last = os.pread(descriptor, 1, size - 1) if size else b""
    if not last:
        return HEADER, size
    if last == b"\n":
        return "", size
    begin = max(0, size - LONGEST_LINE)
    torn = os.pread(descriptor, size - begin, begin).rpartition(b"\n")[2]
    # Whoever reads the file as CSV would take all that follows for the text of a field that nobody ends.
    return '"\n' if torn.count(b'"') % 2 else "\n", size


def _cut_nuls(descriptor: int, size: int) -> int:
    """Shorten a file by the NULs that it ends with: its size was on the disk, but not its content.

    Returns: Its size now.
    """
    begin = max(0, size - LONGEST_LINE)
    size = begin + len(os.pread(descriptor, size - begin, begin).rstrip(b"\0"))
    os.ftruncate(descriptor, size)
    return size


def _write_whole(descriptor: int, size: int, text: str) -> int:
    """Write all of it, or leave the file as it was, of that size: what did not fit is written again later.

    Returns: How large the file is now.
    """
    whole = text.encode()
    rest = whole
    try:
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    except OSError:
        os.ftruncate(descriptor, size)
        raise
    return size + len(whole)


Record = tuple[float, dict[str, Any]]
"""A line: Unix time in seconds, and the body, of which nobody has said yet that it is a message's."""


def read(path: str) -> Iterator[MessageArchiveItem]:
    """The messages of a day, one at a time: a day may be larger than the memory.

    In the order in which they were written; none if the file does not exist. A line that is no message (torn by a
    power cut) is left out and reported to the journal.

    Args:
        path: The plain file's, see `file_of`.
    """
    for record in records(path):
        yield from parse_record(path, record)


def records(path: str) -> Iterator[Record]:
    """As `read`, but fast: what is yielded has the form of a JSON object and a time, and no more is known of it."""
    for line in stored_lines(path):
        text = line.decode("utf-8", "replace")
        try:  # as nearly all are; written out, as years have many millions
            time, _, quoted = text.partition(',"')
            quoted = quoted.replace('""', '"')
            body, end = _decode(quoted)
            timestamp = float(time)
            if quoted[end:] == '"\n' and type(body) is dict and _EARLIEST <= timestamp <= _LATEST:
                yield timestamp, body
                continue
        except (ValueError, RecursionError):
            pass
        if (record := record_of(path, text)) is not None:
            yield record


def stored_lines(path: str) -> Iterator[bytes]:
    """The lines of a day: of its compressed file, then of the plain one, if that is not in the other already."""
    with contextlib.ExitStack() as stack:
        # In this order: whoever compresses makes the one before it removes the other.
        plain = _open_if_there(path, stack)
        packed = _open_if_there(path + compressed.SUFFIX, stack)
        if packed is not None:
            is_whole = True
            try:
                yield from lines(compressed.open_compressed(packed))
            except compressed.DAMAGE as error:
                is_whole = False
                journal.send("WARNING", f"{path}{compressed.SUFFIX}: left out the rest, it is damaged: {error}")
            if is_whole and plain is not None and compressed.holds(packed, plain):
                return
        if plain is not None:
            yield from lines(plain)


def _open_if_there(path: str, stack: contextlib.ExitStack) -> BinaryIO | None:
    try:
        return stack.enter_context(open_day(path))
    except FileNotFoundError:
        return None
    except OSError as error:
        if not files.is_out_of_place(error):
            raise
        journal.send("WARNING", f"{path} was left out: {error.strerror}")
        return None


def open_day(path: str) -> BinaryIO:
    """Open a day for reading.

    Raises:
        OSError: It cannot be opened, or is not a regular file of a usual size.
    """
    return os.fdopen(files.open_regular(path, most_bytes=LARGEST_DAY), "rb")


def lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines of an open day, each with its end, if it has one yet; not those that no message is as long as.

    Of what has no ends at all, as a file that is one large hole, no more is in the memory than of a line. NULs that
    a file ends with are left out, see `_missing_start`.

    Raises:
        OSError: There is more than a day may have: a small compressed file can be without end.
    """
    is_rest = False
    size = 0
    while line := file.readline(LONGEST_LINE):
        if (size := size + len(line)) > LARGEST_DAY:
            raise OSError(errno.EFBIG, "is too large")
        if is_rest:
            notify.heartbeat()
        is_end = line.endswith(b"\n")
        if not is_rest and (is_end or len(line) < LONGEST_LINE) and (line := line.rstrip(b"\0")):
            yield line
        is_rest = not is_end


def parse_line(path: str, line: str) -> Iterator[MessageArchiveItem]:
    """Parse a line of a CSV file: yields its message, or nothing if it has none."""
    record = record_of(path, line)
    if record is not None:
        yield from parse_record(path, record)


def parse_record(path: str, record: Record) -> Iterator[MessageArchiveItem]:
    """Yields the message of a record, or nothing if it is none."""
    timestamp, body = record
    try:
        yield MessageArchiveItem.model_validate({"timestamp": timestamp, "message_body": body})
    except (ValueError, RecursionError):
        _leave_out(path, f"{timestamp},{body}")


def record_of(path: str, line: str) -> Record | None:
    """Parse a stored line, which may be the header; None if it has no record."""
    if line == HEADER or line.isspace():
        return None
    try:
        time, _, quoted = line.strip().partition(",")
        body = json.loads(quoted.removeprefix('"').removesuffix('"').replace('""', '"'))
        timestamp = float(time)
        if isinstance(body, dict) and _EARLIEST <= timestamp <= _LATEST:
            return timestamp, body
    except (ValueError, RecursionError):
        pass
    _leave_out(path, line)
    return None


def _leave_out(path: str, line: str) -> None:
    journal.send("WARNING", f"{path}: left out a line that is no message: {line.strip()[:80]}")


def days(directory: str) -> list[datetime.date]:
    """The days of which there are files, the oldest first. Other names, like those of copies, are nobody's days."""
    try:
        with os.scandir(directory) as entries:
            names = [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]
    except FileNotFoundError:
        return []
    found = set()
    for name in names:
        with contextlib.suppress(ValueError):
            day = datetime.date.fromisoformat(name.removesuffix(compressed.SUFFIX).removesuffix(".csv"))
            if name.removesuffix(compressed.SUFFIX) == f"{day}.csv":
                found.add(day)
    return sorted(found)


def remove_day(directory: str, date: datetime.date) -> None:
    """Remove a day, in each of its forms."""
    path = file_of(directory, date)
    files.remove(path)
    files.remove(path + compressed.SUFFIX)


def file_of(directory: str, date: datetime.date) -> str:
    """The path of a day's file, `YYYY-MM-DD.csv`."""
    return os.path.join(directory, f"{date.isoformat()}.csv")
