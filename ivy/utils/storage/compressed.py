"""Days of the archive, compressed: `YYYY-MM-DD.csv.gz`, for `zcat` and for `archive.read`.

A day gets this name only when it is synced and verified to hold all of what it replaces. Should a wrong clock
append to a day that is compressed, the plain file is there again, beside it: it becomes one more member of the
compressed one. What cannot be done raises `OSError`.
"""

import contextlib
import math
import os
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

from ivy import files
from ivy.utils.host.locks import file_lock

SUFFIX = ".gz"

_PIECE = 1 << 16
_AS_GZIP = 16 + zlib.MAX_WBITS
_TRAILER = 8  # bytes: checksum and length, see RFC 1952
_SECONDS_FOR_THE_LOCK = 1.0


class NotVerifiedError(OSError):
    """What was compressed does not hold what it should replace."""


def open_compressed(raw: BinaryIO) -> BinaryIO:
    """The content of an open compressed file, as a file. Of one that expands without end, no more is in the memory.

    Reading it raises what `DAMAGE` lists, where it is damaged.
    """
    import gzip  # not at the top: services that only append have no use for it

    return cast("BinaryIO", gzip.GzipFile(fileobj=raw))


DAMAGE = (EOFError, OSError, zlib.error)
"""What reading a compressed file raises, where it is damaged."""


def holds(packed: BinaryIO, plain: BinaryIO) -> bool:
    """Whether the last member of a compressed file is a plain one: by length and checksum, as gzip keeps them.

    Both are left where they were read last.
    """
    size = os.fstat(packed.fileno()).st_size
    if size <= _TRAILER:
        return False
    trailer = os.pread(packed.fileno(), _TRAILER, size - _TRAILER)
    length = os.fstat(plain.fileno()).st_size
    if int.from_bytes(trailer[4:], "little") != length % (1 << 32):
        return False
    checksum, position = 0, 0
    while piece := os.pread(plain.fileno(), _PIECE, position):
        checksum, position = zlib.crc32(piece, checksum), position + len(piece)
    return checksum == int.from_bytes(trailer[:4], "little")


def compress(path: str, lock_path: str, most_bytes: int, rest: Callable[[float], None] = time.sleep) -> None:
    """Compress a day, and remove the plain file when that is durable and verified.

    Killed at any point, nothing is lost. It takes half of a processor at most: it rests for as long as it works.

    Args:
        path: The plain file.
        lock_path: Whoever appends to the archive holds this lock.
        most_bytes: How large the day may be.
        rest: Waits for so many seconds.

    Raises:
        NotVerifiedError: Something is damaged. Both files stay.
        TimeoutError: The archive is busy, or was appended to meanwhile; next time, then.
    """
    beside = Path(path).with_name(f".{os.path.basename(path)}{SUFFIX}")
    with contextlib.ExitStack() as stack:
        plain = stack.enter_context(_open(path, most_bytes))
        packed: BinaryIO | None = None
        with contextlib.suppress(FileNotFoundError):
            packed = stack.enter_context(_open(path + SUFFIX, most_bytes))
        length = os.fstat(plain.fileno()).st_size
        # If it does, the power went before the plain one was removed.
        is_done = packed is not None and holds(packed, plain)
        if packed is None or not is_done:
            stack.callback(beside.unlink, missing_ok=True)
            new = stack.enter_context(os.fdopen(files.open_shared(str(beside), os.O_TRUNC), "r+b"))
            _write(new, packed, _pieces(plain, rest, length), rest)
            os.fsync(new.fileno())
            plain.seek(0)
            packed = new
        _verify(packed, _pieces(plain, rest, length), length, most_bytes, rest)
        with file_lock(lock_path, _SECONDS_FOR_THE_LOCK):
            status = os.fstat(plain.fileno())
            if status.st_size != length or not os.path.samestat(status, os.lstat(path)):
                raise TimeoutError(f"{path} was changed while it was compressed")
            if not is_done:
                beside.rename(path + SUFFIX)
                files.sync(beside.parent)
            os.unlink(path)


def _open(path: str, most_bytes: int) -> BinaryIO:
    return os.fdopen(files.open_regular(path, most_bytes=most_bytes), "rb")


def _write(new: BinaryIO, packed: BinaryIO | None, pieces: Iterator[bytes], rest: Callable[[float], None]) -> None:
    for piece in _pieces(packed, rest) if packed is not None else ():
        new.write(piece)
    compressor = zlib.compressobj(wbits=_AS_GZIP)
    for piece in pieces:
        new.write(compressor.compress(piece))
    new.write(compressor.flush())
    new.flush()


def _verify(
    packed: BinaryIO, pieces: Iterator[bytes], length: int, most_bytes: int, rest: Callable[[float], None]
) -> None:
    """Read all of the compressed file, whose end must be these pieces of so many bytes."""
    packed.seek(0)
    try:
        with open_compressed(packed) as content:
            size = 0
            for piece in _pieces(content, rest):
                size += len(piece)
                if size > most_bytes + length:  # it may expand without end
                    raise NotVerifiedError("it is too large")
            content.seek(max(0, size - length))
            is_same = size >= length and all(piece == content.read(len(piece)) for piece in pieces)
    except (EOFError, zlib.error) as error:
        raise NotVerifiedError(str(error)) from error
    if not is_same:
        raise NotVerifiedError("its compressed form holds something else")


def _pieces(file: BinaryIO, rest: Callable[[float], None], length: float = math.inf) -> Iterator[bytes]:
    """The first `length` bytes, with pauses."""
    began = time.monotonic()
    while piece := file.read(int(min(_PIECE, length))):
        length -= len(piece)
        yield piece
        rest(time.monotonic() - began)
        began = time.monotonic()
