"""Replaces a damaged queue by a new one with all that can be read. The caller holds the lock on the queue's path.

Killed at any instant, the next process that opens the queue goes on where this one stopped.
"""

import collections
import contextlib
import itertools
import os
import re
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from ivy import files
from ivy.types.messages import LogMessageBody
from ivy.utils import notify
from ivy.utils.host import journal, mounts
from ivy.utils.storage import ballast, errors, page_scan, schema

_SUFFIXES = ("", "-wal", "-shm")
_ROWS_AT_ONCE = 1000
_BATCHES_BETWEEN_SYNCS = 20
_SMALLEST = -(1 << 63)
_LEAST_SHARE = 0.01
# Where the newest rows rotted, SQLite gives new ones a number that is taken, or one without sense.
_INSERT = """INSERT OR IGNORE INTO QUEUE
    SELECT ?1, ?2, CAST(?3 AS TEXT) WHERE ?1 BETWEEN 1 AND 1 << 48"""
_KEEP_IF_HOMELESS = """INSERT INTO HOMELESS
    SELECT ?2, ?3 WHERE NOT EXISTS (SELECT 1 FROM QUEUE WHERE internal_id = ?1 AND timestamp = ?2)"""
_GIVE_HOMES = """INSERT INTO QUEUE
    SELECT ? + row_number() OVER (ORDER BY timestamp), timestamp, CAST(message_body AS TEXT)
    FROM (SELECT DISTINCT timestamp, message_body FROM HOMELESS)"""
_VARIANT_OF = f"SELECT {schema.VARIANT} FROM (SELECT CAST(? AS TEXT) AS message_body)"
_MOST_KEPT = 3
_GAP = 20_000
"""Identifiers left out after those salvaged: what a backend has on its way must not be taken for what comes now."""


def begin(path: str) -> None:
    """Move a damaged database aside.

    Args:
        path: Its file.

    Raises:
        OSError: It cannot be moved.
    """
    journal.send("ERROR", f"{path} is damaged: reading what can be read")
    for suffix in _SUFFIXES:
        _move(path + suffix, schema.salvaging_path(path) + suffix)


def finish(path: str, reason: str) -> None:
    """Make a new database of the one that was moved aside, which is kept under a name of its own.

    Args:
        path: Where the new one will stand.
        reason: What was wrong with the old one.

    Raises:
        OSError, sqlite3.Error: The new one cannot be written; to be tried again.
    """
    old, new = schema.salvaging_path(path), f"{path}.salvaged"
    kept = _unused_name(path)
    if not os.path.exists(path):
        for suffix in _SUFFIXES[1:]:  # where `begin` was interrupted
            _move(path + suffix, old + suffix)
        count = _copy_or_give_up(path, new, f"{reason}; the damaged file is {kept}")
        os.rename(new, path)
        files.sync(Path(path).parent)
        journal.send("ERROR", f"{path} was damaged ({reason}): {count} messages salvaged; the rest is in {kept}")
    for suffix in reversed(_SUFFIXES):  # the one that makes us come back here last
        _move(old + suffix, kept + suffix)
    for superfluous in damaged_files(path)[:-_MOST_KEPT]:
        _remove(superfluous)


def damaged_files(path: str) -> list[str]:
    """The damaged databases that were kept, the oldest first; of the path of the present one."""
    directory, name = os.path.split(path)
    found = [other for other in os.listdir(directory) if re.fullmatch(rf"{re.escape(name)}\.damaged-\d+", other)]
    return [os.path.join(directory, other) for other in sorted(found)]


def _unused_name(path: str) -> str:
    stamp = int(time.time())
    while os.path.exists(f"{path}.damaged-{stamp}"):
        stamp += 1
    return f"{path}.damaged-{stamp}"


def _copy_or_give_up(path: str, new: str, details: str) -> int:
    """Copy the rows into a new file; none if that fails by more than the disk: it would fail at every start."""
    old = schema.salvaging_path(path)
    _remove(new)  # of a salvage that was interrupted: it takes the room that this one needs
    try:
        return _copy_what_fits(old, new, _share_that_fits(path), details)
    except Exception as error:
        if errors.is_disk_trouble(error):
            raise
        journal.send("ERROR", f"{old} cannot be read: going on with an empty queue", details=repr(error))
        return _copy(old, new, iter(()), _SMALLEST, f"{details}; it could not be read: {error!r}")


def _share_that_fits(path: str) -> float:
    """What part of the damaged database there is room for beside it, once all that may go has gone."""
    size = os.path.getsize(schema.salvaging_path(path))
    for evidence in damaged_files(path):
        if _room(path) >= size:
            return 1.0
        _remove(evidence)
    if _room(path) < size:
        ballast.release()
    return 1.0 if _room(path) >= size else _room(path) / size


def _room(path: str) -> float:
    return 0.9 * mounts.disk(os.path.dirname(path)).free_bytes


def _copy_what_fits(old: str, new: str, share: float, details: str) -> int:
    """Copy the newest rows; only if it is known that not all of them fit, even fewer than that share."""
    while True:
        try:
            return _copy(old, new, page_scan.rows(old), _oldest_of(old, share), details)
        except (OSError, sqlite3.Error) as error:
            if share == 1.0 or share < _LEAST_SHARE or not errors.is_lack_of_room(error):
                raise
            share /= 2


def _oldest_of(old: str, share: float) -> int:
    """The smallest identifier of the newest rows. They are sampled: numbers that rotted must not count for much."""
    sample = sorted(row[0] for row in itertools.islice(page_scan.rows(old), 0, None, 100)) if share < 1.0 else []
    return sample[int(len(sample) * (1 - share))] if sample else _SMALLEST


def _copy(old: str, new: str, rows: Iterator[page_scan.Row], first: int, details: str) -> int:
    """Copy rows from an identifier on into a new file, which is left only if it is whole. Returns their number."""
    try:
        return _fill(old, new, rows, first, details)
    except BaseException:
        _remove(new)
        raise


def _fill(old: str, new: str, rows: Iterator[page_scan.Row], first: int, details: str) -> int:
    dropped: collections.Counter[str] = collections.Counter()
    os.close(files.open_shared(new))
    database = schema.connect(new, timeout=0)
    rows = _without_older(rows, first, database, dropped)
    try:
        database.execute("PRAGMA synchronous = OFF")  # nobody knows this file yet: it is synced as a whole
        schema.make_index(database)  # now, while it is empty
        database.set_progress_handler(notify.heartbeat, 100_000)
        database.execute("CREATE TEMP TABLE HOMELESS (timestamp, message_body)")
        count = 0  # not by SQL: that would read all of it once more
        for number, some in enumerate(iter(lambda: list(itertools.islice(rows, _ROWS_AT_ONCE)), [])):
            database.execute("BEGIN")
            inserted = database.executemany(_INSERT, some).rowcount
            if inserted < len(some):
                database.executemany(_KEEP_IF_HOMELESS, some)
            database.execute("COMMIT")
            count += inserted
            if number % _BATCHES_BETWEEN_SYNCS == _BATCHES_BETWEEN_SYNCS - 1:
                files.sync(Path(new))  # all of it at the end may take a card longer than the watchdog waits
        count += database.execute(_GIVE_HOMES, (_last(database) + _GAP,)).rowcount
        database.executemany("INSERT OR IGNORE INTO DROPPED VALUES (?, ?, ?)", _dropped(old))
        schema.count_dropped(database, dropped)
        without_room = f", the {dropped.total()} oldest dropped for lack of room" if dropped else ""
        _report(database, f"{count} messages salvaged{without_room}", details)
        # Without a log of its own, it is whole by itself.
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    finally:
        database.close()
    files.sync(Path(new))
    return count


def _without_older(
    rows: Iterator[page_scan.Row], first: int, database: sqlite3.Connection, dropped: "collections.Counter[str]"
) -> Iterator[page_scan.Row]:
    for row in rows:
        if row[0] >= first:
            yield row
        else:
            [[variant]] = database.execute(_VARIANT_OF, (row[2],))
            dropped[variant or "data"] += 1


def _report(database: sqlite3.Connection, result: str, details: str) -> None:
    subject = f"queue - ERROR - The message queue was damaged: {result}"
    body = LogMessageBody(level="ERROR", subject=subject, body=details).model_dump_json()
    database.execute("INSERT INTO QUEUE VALUES (?, ?, ?)", (_last(database) + _GAP, time.time(), body))


def _last(database: sqlite3.Connection) -> int:
    [[last]] = database.execute("SELECT COALESCE(MAX(internal_id), 0) FROM QUEUE")
    return int(last)


def _dropped(old: str) -> Iterator[tuple[str, int, int]]:
    """What was counted in the old file, if it can be read."""
    with (
        contextlib.suppress(sqlite3.Error, UnicodeDecodeError),
        contextlib.closing(sqlite3.connect(f"file:{old}?mode=ro", uri=True)) as database,
    ):
        database.execute("PRAGMA writable_schema = ON")  # else SQLite reads nothing of a file that is too short
        yield from database.execute("SELECT variant, count, reported FROM DROPPED").fetchall()


def _remove(path: str) -> None:
    for suffix in _SUFFIXES:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path + suffix)


def _move(path: str, other: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.rename(path, other)
