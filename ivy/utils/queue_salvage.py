"""Replaces a damaged queue by a new one with all that can be read. The caller holds the lock on the queue's path.

Killed at any instant, the next process that opens the queue goes on where this one stopped.
"""

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
from ivy.utils import journal, notify, page_scan, queue_errors, queue_schema
from ivy.utils.queue_database import salvaging_path

_SUFFIXES = ("", "-wal", "-shm")
_ROWS_AT_ONCE = 1000
_BATCHES_BETWEEN_SYNCS = 20
# Where the newest rows rotted, SQLite gives new ones a number that is taken, or one without sense.
_INSERT = """INSERT OR IGNORE INTO QUEUE
    SELECT ?1, ?2, CAST(?3 AS TEXT) WHERE ?1 BETWEEN 1 AND 1 << 48"""
_KEEP_IF_HOMELESS = """INSERT INTO HOMELESS
    SELECT ?2, ?3 WHERE NOT EXISTS (SELECT 1 FROM QUEUE WHERE internal_id = ?1 AND timestamp = ?2)"""
_GIVE_HOMES = """INSERT INTO QUEUE
    SELECT ? + row_number() OVER (ORDER BY timestamp), timestamp, CAST(message_body AS TEXT)
    FROM (SELECT DISTINCT timestamp, message_body FROM HOMELESS)"""
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
        _move(path + suffix, salvaging_path(path) + suffix)


def finish(path: str, reason: str) -> None:
    """Make a new database of the one that was moved aside, which is kept under a name of its own.

    Args:
        path: Where the new one will stand.
        reason: What was wrong with the old one.

    Raises:
        OSError, sqlite3.Error: The new one cannot be written; to be tried again.
    """
    old, new = salvaging_path(path), f"{path}.salvaged"
    kept = _unused_name(path)
    if not os.path.exists(path):
        for suffix in _SUFFIXES[1:]:  # where `begin` was interrupted
            _move(path + suffix, old + suffix)
        count = _copy_or_give_up(old, new, f"{reason}; the damaged file is {kept}")
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


def _copy_or_give_up(old: str, new: str, details: str) -> int:
    """Copy all rows into a new file; none if that fails by more than the disk: it would fail at every start."""
    try:
        return _copy(old, new, _rows(old), details)
    except Exception as error:
        if queue_errors.is_disk_trouble(error):
            raise
        journal.send("ERROR", f"{old} cannot be read: going on with an empty queue", details=repr(error))
        return _copy(old, new, iter(()), f"{details}; it could not be read: {error!r}")


def _copy(old: str, new: str, rows: Iterator[page_scan.Row], details: str) -> int:
    """Copy rows into a new file, which is left only if it is whole. Returns their number."""
    try:
        return _fill(old, new, rows, details)
    except BaseException:
        _remove(new)
        raise


def _fill(old: str, new: str, rows: Iterator[page_scan.Row], details: str) -> int:
    _remove(new)
    os.close(files.open_shared(new))
    database = queue_schema.connect(new, timeout=0)
    try:
        database.execute("PRAGMA synchronous = OFF")  # nobody knows this file yet: it is synced as a whole
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
        _report(database, f"{count} messages salvaged", details)
        # Without a log of its own, it is whole by itself.
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    finally:
        database.close()
    files.sync(Path(new))
    return count


def _report(database: sqlite3.Connection, result: str, details: str) -> None:
    subject = f"queue - ERROR - The message queue was damaged: {result}"
    body = LogMessageBody(level="ERROR", subject=subject, body=details).model_dump_json()
    database.execute("INSERT INTO QUEUE VALUES (?, ?, ?)", (_last(database) + _GAP, time.time(), body))


def _last(database: sqlite3.Connection) -> int:
    [[last]] = database.execute("SELECT COALESCE(MAX(internal_id), 0) FROM QUEUE")
    return int(last)


def _rows(old: str) -> Iterator[page_scan.Row]:
    for row in page_scan.rows(old):
        if row is None:
            notify.heartbeat()
        else:
            yield row


def _dropped(old: str) -> Iterator[tuple[str, int, int]]:
    """What was counted in the old file, if it can be read."""
    with (
        contextlib.suppress(sqlite3.Error, UnicodeDecodeError),
        contextlib.closing(_open_read_only(old)) as database,
    ):
        yield from database.execute("SELECT variant, count, reported FROM DROPPED").fetchall()


def _open_read_only(path: str) -> sqlite3.Connection:
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    database.execute("PRAGMA writable_schema = ON")  # else SQLite reads nothing of a file that is too short
    return database


def _remove(path: str) -> None:
    for suffix in _SUFFIXES:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path + suffix)


def _move(path: str, other: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.rename(path, other)
