"""Queue and archive on their way from one board to another: taken as of one instant, put before what is there.

Both work with the rights of the data's owner. What cannot be done raises `OSError` or `sqlite3.Error`.
"""

import contextlib
import datetime
import errno
import itertools
import os
import shutil
import sqlite3
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import BinaryIO

from ivy import files
from ivy.utils.storage import archive, compressed, contents, schema
from ivy.utils.storage.database import QueueDatabase
from ivy.utils.storage.turns import Turns

_SECONDS_FOR_THE_TURN = 60.0
_SECONDS_TO_OPEN = 10.0
_POISON = "internal_id, timestamp, message_body, reason, tries, next_try"


def take(queue: str, directory: str, turns: Turns, copy: str) -> dict[str, int]:
    """Copy the queue while services use it. They wait for an instant only: it is read as it was then.

    Args:
        queue: Its file.
        directory: That of the archive.
        turns: The lock over both.
        copy: The new file; none is made where there is no queue.

    Returns: The names of the archive's plain files, with the bytes that each had in that instant: nothing in them
        is newer than the queue, and what the queue had let go of is in them.
    """
    files.remove(copy)
    with contextlib.ExitStack() as stack:
        source = None
        if os.path.lexists(queue):
            schema.check_files(queue)
            source = stack.enter_context(
                contextlib.closing(sqlite3.connect(f"file:{queue}?mode=rw", uri=True, timeout=_SECONDS_TO_OPEN))
            )
            source.isolation_level = None
        with turns.take(_SECONDS_FOR_THE_TURN):
            if source is not None:
                source.execute("BEGIN")
                source.execute("SELECT 1 FROM QUEUE LIMIT 1").fetchall()  # only now it reads
            sizes = dict(_plain_files(directory))
        if source is not None:
            os.close(files.open_shared(copy))
            with contextlib.closing(sqlite3.connect(copy)) as target:
                source.backup(target)
                target.execute("PRAGMA journal_mode = DELETE").fetchall()
    return sizes


def _plain_files(directory: str) -> Iterator[tuple[str, int]]:
    for day in archive.days(directory):
        path = archive.file_of(directory, day)
        with contextlib.suppress(FileNotFoundError):
            yield os.path.basename(path), os.lstat(path).st_size


def put_days_before(arrived: str, directory: str) -> list[datetime.date]:
    """Move days of another archive into this one. Of a day that is in both, its lines come first, each once.

    Killed in between and begun again, nothing is there twice.

    Args:
        arrived: The directory of the other archive.
        directory: That of this one.

    Returns: The days that were moved.
    """
    files.make_directory(directory)
    days = archive.days(arrived)
    for day in days:
        path, other = archive.file_of(directory, day), archive.file_of(arrived, day)
        if os.path.lexists(path) or os.path.lexists(path + compressed.SUFFIX):
            _merge_day(other, path)
        else:
            for suffix in (compressed.SUFFIX, ""):
                with contextlib.suppress(FileNotFoundError):
                    _move(other + suffix, path + suffix)
    files.sync(Path(directory))
    return days


def _move(path: str, place: str) -> None:
    """Let a file be in another place, whole or not at all."""
    descriptor = files.open_shared(path)
    os.fsync(descriptor)
    os.close(descriptor)
    try:
        os.rename(path, place)
    except OSError as error:
        if error.errno != errno.EXDEV:  # the data have a disk of their own
            raise
        with os.fdopen(files.open_regular(path), "rb") as source, _replacing(place) as target:
            shutil.copyfileobj(source, target)
        os.unlink(path)


@contextlib.contextmanager
def _replacing(path: str) -> Generator[BinaryIO, None, None]:
    """Write a file of the data again, durably, across the body of a `with`."""
    beside = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.arriving")
    with os.fdopen(files.open_shared(beside, os.O_TRUNC), "r+b") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    os.rename(beside, path)
    files.sync(Path(path).parent)


def _merge_day(other: str, path: str) -> None:
    seen = {archive.fingerprint(archive.HEADER.encode())}
    with _replacing(path) as target:
        target.write(archive.HEADER.encode())
        for line in itertools.chain(archive.stored_lines(other), archive.stored_lines(path)):
            known = archive.fingerprint(line)
            if known not in seen:
                seen.add(known)
                target.write(line if line.endswith(b"\n") else line + (b'"\n' if line.count(b'"') % 2 else b"\n"))
    files.remove(path + compressed.SUFFIX)


def put_before(database: QueueDatabase, turns: Turns, arrived: str, key: str) -> int | None:
    """Let the messages of another queue be before those of this one, all or none, and once. Nobody may be sending.

    Args:
        database: This queue.
        turns: The lock over it and its archive.
        arrived: The file of the other one, which nobody uses.
        key: What this is known by, if it is done again.

    Returns: How many messages came; None if that was done before.
    """
    with contextlib.closing(schema.connect(arrived, timeout=0)) as other:

        def put(connection: sqlite3.Connection) -> int | None:
            if not contents.is_first(connection, key):
                return None
            return _put_before(connection, other)

        with turns.take(_SECONDS_FOR_THE_TURN) as turn:
            count = database.transaction(put)
            turn.keep(None)  # its numbers are others now: whoever comes next gives the archive what that lacks
    return count


def _put_before(connection: sqlite3.Connection, other: sqlite3.Connection) -> int:
    """No number is given twice: what comes gets those behind this queue's, whose own get those behind it."""
    poison = other.execute(f"SELECT {_POISON} FROM POISON ORDER BY internal_id").fetchall()
    [[count]] = other.execute("SELECT COUNT(*) FROM QUEUE").fetchall()
    before = "SELECT COUNT(*) FROM QUEUE WHERE internal_id <= ?"
    [[durable]] = other.execute(before, (contents.archived(other),)).fetchall()
    tables = "SELECT internal_id FROM QUEUE UNION ALL SELECT internal_id FROM POISON"
    [[last]] = connection.execute(f"SELECT COALESCE(MAX(internal_id), 0) FROM ({tables})").fetchall()
    first = 1 + max(contents.archived(connection), last)
    for table in ("QUEUE", "POISON"):
        # By way of numbers that nobody has: each must be unique at any time.
        connection.execute(f"UPDATE {table} SET internal_id = -internal_id")
        connection.execute(f"UPDATE {table} SET internal_id = ? - internal_id", (first + len(poison) + count,))
    connection.executemany(
        f"INSERT INTO POISON ({_POISON}) VALUES (?, ?, ?, ?, ?, ?)",
        ((number, *row[1:]) for number, row in enumerate(poison, first)),
    )
    rows = other.execute("SELECT timestamp, message_body FROM QUEUE ORDER BY internal_id")
    connection.executemany(
        "INSERT INTO QUEUE (internal_id, timestamp, message_body) VALUES (?, ?, ?)",
        ((number, *row) for number, row in enumerate(rows, first + len(poison))),
    )
    # What follows is looked for in the archive: of a board that died, that may lack the last lines.
    contents.set_mark(connection, "archived", first + len(poison) + durable - 1)
    connection.executemany("INSERT OR IGNORE INTO ONCE VALUES (?)", other.execute("SELECT key FROM ONCE"))
    schema.count_dropped(connection, dict(other.execute("SELECT variant, count FROM DROPPED")))
    contents.note_report(connection, dict(other.execute("SELECT variant, reported FROM DROPPED")))
    return len(poison) + int(count)
