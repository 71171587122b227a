"""The spare queue: where messages wait, in memory, while the data directory takes none.

The queue's schema and class, on a file system that a boot empties, so that a process that is restarted loses
nothing. Bounded. What the backend sends from here comes into the archive when the disk takes messages again.
"""

import contextlib
import json
import os
import sqlite3
from collections.abc import Collection, Iterable
from functools import partial

from ivy import files
from ivy.utils.host import clock, mounts
from ivy.utils.host.locks import file_lock
from ivy.utils.storage import bounds, contents, schema
from ivy.utils.storage.database import QueueDatabase
from ivy.utils.storage.store import Returned, Row, Store
from ivy.utils.storage.turns import own_millisecond

MOST_BYTES = 16_000_000
"""How large it may become; or a tenth of what is free, if that is less."""

_LEAST_BYTES = 1_000_000
_ROW = 50
"""Bytes that a message takes up beside its body."""
_SHARE_BETWEEN_LOOKS = 10
"""After what part of its room a process looks how large it is."""

MOST_REMEMBERED = 20_000
"""How many of those that went to the queue are known by both numbers: more than a backend has on its way."""

_ROWS_AT_ONCE = 200
_TABLES = (
    # What was sent from here, for the archive.
    "CREATE TABLE IF NOT EXISTS DELIVERED (internal_id INTEGER PRIMARY KEY,"
    " timestamp DOUBLE NOT NULL, message_body TEXT NOT NULL)",
    # What went to the queue, with the number that it has there: a backend may have it on its way.
    "CREATE TABLE IF NOT EXISTS MOVED (internal_id INTEGER PRIMARY KEY, number INTEGER NOT NULL)",
)
_ALL = (
    "SELECT internal_id, timestamp, message_body, 1 AS is_delivered FROM DELIVERED"
    " UNION ALL SELECT internal_id, timestamp, message_body, 0 FROM QUEUE"
)
_LAST_MILLISECOND = "millisecond"
"""The mark of the message that came last by the clock."""
_AMONG = "internal_id IN (SELECT value FROM json_each(?))"


class SpareQueue:
    """All of it. Whatever asks or changes it raises `sqlite3.Error` or `OSError` where that cannot be done."""

    def __init__(self, path: str) -> None:
        """Nothing is made before it is needed."""
        self._path = path
        self._database = QueueDatabase(path, spare_tables=_TABLES)
        self._bytes_until_look = 0
        self._moved: list[tuple[int, int]] = []  # what is not forgotten yet: numbers here and there

    def exists(self) -> bool:
        """Whether it was needed since the boot."""
        return os.path.lexists(self._path)

    def put(self, row: Row, latest: int, has_own_time: bool = False) -> None:
        """Add a message; where there is no room left, others go.

        Args:
            row: The message.
            latest: The millisecond of the last one in the queue.
            has_own_time: See `Store.add`.
        """
        if self._bytes_until_look <= 0:
            self._bytes_until_look = self._keep_bounds() // _SHARE_BETWEEN_LOOKS
        self._bytes_until_look -= len(row[1]) + _ROW
        self._database.transaction(partial(_insert, row=row, latest=latest, has_own_time=has_own_time))

    def length(self) -> int:
        """How many messages wait to be sent."""
        return self._database.run(contents.length) if self.exists() else 0

    def holds_any(self) -> bool:
        """Whether there is anything for queue or archive."""
        return self.exists() and bool(self._database.run(partial(_oldest, n=1)))

    def oldest_timestamp(self) -> float | None:
        """The time of what has waited longest to be sent."""
        return self._database.run(contents.oldest_timestamp) if self.exists() else None

    def newest(
        self, n: int, excluded: Iterable[int], most_bytes: float, held_back: Collection[str] = ()
    ) -> list[tuple[int, float, str]]:
        """As `contents.newest`."""
        return self._database.run(
            lambda connection: contents.newest(connection, n, excluded, most_bytes, held_back)
        )

    def chosen(self, identifiers: Iterable[int]) -> list[tuple[int, float, str]]:
        """As `contents.chosen`."""
        return self._database.run(lambda connection: contents.chosen(connection, identifiers))

    def deliver(self, identifiers: Collection[int]) -> None:
        """These were sent: what is left to do is their archive."""
        listed = json.dumps(list(identifiers))

        def deliver(connection: sqlite3.Connection) -> None:
            connection.execute(f"INSERT OR IGNORE INTO DELIVERED {_COLUMNS} WHERE {_AMONG}", (listed,))
            connection.execute(f"DELETE FROM QUEUE WHERE {_AMONG}", (listed,))

        self._database.transaction(deliver)

    def moved(self, identifiers: Collection[int]) -> set[int]:
        """The numbers that some of these have in the queue now."""
        statement = f"SELECT number FROM MOVED WHERE {_AMONG}"
        return {number for [number] in self._database.execute(statement, (json.dumps(list(identifiers)),))}

    def move_back(self, store: Store, most: int) -> int:
        """Move the oldest to queue and archive, in order; killed in between, some of them come twice.

        Returns: How many were moved; none where another process is at it.
        """
        count = 0
        with contextlib.ExitStack() as stack:
            stack.enter_context(files.as_owner_of(os.path.dirname(self._path)))
            try:
                stack.enter_context(file_lock(f"{self._path}.moving", 0))
            except TimeoutError:
                return 0
            self._forget_moved()  # where memory was full, so that they do not come again and again
            while count < most and (rows := self._database.run(partial(_oldest, n=_ROWS_AT_ONCE))):
                returned = self._database.run(partial(_returned, rows=rows))
                numbers = store.take_back(returned)
                self._moved = [(row[0], number) for row, number in zip(rows, numbers, strict=True)]
                count += len(rows)
                self._forget_moved()
        return count

    def _forget_moved(self) -> None:
        if self._moved:
            self._database.transaction(partial(_forget, moved=self._moved))
            self._moved = []

    def take_dropped(self) -> dict[str, int]:
        """How many messages were dropped for lack of room, by variant, since this was asked last."""
        if not self.exists():
            return {}

        def take(connection: sqlite3.Connection) -> dict[str, int]:
            found = dict(connection.execute("SELECT variant, count FROM DROPPED").fetchall())
            if found:
                connection.execute("DELETE FROM DROPPED")
            return found

        return self._database.transaction(take)

    def close(self) -> None:
        """Close it."""
        self._database.close()

    def _keep_bounds(self) -> int:
        """Drop messages where it is too large. Returns how large it may be."""
        used = bounds.measure(self._database).used
        free = mounts.disk(os.path.dirname(self._path)).free_bytes
        most = min(MOST_BYTES, max(_LEAST_BYTES, (free + used) // 10))
        while bounds.measure(self._database).used > most and self._database.transaction(_drop):
            pass
        return most


_COLUMNS = "SELECT internal_id, timestamp, message_body FROM QUEUE"


def _insert(connection: sqlite3.Connection, row: Row, latest: int, has_own_time: bool) -> None:
    last = contents.mark(connection, _LAST_MILLISECOND)
    if has_own_time:
        timestamp = contents.take_time(connection, row[0], (latest, last))
    else:
        timestamp = own_millisecond(own_millisecond(row[0], latest), last)
        while contents.is_taken(connection, round(timestamp * 1000)):
            timestamp += 0.001
        contents.set_mark(connection, _LAST_MILLISECOND, round(timestamp * 1000))
    number = contents.insert(connection, 0, timestamp, row[1])
    contents.note_archived(connection, number)  # none is given again, whatever becomes of the row


def _returned(connection: sqlite3.Connection, rows: list[tuple[int, float, str, int]]) -> list[Returned]:
    return [
        Returned(
            timestamp, body, bool(sent), contents.is_taken(connection, round(clock.or_epoch(timestamp) * 1000))
        )
        for _, timestamp, body, sent in rows
    ]


def _oldest(connection: sqlite3.Connection, n: int) -> list[tuple[int, float, str, int]]:
    return connection.execute(f"SELECT * FROM ({_ALL}) ORDER BY internal_id LIMIT ?", (n,)).fetchall()


def _forget(connection: sqlite3.Connection, moved: list[tuple[int, int]]) -> None:
    connection.executemany("INSERT OR REPLACE INTO MOVED VALUES (?, ?)", [pair for pair in moved if pair[1]])
    oldest = "(SELECT MAX(internal_id) FROM MOVED) - ?"
    connection.execute(f"DELETE FROM MOVED WHERE internal_id <= {oldest}", (MOST_REMEMBERED,))
    listed = json.dumps([identifier for identifier, _ in moved])
    for table in ("DELIVERED", "QUEUE"):
        connection.execute(f"DELETE FROM {table} WHERE {_AMONG}", (listed,))


def _drop(connection: sqlite3.Connection) -> int:
    """Drop some of the oldest: first logs, then what the platform has, then data. Returns how many."""
    for table, condition in (
        ("DELIVERED", f"{schema.VARIANT} = 'log'"),
        ("QUEUE", bounds.ORDER["log"]),
        ("DELIVERED", "TRUE"),
        ("QUEUE", "TRUE"),
    ):
        rows = connection.execute(
            f"DELETE FROM {table} WHERE internal_id IN"
            f" (SELECT internal_id FROM {table} WHERE {condition} ORDER BY internal_id LIMIT ?)"
            f" RETURNING {schema.VARIANT}",
            (_ROWS_AT_ONCE,),
        ).fetchall()
        for [variant] in rows:
            lost = {"archive": 1} if table == "DELIVERED" else {"archive": 1, str(variant): 1}
            schema.count_dropped(connection, lost)
        if rows:
            return len(rows)
    return 0
