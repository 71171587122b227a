"""A disk that knows which writes were flushed, and forgets some of the others when its power fails.

Also bad sectors, a disk that takes no more writes, and records of all writes, from which the disk of any instant
can be made again. Knows nothing of how it is reached (see `testbed.nbd`) and of what is on it.
"""

import errno
import os
import random
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from testbed.nbd import NoAnswer
from testbed.run import run

SECTOR = 512
"""Bytes that a disk writes as a whole or not at all."""

MOST_TORN = 0.3  # of the writes that land
SECONDS_TO_FAIL = 1.0
SECONDS_OF_SILENCE = 0.2

_RECORD = struct.Struct(">cQQI")  # kind, size of the witness, offset, length; then the bytes, if any
_BASE, _LOG = "base.img", "log"
_WRITTEN, _WRITTEN_DURABLY, _FLUSHED = b"w", b"d", b"f"


class Write(NamedTuple):
    offset: int
    data: bytes
    durable: bool


class _Pending(NamedTuple):
    write: Write
    before: bytes


class Fate(NamedTuple):
    """What a power failure did: how many writes were not flushed, landed (torn ones included), landed torn."""

    unflushed: int
    landed: int
    torn: int


class BadSectors(NamedTuple):
    start: int
    end: int
    reads: bool
    writes: bool


def land(writes: Sequence[Write], chance: random.Random, write: Callable[[int, bytes], object]) -> Fate:
    """Let a random share of writes reach the disk, some of them only with some of their sectors.

    A disk may write in any order. Where two writes overlap, a later one is not overwritten by an earlier one; so
    any order of those that land leads to what is found when they land in their own.
    """
    share, landed, torn = chance.random(), 0, 0
    for offset, data, durable in writes:
        if not durable and chance.random() >= share:
            continue
        landed += 1
        sectors = list(_sectors(offset, data))
        if durable or len(sectors) == 1 or chance.random() >= MOST_TORN:
            write(offset, data)
            continue
        torn += 1
        for piece_offset, piece in chance.sample(sectors, chance.randrange(1, len(sectors))):
            write(piece_offset, piece)
    return Fate(len(writes), landed, torn)


def _sectors(offset: int, data: bytes) -> Iterator[tuple[int, bytes]]:
    start = 0
    while start < len(data):
        end = min(len(data), start + SECTOR - (offset + start) % SECTOR)
        yield offset + start, data[start:end]
        start = end


class ForgetfulDisk:
    """A disk in a file, for several threads. The file has all writes, flushed or not, until the power fails."""

    def __init__(self, image: Path) -> None:
        self.size = image.stat().st_size
        self._image = image
        self._file = os.open(image, os.O_RDWR)
        self._changed = threading.Condition()
        self._pending: list[_Pending] = []
        self._bad: list[BadSectors] = []
        self._read_only = False
        self._has_power = True
        self._is_failing = False
        self._holds_flush = False
        self._recorder: _Recorder | None = None

    def read(self, offset: int, length: int) -> bytes:
        with self._changed:
            self._ask_power()
            self._check(offset, length, lambda bad: bad.reads)
            return os.pread(self._file, length, offset)

    def write(self, offset: int, data: bytes, *, durable: bool) -> None:
        with self._changed:
            self._ask_power()
            self._check(offset, len(data), lambda bad: bad.writes)
            if self._read_only:
                raise OSError(errno.EPERM, "the disk takes no writes")
            self._pending.append(_Pending(Write(offset, data, durable), os.pread(self._file, len(data), offset)))
            os.pwrite(self._file, data, offset)
            if self._recorder:
                self._recorder.write(self._pending[-1].write)

    def flush(self) -> None:
        with self._changed:
            self._ask_power()
            if self._is_failing:
                self._holds_flush = True
                raise NoAnswer
            self._pending.clear()
            if self._recorder:
                self._recorder.flush()

    def fail_power(self, seed: int, patience: float = SECONDS_TO_FAIL) -> Fate:
        """Fail. Flushes are not answered any more, and soon nothing is. The file is what is left on the disk.

        Args:
            seed: For the share of what was not flushed that lands.
            patience: For so many seconds at most it still takes what is being written, up to a first flush and
                until nothing comes any more: so that something is under way when it fails.
        """
        with self._changed:
            self._is_failing = True
            deadline = time.monotonic() + patience
            while (left := deadline - time.monotonic()) > 0:
                if not self._changed.wait(min(left, SECONDS_OF_SILENCE)) and self._holds_flush:
                    break
            self._has_power = False
            for pending in reversed(self._pending):
                os.pwrite(self._file, pending.before, pending.write.offset)
            writes = [pending.write for pending in self._pending]
            return land(writes, random.Random(seed), lambda offset, data: os.pwrite(self._file, data, offset))

    def break_sectors(self, start: int, length: int, *, reads: bool, writes: bool) -> None:
        """Let all reads, or writes, that touch a range of bytes fail with EIO."""
        with self._changed:
            self._bad.append(BadSectors(start, start + length, reads, writes))

    def be_read_only(self) -> None:
        """Take no more writes: they fail."""
        with self._changed:
            self._read_only = True

    def heal(self) -> None:
        """No more bad sectors, and writes are taken again."""
        with self._changed:
            self._bad.clear()
            self._read_only = False

    def record(self, directory: Path, witness: Path | None) -> None:
        """Begin to record every write and flush, to be read by `Recording`.

        Args:
            directory: Where to; made.
            witness: A file on another disk, the size of which is recorded with each of them: what it says had been
                said at that instant.
        """
        with self._changed:
            directory.mkdir()
            base = directory / _BASE
            copy_sparse(self._image, base)
            with base.open("r+b") as file:
                for pending in reversed(self._pending):
                    os.pwrite(file.fileno(), pending.before, pending.write.offset)
            self._recorder = _Recorder(directory / _LOG, witness)
            for pending in self._pending:
                self._recorder.write(pending.write)

    def instant(self) -> int:
        """How many writes and flushes are recorded so far."""
        with self._changed:
            return self._recorder.count if self._recorder else 0

    def stop_recording(self) -> None:
        with self._changed:
            if self._recorder:
                self._recorder.close()
            self._recorder = None

    def _ask_power(self) -> None:
        self._changed.notify_all()
        if not self._has_power:
            raise NoAnswer

    def _check(self, offset: int, length: int, concerns: Callable[[BadSectors], bool]) -> None:
        if any(concerns(bad) and offset < bad.end and bad.start < offset + length for bad in self._bad):
            raise OSError(errno.EIO, "a bad sector")


class _Recorder:
    def __init__(self, log: Path, witness: Path | None) -> None:
        self._file = log.open("wb", buffering=1 << 20)
        self._witness = witness
        self.count = 0

    def write(self, write: Write) -> None:
        self._add(_WRITTEN_DURABLY if write.durable else _WRITTEN, write.offset, write.data)

    def flush(self) -> None:
        self._add(_FLUSHED, 0, b"")

    def close(self) -> None:
        self._file.close()

    def _add(self, kind: bytes, offset: int, data: bytes) -> None:
        said = self._witness.stat().st_size if self._witness and self._witness.exists() else 0
        self._file.write(_RECORD.pack(kind, said, offset, len(data)) + data)
        self.count += 1


@dataclass(frozen=True)
class Instant:
    """The moment right after a write or a flush."""

    said: int
    """Bytes of the witness then."""
    write: Write | None
    """None for a flush."""


class Recording:
    """What was recorded, from the first instant to the last."""

    def __init__(self, directory: Path) -> None:
        self._base = directory / _BASE
        self.instants = list(_read(directory / _LOG))

    def written(self) -> list[int]:
        """The instants after a write, which differ from each other in what may be left."""
        return [number for number, each in enumerate(self.instants, 1) if each.write is not None]

    def make_disk(self, instant: int, seed: int, image: Path) -> Fate:
        """Make a file of the disk as it would be if the power had failed at an instant (the first one is 1)."""
        # Never in the file of the one before: another mount namespace may still have that mounted.
        image.unlink(missing_ok=True)
        copy_sparse(self._base, image)
        until = self.instants[:instant]
        flushed = max((number for number, each in enumerate(until) if each.write is None), default=0)
        writes = [each.write for each in until]
        with image.open("r+b") as file:

            def write(offset: int, data: bytes) -> None:
                os.pwrite(file.fileno(), data, offset)

            for each in filter(None, writes[:flushed]):
                write(each.offset, each.data)
            return land(list(filter(None, writes[flushed:])), random.Random(seed), write)


def _read(log: Path) -> Iterable[Instant]:
    with log.open("rb") as file:
        while head := file.read(_RECORD.size):
            kind, said, offset, length = _RECORD.unpack(head)
            write = None if kind == _FLUSHED else Write(offset, file.read(length), kind == _WRITTEN_DURABLY)
            yield Instant(said, write)


def copy_sparse(source: Path, target: Path) -> None:
    """Copy a file, the holes as holes."""
    run(["cp", "--sparse=always", "--reflink=auto", source, target])
