"""Keeps the queue within its bounds: bytes, and room on the disk. Whoever is not in a hurry calls it now and then.

When the queue is full, logs go before data, and configs last; of each, the oldest first. The newest row always
stays: its number must not be given to another while a backend has it on its way.
Where the database can be neither read nor written, `sqlite3.Error` or `OSError` is raised.
"""

import sqlite3
from dataclasses import dataclass

from ivy.types.config import QueueConfig
from ivy.utils import notify
from ivy.utils.storage import contents, schema
from ivy.utils.storage.database import QueueDatabase
from ivy.utils.storage.schema import IS_INDEXED

_ROWS_AT_ONCE = 200  # other processes wait meanwhile
_SLACK = 1_000_000
"""Bytes that a full queue has free for what comes until the next time."""
_LEAST = 16_000_000
"""Bytes up to which the queue may grow into the room that it should leave free, half of what is left at most."""
_LITTLE = 1_000_000
"""Bytes that the queue may have anyhow: dropping so few messages makes no room for more than wait in memory."""
LONG = 16_000_000
"""Bytes of a queue, of 1.0 say, that gets its index only when it must lose messages: reading it takes seconds."""
_MOST_UNUSED = 4_000_000
"""Bytes that the file may keep for later; what is more is given back to the disk when the queue is short."""

ORDER = {
    "log": f"{IS_INDEXED} AND variant = 'log'",
    "data": "variant IS NOT 'log' AND variant IS NOT 'config'",  # and what no backend will understand
    "config": f"{IS_INDEXED} AND variant = 'config'",
}


@dataclass(frozen=True)
class Size:
    """Bytes of the queue's file and its write-ahead log, and how many of them hold messages."""

    file: int
    used: int
    log: int = 0


def measure(database: QueueDatabase) -> Size:
    """Ask how large the queue is."""
    [[page], [count], [unused]] = (
        database.execute(f"PRAGMA {name}")[0] for name in ("page_size", "page_count", "freelist_count")
    )
    log = database.size_of_log()
    return Size(file=page * count + log, used=page * (count - unused), log=log)


def limit(config: QueueConfig, size: Size, free: int) -> int:
    """The bytes that the queue's file may have.

    It does not grow into the room that it should leave free, but for a first few megabytes; nor does it shrink when
    others take that room: what is queued here would be lost for nothing. A small one drops nothing for their sake.

    Args:
        free: The bytes that are free on the disk.
    """
    growth = max(0, free - 1_000_000 * config.min_free_megabytes, min(free // 2, _LEAST - size.file))
    return min(1_000_000 * config.max_megabytes, max(_LITTLE, size.file + growth))


def enforce(config: QueueConfig, database: QueueDatabase, free: int) -> dict[str, int]:
    """Drop messages if the queue is larger than it may be, and give room that it does not need back to the disk.

    Args:
        free: The bytes that are free on the disk.

    Returns: How many messages of each variant were dropped.
    """
    if database.size_of_log() > schema.LARGEST_LOG:
        database.run(_write_log_back)
    size = measure(database)
    most = limit(config, size, free)
    # Where a reader stands still, dropping makes the log no smaller: no more than a half goes for that.
    too_long = max(0, size.log - schema.LARGEST_LOG)
    aim = max(most - min(_SLACK, most // 4) - too_long, most // 2)
    dropped: dict[str, int] = {}
    if size.used > aim or size.used < LONG:
        database.run(schema.make_index)
    for variant, condition in ORDER.items():
        while measure(database).used > aim and (count := _drop(database, variant, condition)):
            dropped[variant] = dropped.get(variant, 0) + count
            notify.heartbeat()
    _shrink(database)
    return dropped


def _drop(database: QueueDatabase, variant: str, condition: str) -> int:
    """Drop and count some of the oldest messages of a variant."""

    def work(connection: sqlite3.Connection) -> int:
        numbers = connection.execute(
            "DELETE FROM QUEUE WHERE internal_id IN (SELECT internal_id FROM QUEUE"
            f" WHERE {condition} AND internal_id < (SELECT MAX(internal_id) FROM QUEUE)"
            " ORDER BY internal_id LIMIT ?) RETURNING internal_id",
            (_ROWS_AT_ONCE,),
        ).fetchall()
        archived = contents.archived(connection)  # the others' lines may never come, or a power cut takes them
        lost = sum(number > archived for [number] in numbers)
        schema.count_dropped(connection, {variant: len(numbers), "archive": lost})
        return len(numbers)

    return database.transaction(work)


def _shrink(database: QueueDatabase) -> None:
    """Return unused pages to the disk, where little is left to be copied: that takes milliseconds."""
    size = measure(database)
    if size.used > _LITTLE or size.file - size.used <= _MOST_UNUSED:
        return

    def vacuum(connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA auto_vacuum = NONE")  # a file of before 1.1 has it
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.execute("VACUUM")
        _write_log_back(connection)

    database.run(vacuum)


def _write_log_back(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
