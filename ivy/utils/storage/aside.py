"""Moves a damaged queue aside, so that all go on with a new one at once. What becomes of it, see `salvage`."""

import contextlib
import os
import re
import sqlite3
import time
from collections.abc import Callable
from typing import TypeVar

from ivy import files
from ivy.types.messages import LogMessageBody
from ivy.utils.host import journal
from ivy.utils.storage import contents, schema

_Answer = TypeVar("_Answer")
_LARGEST_LEAP = 1 << 40
"""By how much numbers are larger than what is known of them, at most. What is beyond may have rotted."""


def move_aside(path: str, reason: str, floor: int) -> None:
    """Move a damaged database aside, and make a new one. The caller holds the lock on the path.

    Args:
        path: Its file.
        reason: What is wrong with it, for the operator.
        floor: A number that a message is known to have; others may have larger ones.

    Raises:
        OSError, sqlite3.Error: It cannot be moved, or a new one not be made.
    """
    aside = unused_name(f"{path}.aside")
    journal.send("ERROR", f"{path} is damaged ({reason}): going on with a new one")
    for suffix in schema.FILE_SUFFIXES:
        _move(path + suffix, aside + suffix)
    last = _last_number(aside, floor)
    os.close(files.open_shared(path))
    subject = "queue - ERROR - The message queue was damaged: a new one is used, what can be read will follow"
    with contextlib.closing(schema.connect(path, timeout=0)) as database:
        contents.note_archived(database, last)
        body = LogMessageBody(level="ERROR", subject=subject, body=reason).model_dump_json()
        contents.insert(database, last, time.time(), body)


def bring(other: str, path: str) -> None:
    """Let a damaged database from elsewhere be salvaged into the one at a path."""
    import shutil  # not at the top: it brings compression into the memory of every service

    place = unused_name(f"{path}.aside")
    for suffix in reversed(schema.FILE_SUFFIXES):  # the one by which it is found last
        if os.path.lexists(other + suffix):
            with open(other + suffix, "rb") as source, os.fdopen(files.open_shared(place + suffix), "wb") as target:
                shutil.copyfileobj(source, target)


def finish_moving(path: str) -> None:
    """Where there is no database, take away what one that was moved has left; and what 1.0 was salvaging."""
    old = schema.salvaging_path(path)
    newest = [*waiting(path), unused_name(f"{path}.aside")][-2:]
    for suffix in schema.FILE_SUFFIXES:
        _move(old + suffix, newest[-1] + suffix)
    if not os.path.lexists(path):
        for suffix in schema.FILE_SUFFIXES[1:]:
            _move(path + suffix, newest[0] + suffix)


def waiting(path: str) -> list[str]:
    """The damaged databases that are to be salvaged, the oldest first."""
    return _named(path, "aside")


def damaged_files(path: str) -> list[str]:
    """The damaged databases that were salvaged and kept, the oldest first."""
    return _named(path, "damaged")


def _named(path: str, kind: str) -> list[str]:
    directory, name = os.path.split(path)
    found = [other for other in os.listdir(directory) if re.fullmatch(rf"{re.escape(name)}\.{kind}-\d+", other)]
    return [os.path.join(directory, other) for other in sorted(found, key=_stamp)]


def unused_name(prefix: str) -> str:
    """A name with the time in it, or a later one than others have: they are in order whatever the clock says."""
    directory, name = os.path.split(prefix)
    path, _, kind = name.rpartition(".")
    taken = [_stamp(other) for other in _named(os.path.join(directory, path), kind)]
    return f"{prefix}-{max([int(time.time()), *(stamp + 1 for stamp in taken)])}"


def _stamp(name: str) -> int:
    return int(name.rpartition("-")[2])


def _last_number(old: str, floor: int) -> int:
    """The largest number in a damaged database, or one that is larger."""
    statement = f"SELECT MAX(internal_id) FROM QUEUE WHERE internal_id < {floor + _LARGEST_LEAP}"

    def ask(database: sqlite3.Connection) -> int:
        [[last]] = database.execute(statement)
        return max(floor, int(last or 0))

    return ask_damaged(old, "QUEUE", ask, floor + _LARGEST_LEAP)


def ask_damaged(old: str, table: str, ask: Callable[[sqlite3.Connection], _Answer], otherwise: _Answer) -> _Answer:
    """Ask a table of a damaged database. Returns `otherwise` where it cannot be read.

    So it is where there is no table of that name, but a view, say: that may have no end.
    """
    named_so = "SELECT type, rootpage > 0 FROM sqlite_schema WHERE name = ? COLLATE NOCASE"
    with contextlib.suppress(sqlite3.Error, UnicodeDecodeError, OSError, TypeError, ValueError):
        schema.check_files(old)
        with contextlib.closing(sqlite3.connect(f"file:{old}?mode=ro", uri=True)) as database:
            database.execute("PRAGMA writable_schema = ON")  # else SQLite reads nothing of a file that is too short
            if database.execute(named_so, (table,)).fetchall() == [("table", 1)]:
                return ask(database)
    return otherwise


def keep(old: str, kept: str) -> None:
    """Rename a database that was salvaged."""
    for suffix in reversed(schema.FILE_SUFFIXES):  # the one by which it is found last
        _move(old + suffix, kept + suffix)


def remove(path: str) -> None:
    """Remove a database with all that is beside it."""
    for suffix in schema.FILE_SUFFIXES:
        files.remove(path + suffix)


def _move(path: str, other: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.rename(path, other)
