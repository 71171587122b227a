"""What is in the queue: the statements by which messages come, go and are counted. Each takes an open connection.

Not what drops them for lack of room (`bounds`), nor what is left of a damaged file (`salvage`).
"""

import itertools
import json
import sqlite3
from collections.abc import Iterable

from ivy.utils.storage import errors
from ivy.utils.storage.schema import IS_INDEXED

LARGEST_EXACT_LENGTH = 10_000
"""Up to here, `length` is exact."""

NONE = {"data": 0, "log": 0, "config": 0}
"""How many messages of each variant an empty queue has."""


def insert(connection: sqlite3.Connection, row: tuple[float, str]) -> None:
    """Add a message: timestamp and body."""
    connection.execute("INSERT INTO QUEUE (timestamp, message_body) VALUES (?, ?)", row)


def newest(connection: sqlite3.Connection, n: int, excluded: Iterable[int]) -> list[tuple[int, float, str]]:
    """The newest first. Removing a row whose number stands twice (a page is damaged) would remove the other one."""
    rows = connection.execute(
        "SELECT internal_id, timestamp, message_body FROM QUEUE"
        " WHERE internal_id NOT IN (SELECT value FROM json_each(?)) ORDER BY internal_id DESC LIMIT ?",
        (json.dumps(list(excluded)), n),
    ).fetchall()
    if any(newer[0] <= older[0] for newer, older in itertools.pairwise(rows)):
        raise errors.damage("rows are out of order")
    return rows


def remove(connection: sqlite3.Connection, identifiers: list[int]) -> None:
    """Remove messages. Rows that are listed but not found (a page is damaged) would be sent for ever."""
    wanted = "(SELECT value FROM json_each(?))"
    listed = json.dumps(identifiers)
    found = connection.execute(f"DELETE FROM QUEUE WHERE internal_id IN {wanted}", (listed,)).rowcount
    if found < len(identifiers):
        # As many as may be on their way.
        latest = "(SELECT internal_id FROM QUEUE ORDER BY internal_id DESC LIMIT 10000)"
        if connection.execute(f"SELECT 1 FROM {latest} WHERE +internal_id IN {wanted}", (listed,)).fetchone():
            raise errors.damage("rows are listed but not found")


def length(connection: sqlite3.Connection) -> int:
    """How many messages there are; beyond `LARGEST_EXACT_LENGTH`, how many at most."""
    [few] = connection.execute(
        "SELECT COUNT(*) FROM (SELECT 1 FROM QUEUE LIMIT ?)", (LARGEST_EXACT_LENGTH,)
    ).fetchone()
    if few < LARGEST_EXACT_LENGTH:
        return int(few)
    # Counting reads the whole table. But it shrinks at its ends, mostly.
    [most] = connection.execute(
        "SELECT (SELECT MAX(internal_id) FROM QUEUE) - (SELECT MIN(internal_id) FROM QUEUE) + 1"
    ).fetchone()
    return int(most or 0)


def oldest_timestamp(connection: sqlite3.Connection) -> float | None:
    """The timestamp, whatever it is, of the message that has waited longest; None if the queue is empty."""
    row = connection.execute("SELECT CAST(timestamp AS REAL) FROM QUEUE ORDER BY internal_id LIMIT 1").fetchone()
    return (row[0] or 0.0) if row else None


def waiting(connection: sqlite3.Connection) -> dict[str, int]:
    """How many messages of each variant there are; of data, at most so many where `length` is not exact."""
    # What has no index need not be counted.
    others = dict(connection.execute(f"SELECT variant, COUNT(*) FROM QUEUE WHERE {IS_INDEXED} GROUP BY variant"))
    logs, configs = others.get("log", 0), others.get("config", 0)
    return {"data": max(0, length(connection) - logs - configs), "log": logs, "config": configs}


def dropped(connection: sqlite3.Connection) -> dict[str, int]:
    """How many messages of each variant ever left the queue without having been sent."""
    counts = dict(connection.execute("SELECT variant, count FROM DROPPED"))
    return {variant: counts.get(variant, 0) for variant in NONE}


def dropped_since_report(connection: sqlite3.Connection) -> dict[str, int]:
    """How many of those nobody was told of; no variant of which there are none."""
    return dict(connection.execute("SELECT variant, count - reported FROM DROPPED WHERE count > reported"))


def note_report(connection: sqlite3.Connection, counts: dict[str, int]) -> None:
    """The operator was told of so many."""
    connection.executemany(
        "UPDATE DROPPED SET reported = reported + ? WHERE variant = ?",
        [(count, variant) for variant, count in counts.items()],
    )
