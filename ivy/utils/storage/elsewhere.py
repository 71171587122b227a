"""The data of another node, at a desk: on a card in a reader, or in a directory that was copied. Only reads.

The disk may be read-only, and whoever looks may be no user of that node's. Not for the node's own data, which its
services change meanwhile.
"""

import contextlib
import os
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from ivy import constants, files
from ivy.utils.storage import archive, schema

_ARCHIVE, _QUEUE = "messages", "active-message-queue.sqlite3"
_BELOW = ("", "data", os.path.join("var", "lib", constants.NAME, "data"))
"""Where the data may be: there, on a partition of their own, or on a whole card."""

_FOR_OTHERS = 0o005
_INDEX = "-shm"
"""Of a database, what is made again by whoever opens it."""


@dataclass(frozen=True)
class Data:
    """Where they are."""

    directory: str
    """Its owner may read all of it."""
    archive: str
    queue: str
    """The file, whether or not it exists."""

    @property
    def read_as(self) -> str:
        """The directory as whose owner root reads: its own, where another user could not load this program."""
        can_load = all(map(is_open_to_all, (constants.PROJECT_DIR, sys.prefix)))
        return self.directory if can_load else "/"


def is_open_to_all(path: str) -> bool:
    """Whether any user may read below a directory; not so in a home, mostly."""
    return all(os.stat(each).st_mode & _FOR_OTHERS == _FOR_OTHERS for each in (path, *map(str, Path(path).parents)))


def find(directory: str) -> Data:
    """Find a node's data in a directory, or below the root of its card. Links that lead out of it are not followed.

    Raises:
        FileNotFoundError: There are none.
        OSError: It cannot be read.
    """
    root = os.path.realpath(directory)
    os.listdir(root)
    for below in _BELOW:
        place = os.path.join(root, below).rstrip("/") or "/"
        if not os.path.isdir(place) or os.path.realpath(place) != place:
            continue
        names = os.listdir(place)
        found = Data(place, os.path.join(place, _ARCHIVE), os.path.join(place, _QUEUE))
        if _QUEUE in names or (_ARCHIVE in names and not os.path.islink(found.archive)):
            return found
    if archive.days(root):  # the archive alone, as it was copied
        return Data(root, root, os.path.join(root, _QUEUE))
    raise FileNotFoundError(f"{directory}: there are no data of a node, nor in {_BELOW[-1]} below it")


@contextlib.contextmanager
def opened_queue(path: str) -> Generator[sqlite3.Connection, None, None]:
    """Open a copy of a queue, across the body of a `with`: SQLite writes beside what it only reads, too.

    Not without a copy, as if nothing ever changed the file (`immutable=1`): the newest messages are in the log
    beside it then, and SQLite does not look there.

    Raises:
        OSError, sqlite3.Error: It cannot be copied or read.
    """
    with tempfile.TemporaryDirectory(prefix=f"{constants.NAME}-queue-") as scratch:
        copy = os.path.join(scratch, _QUEUE)
        copy_queue(path, copy)
        with contextlib.closing(schema.connect(copy, timeout=0)) as connection:
            yield connection


def copy_queue(path: str, copy: str) -> None:
    """Copy a queue that nobody uses, with the log beside it.

    Raises:
        OSError: It cannot be read, or is not a regular file; or there is no room for the copy.
    """
    for suffix in schema.FILE_SUFFIXES:
        if suffix == _INDEX:
            continue
        try:
            source = os.fdopen(files.open_regular(path + suffix), "rb")
        except FileNotFoundError:
            if not suffix:
                raise
            continue
        with source, open(copy + suffix, "xb") as target:
            shutil.copyfileobj(source, target)
