"""What is in the queue: the statements by which messages come, go and are counted. Each takes an open connection.

Not what drops them for lack of room (`bounds`), nor what is left of a damaged file (`salvage`).
"""

import itertools
import json
import math
import sqlite3
from collections.abc import Collection, Iterable

from ivy.utils.storage import errors, set_aside
from ivy.utils.storage.schema import IS_INDEXED

LARGEST_EXACT_LENGTH = 10_000
"""Up to here, `length` is exact."""

FIRST_FOREIGN = 1 << 60
"""From here on a number is of no row, but of a message that is sent again from the archive."""

MOST_TIMES = 2000
"""Of so many messages that bring their own times these are known: the latest ones."""

_TIME = "time "
"""What a key begins with that is such a time, in milliseconds."""

NONE = {"data": 0, "log": 0, "config": 0}
"""How many messages of each variant an empty queue has."""


# Whatever somebody has written there.
_MARK = "CAST(COALESCE((SELECT number FROM MARKS WHERE name = ?), 0) AS INTEGER)"
_ARCHIVED = _MARK.replace("?", "'archived'")
_INSERT = (
    "INSERT INTO QUEUE (internal_id, timestamp, message_body)"
    f" SELECT 1 + MAX(?, COALESCE((SELECT MAX(internal_id) FROM QUEUE), 0), {_ARCHIVED}), ?, ?"
)
_INSERT_WHERE_FREE = f"{_INSERT} WHERE NOT EXISTS (SELECT 1 FROM ONCE WHERE key = ?)"
_PUT = "INSERT OR IGNORE INTO QUEUE (internal_id, timestamp, message_body) VALUES (?, ?, CAST(? AS TEXT))"


def insert(connection: sqlite3.Connection, last: int, timestamp: float, body: str) -> int:
    """Add a message. Returns its number, that was given to no other one.

    Args:
        last: The largest number that is known to have been given.
    """
    return int(connection.execute(_INSERT, (last, timestamp, body)).lastrowid or 0)


def insert_where_free(connection: sqlite3.Connection, last: int, timestamp: float, body: str) -> int | None:
    """As `insert`, but not where a message has this millisecond that brought its own time: None then."""
    cursor = connection.execute(_INSERT_WHERE_FREE, (last, timestamp, body, f"{_TIME}{round(timestamp * 1000)}"))
    return cursor.lastrowid if cursor.rowcount else None


def is_first(connection: sqlite3.Connection, key: str) -> bool:
    """Whether something is done for the first time under this key; from now on it is not."""
    return connection.execute("INSERT OR IGNORE INTO ONCE VALUES (?)", (key,)).rowcount > 0


def take_time(connection: sqlite3.Connection, timestamp: float, last: Collection[int]) -> float:
    """Let a message that brings its own time have it, or the next millisecond that no other such message has.

    Args:
        timestamp: Its Unix time in seconds.
        last: The milliseconds of those that came last by the clock.
    """
    millisecond = round(timestamp * 1000)
    while millisecond in last or not is_first(connection, f"{_TIME}{millisecond}"):
        millisecond += 1
        timestamp = millisecond / 1000
    connection.execute(
        "DELETE FROM ONCE WHERE key GLOB ?1 AND key <="
        " (SELECT key FROM ONCE WHERE key GLOB ?1 ORDER BY key DESC LIMIT 1 OFFSET ?2)",
        (f"{_TIME}*", MOST_TIMES),
    )
    return timestamp


def is_taken(connection: sqlite3.Connection, millisecond: int) -> bool:
    """Whether a message has this millisecond that brought its own time."""
    statement = "SELECT 1 FROM ONCE WHERE key = ?"
    return connection.execute(statement, (f"{_TIME}{millisecond}",)).fetchone() is not None


def archived(connection: sqlite3.Connection) -> int:
    """The number up to which messages stand in the archive, durably."""
    return mark(connection, "archived")


def note_archived(connection: sqlite3.Connection, number: int) -> None:
    """All up to this number stand in the archive, durably."""
    if number > archived(connection):
        set_mark(connection, "archived", number)


def mark(connection: sqlite3.Connection, name: str) -> int:
    """A number that was kept; 0 if none was."""
    return int(connection.execute(f"SELECT {_MARK}", (name,)).fetchone()[0])


def set_mark(connection: sqlite3.Connection, name: str, number: int) -> None:
    """Keep a number."""
    connection.execute("INSERT OR REPLACE INTO MARKS VALUES (?, ?)", (name, number))


def forget_marks(connection: sqlite3.Connection) -> None:
    """Forget all marks but how far the archive is durable."""
    connection.execute("DELETE FROM MARKS WHERE name <> 'archived'")


def put_back(connection: sqlite3.Connection, rows: Iterable[tuple[int, float, bytes]]) -> None:
    """Insert rows of a damaged queue (number, timestamp, body) where they were; as the newest, if that is taken.

    Where the newest rows rotted, SQLite gave new ones a number that was taken, or one without sense.
    """
    for identifier, timestamp, body in rows:
        if (
            0 < identifier <= archived(connection)
            and connection.execute(_PUT, (identifier, timestamp, body)).rowcount
        ):
            continue
        text = body.decode(errors="replace")
        insert(connection, 0, timestamp, text)


def following(connection: sqlite3.Connection, number: int, n: int) -> list[tuple[int, float, str]]:
    """The `n` oldest messages beyond a number: number, timestamp and body."""
    return connection.execute(
        "SELECT internal_id, COALESCE(CAST(timestamp AS REAL), 0.0), CAST(message_body AS TEXT) FROM QUEUE"
        " WHERE internal_id > ? AND message_body IS NOT NULL ORDER BY internal_id LIMIT ?",
        (number, n),
    ).fetchall()


def size_of_following(connection: sqlite3.Connection, number: int) -> int:
    """How many characters all messages beyond a number have."""
    statement = "SELECT COALESCE(SUM(LENGTH(message_body)), 0) FROM QUEUE WHERE internal_id > ?"
    return int(connection.execute(statement, (number,)).fetchone()[0])


def not_archived(connection: sqlite3.Connection) -> int:
    """How many messages the archive has not durably."""
    return int(connection.execute(f"SELECT COUNT(*) FROM QUEUE WHERE internal_id > {_ARCHIVED}").fetchone()[0])


def count(connection: sqlite3.Connection, after: int, last: int) -> int:
    """How many messages there are in a range of numbers."""
    statement = "SELECT COUNT(*) FROM QUEUE WHERE internal_id BETWEEN ? AND ?"
    return int(connection.execute(statement, (after + 1, last)).fetchone()[0])


def days(connection: sqlite3.Connection, after: int, last: int) -> list[int]:
    """The days of some messages, in days since 1970."""
    statement = "SELECT DISTINCT CAST(timestamp / 86400 AS INTEGER) FROM QUEUE WHERE internal_id BETWEEN ? AND ?"
    return [day or 0 for [day] in connection.execute(statement, (after + 1, last))]


def newest(
    connection: sqlite3.Connection,
    n: int,
    excluded: Iterable[int],
    most_bytes: float = math.inf,
    held_back: Collection[str] = (),
) -> list[tuple[int, float, str]]:
    """The newest first, as many as have so many bytes together; one in any case.

    Args:
        n: How many, at most.
        excluded: Numbers of those that are not wanted.
        most_bytes: See above.
        held_back: The variants of which none is wanted.
    """
    without = json.dumps(list(excluded))
    found = [_newest(connection, condition, n, without, most_bytes) for condition in _wanted(held_back)]
    rows = found[0] if len(found) == 1 else sorted(itertools.chain(*found), reverse=True)[:n]
    size = itertools.accumulate(len(str(row[2])) for row in rows)
    return [
        row for number, (row, total) in enumerate(zip(rows, size, strict=True)) if not number or total <= most_bytes
    ]


def _wanted(held_back: Collection[str]) -> list[str]:
    """Conditions for rows that are wanted; one for each variant that SQLite finds by the index."""
    if "data" in held_back:
        return [f"{IS_INDEXED} AND variant = '{few}'" for few in ("log", "config") if few not in held_back]
    return [" AND ".join(["TRUE", *(f"variant IS NOT '{few}'" for few in sorted(held_back))])]


def _newest(
    connection: sqlite3.Connection, condition: str, n: int, excluded: str, most_bytes: float
) -> list[tuple[int, float, str]]:
    """Removing by a number that stands twice, or is no row's (a page is damaged), would remove another message."""
    found = connection.execute(
        f"SELECT internal_id, timestamp, message_body FROM QUEUE WHERE {condition}"
        " AND internal_id NOT IN (SELECT value FROM json_each(?)) ORDER BY internal_id DESC LIMIT ?",
        (excluded, n),
    )
    rows: list[tuple[int, float, str]] = []
    size = 0
    for row in found:
        size += len(str(row[2]))
        if rows and size > most_bytes:
            break
        rows.append(row)
    found.close()  # else what was not read stays locked
    if any(newer[0] <= older[0] for newer, older in itertools.pairwise(rows)):
        raise errors.damage("rows are out of order")
    if rows and not 0 < rows[-1][0] <= rows[0][0] < FIRST_FOREIGN:
        raise errors.damage("rows have numbers that none was given")
    return rows


def remove(connection: sqlite3.Connection, identifiers: list[int]) -> None:
    """Remove messages, also such as were set aside.

    Rows that are listed but not found (a page is damaged) would be sent for ever.
    """
    wanted = "(SELECT value FROM json_each(?))"
    listed = json.dumps(identifiers)
    found = connection.execute(f"DELETE FROM QUEUE WHERE internal_id IN {wanted}", (listed,)).rowcount
    if found < len(identifiers) and found + set_aside.remove(connection, identifiers) < len(identifiers):
        # As many as may be on their way.
        latest = "(SELECT internal_id FROM QUEUE ORDER BY internal_id DESC LIMIT 10000)"
        if connection.execute(f"SELECT 1 FROM {latest} WHERE +internal_id IN {wanted}", (listed,)).fetchone():
            raise errors.damage("rows are listed but not found")


def chosen(connection: sqlite3.Connection, identifiers: Iterable[int]) -> list[tuple[int, float, str]]:
    """Some messages, also such as were set aside, the oldest first; without those that there are not."""
    return connection.execute(
        "SELECT internal_id, timestamp, message_body FROM ("
        "SELECT internal_id, timestamp, message_body FROM QUEUE"
        " UNION ALL SELECT internal_id, timestamp, message_body FROM POISON)"
        " WHERE internal_id IN (SELECT value FROM json_each(?)) ORDER BY internal_id",
        (json.dumps(list(identifiers)),),
    ).fetchall()


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
    """How many messages of each variant ever left the queue without having been sent.

    And how many the archive lost, and how many were given up, as no broker took them.
    """
    counts = dict(connection.execute("SELECT variant, count FROM DROPPED"))
    return {variant: counts.get(variant, 0) for variant in (*NONE, "archive", set_aside.GIVEN_UP)}


def dropped_since_report(connection: sqlite3.Connection) -> dict[str, int]:
    """How many of those nobody was told of; no variant of which there are none."""
    return dict(connection.execute("SELECT variant, count - reported FROM DROPPED WHERE count > reported"))


def note_report(connection: sqlite3.Connection, counts: dict[str, int]) -> None:
    """The operator was told of so many."""
    connection.executemany(
        "UPDATE DROPPED SET reported = reported + ? WHERE variant = ?",
        [(count, variant) for variant, count in counts.items()],
    )


def variant_of(body: str) -> str:
    """The variant of a message's body as JSON, without parsing it."""
    return body[len('{"variant":"') :].partition('"')[0]
