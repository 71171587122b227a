"""Reads a message archive on a node, for the action ivy.fleet.collect, which sends it there as it is.

It runs as the node's user ivy, with nothing but the standard library. Neither a link nor a pipe that takes the
place of a day is read. Of a compressed day comes what it holds, and then what was written later; so a day is the
same before and after it was compressed, and is only ever appended to.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import re
import stat
import sys
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

DAY = re.compile(r"(\d{4}-\d{2}-\d{2})\.csv(\.gz)?", re.ASCII)
MARK = "ivy-archive:"
PIECE = 4_000_000
"""Bytes of a day that are in the memory, there and at the desk."""

LARGEST_DAY = 1 << 29
BLOCK = 1 << 16


def answer(request: str) -> None:
    """Print what was asked for, in JSON, as one line behind `MARK`: what a login says of itself is not of it."""
    asked = json.loads(request)
    work = {"list": listing, "match": match, "read": read}[asked.pop("do")]
    sys.stdout.write(f"\n{MARK}{json.dumps(work(**asked))}\n")


def listing(there: str) -> dict[str, list[int]]:
    """Each day, with what changes whenever its files do: sizes and times."""
    days: dict[str, list[int]] = {}
    for name in sorted(os.listdir(there)) if os.path.isdir(there) else []:
        if found := DAY.fullmatch(name):
            status = os.lstat(os.path.join(there, name))
            days.setdefault(found[1], []).extend((len(found[2] or ""), status.st_size, status.st_mtime_ns))
    return days


def match(there: str, days: dict[str, list[int]]) -> dict[str, Any]:
    """For each day its size, its digest, and what its first bytes are known by: as many as each number says."""
    return {day: guarded(measure, there, day, sizes) for day, sizes in days.items()}


def measure(there: str, day: str, sizes: list[int]) -> dict[str, Any]:
    """Of one day: `size`, `digest` and `starts`, the digests by size, as far as it has so many bytes."""
    known, starts, size = hashlib.sha256(), {}, 0
    left = sorted(set(sizes))
    for block in content(there, day):
        begin = 0
        while left and left[0] <= size + len(block):
            end = left[0] - size
            known.update(block[begin:end])
            starts[str(left.pop(0))] = known.hexdigest()
            begin = end
        known.update(block[begin:])
        size += len(block)
        if size > LARGEST_DAY:
            return {"error": f"it has more than {LARGEST_DAY} bytes"}
    if left and left[0] == size:  # of an empty one
        starts[str(size)] = known.hexdigest()
    return {"size": size, "digest": known.hexdigest(), "starts": starts}


def read(there: str, day: str, offset: int) -> dict[str, Any]:
    """The piece that begins at an offset, compressed; an empty one at the end of the day."""
    return guarded(piece, there, day, offset)


def piece(there: str, day: str, offset: int) -> dict[str, Any]:
    """As `read`, for a day that can be read."""
    found, size = bytearray(), 0
    for block in content(there, day):
        size += len(block)
        if size > offset:
            found += block[-(size - offset) :] if size - len(block) < offset else block
        if len(found) >= PIECE:
            break
    return {"data": base64.b64encode(zlib.compress(bytes(found[:PIECE]))).decode()}


def guarded(work: Any, *arguments: Any) -> dict[str, Any]:
    """What keeps one day from being read keeps nothing else."""
    try:
        done: dict[str, Any] = work(*arguments)
    except (OSError, EOFError, zlib.error) as error:
        return {"error": str(error)}
    return done


def content(there: str, day: str) -> Iterator[bytes]:
    """A day, block by block."""
    plain = os.path.join(there, f"{day}.csv")
    if os.path.lexists(f"{plain}.gz"):
        with opened(f"{plain}.gz") as raw, gzip.GzipFile(fileobj=raw) as file:
            while block := file.read(BLOCK):
                yield block
    if os.path.lexists(plain):
        with opened(plain) as raw:
            while block := raw.read(BLOCK):
                yield block


def opened(path: str) -> BinaryIO:
    """A regular file; anything else raises `OSError`."""
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(f"{path} is not a regular file")
    return file
