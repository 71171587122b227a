"""The write-ahead log of a damaged database: which pages stand where in it. Reads and believes no more than that.

Source of the form: https://sqlite.org/fileformat2.html, section 4.
"""

import os
import struct
from typing import Optional

_WAL_HEADER, _FRAME_HEADER = 32, 24
_WAL_MAGIC = 0x377F0682  # the lowest bit tells the byte order of the checksums


def read(descriptor: int, offset: int, size: int) -> bytes:
    """Bytes of a file; fewer or none where it ends or the disk fails."""
    try:
        return os.pread(descriptor, size, offset)
    except OSError:
        return b""


def committed(wal: int, size: int) -> tuple[dict[int, int], dict[int, int]]:
    """Find the last committed content of each page.

    SQLite ends at the first frame that is damaged. But each one's checksum continues that of the one before, which
    is written there; so what follows a damaged frame proves itself: what processes added that had the file open.

    Args:
        wal: A descriptor of the log; it may be empty.
        size: Bytes of a page.

    Returns: By number of the page, where its content stands: in the whole log, and in what precedes the damage.
    """
    header = read(wal, 0, _WAL_HEADER)
    if len(header) < _WAL_HEADER:
        return {}, {}
    magic, _, page_size, _ = struct.unpack(">4I", header[:16])
    order = ">" if magic & 1 else "<"
    checksum = _checksum(header[:24], order, (0, 0))
    if magic & ~1 != _WAL_MAGIC or page_size != size or checksum != _two(header[24:]):
        return {}, {}
    whole: dict[int, int] = {}
    begun: dict[int, int] = {}
    undoubted: Optional[dict[int, int]] = None
    offset = _WAL_HEADER
    while len(frame := read(wal, offset, _FRAME_HEADER + size)) == _FRAME_HEADER + size:
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
