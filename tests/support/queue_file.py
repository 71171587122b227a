"""The file of the queue, opened by somebody else: for tests that look into it, or plant what no service would."""

import contextlib
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ivy.utils.messaging_agent import ACTIVE_QUEUE_FILE

QUEUE = Path(ACTIVE_QUEUE_FILE)


def execute(statement: str, parameters: tuple[Any, ...] = ()) -> list[Any]:
    """Run a statement on a connection of its own."""
    with contextlib.closing(sqlite3.connect(QUEUE, isolation_level=None)) as database:
        return database.execute(statement, parameters).fetchall()


def plant(rows: Iterable[tuple[int | None, float, str | bytes]]) -> None:
    """Add rows at once: identifier (or None for the next one), timestamp, body."""
    with contextlib.closing(sqlite3.connect(QUEUE)) as database, database:
        database.executemany("INSERT INTO QUEUE (internal_id, timestamp, message_body) VALUES (?, ?, ?)", rows)
        count_as_archived(database)


def count_as_archived(database: sqlite3.Connection) -> None:
    """What was planted does not come into the archive, too."""
    if database.execute("SELECT 1 FROM sqlite_schema WHERE name = 'MARKS'").fetchall():
        database.execute("UPDATE MARKS SET number = (SELECT COALESCE(MAX(internal_id), 0) FROM QUEUE)")


def make_predecessors() -> None:
    """Make a queue, if there is none, as the predecessor does."""
    execute(
        "CREATE TABLE IF NOT EXISTS QUEUE (internal_id INTEGER PRIMARY KEY AUTOINCREMENT,"
        " timestamp DOUBLE NOT NULL, message_body TEXT NOT NULL)"
    )


def checkpoint() -> None:
    """Move all from the write-ahead log into the file itself."""
    execute("PRAGMA wal_checkpoint(TRUNCATE)")


def rot(old: bytes, new: bytes) -> None:
    """Overwrite some bytes of the file, which nobody has open."""
    content = QUEUE.read_bytes()
    assert content.count(old) == 1 and len(old) == len(new)
    QUEUE.write_bytes(content.replace(old, new))
