"""Reads the rows of a queue out of a database file page by page, believing nothing but the page at hand.

What SQLite can read, this can too: each leaf page of a table stands for itself, whatever became of those above.
Source of the form: https://sqlite.org/fileformat2.html. Not for databases that SQLite reads without an error.

Why not `sqlite3 FILE .recover`: of 975 queues that were damaged at random, it saved fewer messages than SQLite
itself can still read from 19 (for one torn row it gives up the whole page), this never, and it saved 1.5 % fewer in
all; where the header is noise it reads nothing; and that of Debian 12, where the tests run, cannot do it at all.
"""

import collections
import errno
import os
import struct
from collections.abc import Iterator
from typing import BinaryIO

from ivy import files
from ivy.utils import notify
from ivy.utils.host import clock
from ivy.utils.storage import schema

Row = tuple[int, float, bytes]
"""Identifier, timestamp, body."""

_LEAF_OF_A_TABLE = 0x0D
_INTEGER_SIZES = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8, 8: 0, 9: 0}
_PAGE_SIZES = (512, 1024, 2048, 4096, 8192, 16384, 32768, 65536)
_FLOAT, _SHORTEST_TEXT = 7, 13
_WAL_HEADER, _FRAME_HEADER = 32, 24
_WAL_MAGIC = 0x377F0682  # the lowest bit tells the byte order of the checksums
_BEGINNINGS = (b'{"variant":', b'{"variant": ')


def rows(path: str) -> Iterator[Row]:
    """Read all rows of a queue that can be read, with a heartbeat after each page.

    Some come twice, in what they were before and after a change: the newer first.

    Args:
        path: The database; with `-wal` after it, its write-ahead log, if there is one.

    Raises:
        OSError: The file cannot be opened, or is not a regular file.
    """
    with _open(path) as main, _open_wal(path) as wal:
        for pages in _snapshots(main.fileno(), wal.fileno()):
            for number in pages.numbers():
                page = pages.read(number)
                if page[:1] == bytes([_LEAF_OF_A_TABLE]):
                    yield from _rows_of(page, pages)
                notify.heartbeat()


def _open(path: str) -> BinaryIO:
    return os.fdopen(files.open_regular(path), "rb")


def _open_wal(path: str) -> BinaryIO:
    """The log; nothing where there is none, or something that is no file: a pipe would be waited for."""
    try:
        return _open(f"{path}-wal")
    except OSError:
        return open(os.devnull, "rb")


def _snapshots(main: int, wal: int) -> "list[_Pages]":
    """The database as of its last commit; then, if a frame of the log is damaged, as of the last one before that.

    Only both have all rows: a row that moved to another page may have been on its way into the damaged frame.
    """
    size = _page_size(main)
    newest, undoubted = _committed(wal, size)
    snapshots = [newest] if newest == undoubted else [newest, undoubted]
    return [_Pages(main, wal, size, frames) for frames in snapshots]


def _page_size(main: int) -> int:
    header = _read(main, 0, 18)
    size = struct.unpack(">H", header[16:])[0] if len(header) == 18 else 0
    size = 65536 if size == 1 else size
    return size if header[:6] == b"SQLite" and size in _PAGE_SIZES else schema.PAGE_SIZE


def _read(descriptor: int, offset: int, size: int) -> bytes:
    """Bytes of a file; fewer or none where it ends or the disk fails."""
    try:
        return os.pread(descriptor, size, offset)
    except OSError:
        return b""


def _committed(wal: int, size: int) -> tuple[dict[int, int], dict[int, int]]:
    """Find the last committed content of each page.

    SQLite ends at the first frame that is damaged. But each one's checksum continues that of the one before, which
    is written there; so what follows a damaged frame proves itself: what processes added that had the file open.

    Returns: By number of the page, where its content stands: in the whole log, and in what precedes the damage.
    """
    header = _read(wal, 0, _WAL_HEADER)
    if len(header) < _WAL_HEADER:
        return {}, {}
    magic, _, page_size, _ = struct.unpack(">4I", header[:16])
    order = ">" if magic & 1 else "<"
    checksum = _checksum(header[:24], order, (0, 0))
    if magic & ~1 != _WAL_MAGIC or page_size != size or checksum != _two(header[24:]):
        return {}, {}
    whole: dict[int, int] = {}
    begun: dict[int, int] = {}
    undoubted: dict[int, int] | None = None
    offset = _WAL_HEADER
    while len(frame := _read(wal, offset, _FRAME_HEADER + size)) == _FRAME_HEADER + size:
        offset += len(frame)
        expected, checksum = _checksum(frame[:8] + frame[_FRAME_HEADER:], order, checksum), _two(frame[16:24])
        if frame[8:16] != header[16:24] or checksum != expected:
            undoubted = dict(whole) if undoubted is None else undoubted
            continue
        number, pages_after_commit = _two(frame[:8])
        begun[number] = offset - size
        if pages_after_commit:
            whole |= begun
            begun = {}
    return whole, whole if undoubted is None else undoubted


def _two(data: bytes) -> tuple[int, int]:
    first, second = struct.unpack(">2I", data)
    return first, second


def _checksum(data: bytes, order: str, start: tuple[int, int]) -> tuple[int, int]:
    first, second = start
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for one, other in zip(words[::2], words[1::2], strict=True):
        first = (first + one + second) & 0xFFFFFFFF
        second = (second + other + first) & 0xFFFFFFFF
    return first, second


class _Pages:
    """The pages of a database as of some commit: those in its write-ahead log are newer."""

    def __init__(self, main: int, wal: int, size: int, frames: dict[int, int]) -> None:
        self._main, self._wal, self.size, self._frames = main, wal, size, frames

    def numbers(self) -> Iterator[int]:
        """The numbers of all pages that there are. Holes have none: a file of 100 GB may be one."""
        logged = collections.deque(sorted(self._frames))
        for first, last in self._extents():
            while logged and logged[0] < first:
                yield logged.popleft()
            yield from range(first, last + 1)
            while logged and logged[0] <= last:
                logged.popleft()
        yield from logged

    def _extents(self) -> Iterator[tuple[int, int]]:
        """First and last page of each part of the file that is no hole."""
        number, size = 1, os.fstat(self._main).st_size
        while (number - 1) * self.size < size:
            begin = (number - 1) * self.size
            try:
                begin = os.lseek(self._main, begin, os.SEEK_DATA)
                end = os.lseek(self._main, begin, os.SEEK_HOLE)
            except OSError as error:
                if error.errno == errno.ENXIO:  # nothing but a hole is left
                    return
                end = size  # a file system that knows no holes, or a disk that fails
            first, number = max(number, begin // self.size + 1), -(-end // self.size) + 1
            yield first, number - 1

    def read(self, number: int) -> bytes:
        """A page; short or empty where the file ends or the disk fails."""
        if number in self._frames:
            return _read(self._wal, self._frames[number], self.size)
        return _read(self._main, (number - 1) * self.size, self.size)


def _rows_of(page: bytes, pages: _Pages) -> Iterator[Row]:
    """The rows on a leaf page; what is no row of a queue is left out."""
    if len(page) < 8:
        return
    count = min(struct.unpack(">H", page[3:5])[0], (len(page) - 8) // 2)
    for (start,) in struct.iter_unpack(">H", page[8 : 8 + 2 * count]):
        try:
            yield _row(page, start, pages)
        except (IndexError, ValueError, struct.error):
            continue


def _row(page: bytes, start: int, pages: _Pages) -> Row:
    size, start = _varint(page, start)
    identifier, start = _varint(page, start)
    record = _payload(page, start, size, pages)
    header_size, at = _varint(record, 0)
    identifier_type, at = _varint(record, at)
    time_type, at = _varint(record, at)
    text_type, at = _varint(record, at)
    if at != header_size or identifier_type != 0 or text_type < _SHORTEST_TEXT or text_type % 2 == 0:
        raise ValueError("no row of a queue")
    time_size = 8 if time_type == _FLOAT else _INTEGER_SIZES.get(time_type, -1)
    body = record[header_size + time_size :]
    if time_size < 0 or len(body) != (text_type - _SHORTEST_TEXT) // 2 or not body.startswith(_BEGINNINGS):
        raise ValueError("no row of a queue")
    timestamp = _number(time_type, record[header_size : header_size + time_size])
    identifier -= identifier >> 63 << 64  # it has a sign
    return identifier, clock.or_epoch(timestamp), body


def _payload(page: bytes, start: int, size: int, pages: _Pages) -> bytes:
    """The payload of a cell; what does not fit on the page stands in a chain of others."""
    usable = pages.size
    local = size
    if size > usable - 35:
        least = (usable - 12) * 32 // 255 - 23
        local = least + (size - least) % (usable - 4)
        local = least if local > usable - 35 else local
    parts = [page[start : start + local]]
    rest = size - local
    following = page[start + local : start + local + 4]
    while rest > 0:
        [number] = struct.unpack(">I", following)
        overflow = pages.read(number) if number else b""
        parts.append(overflow[4 : 4 + rest])
        if len(parts[-1]) == 0:
            raise ValueError("a chain that ends early")
        rest -= len(parts[-1])
        following = overflow[:4]
    payload = b"".join(parts)
    if len(payload) != size:
        raise ValueError("a page that ends early")
    return payload


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of one to nine bytes, and where it ends."""
    value = 0
    for count in range(8):
        byte = data[at + count]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + count + 1
    return value << 8 | data[at + 8], at + 9


def _number(kind: int, data: bytes) -> float:
    if kind == _FLOAT:
        return float(struct.unpack(">d", data)[0])
    return float(int.from_bytes(data, "big", signed=True)) if data else float(kind - 8)
