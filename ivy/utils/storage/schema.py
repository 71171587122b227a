"""The tables of the queue's database, and how it is opened. What is done with them stands elsewhere.

`QUEUE` is the predecessor's and stays readable by it.
"""

import errno
import mmap
import os
import sqlite3
import stat
from collections.abc import Sequence

from ivy.utils import notify
from ivy.utils.host import mounts
from ivy.utils.storage import errors

FILE_SUFFIXES = ("", "-wal", "-shm", "-journal")
"""What SQLite has beside a database, and the database itself."""

_COLUMNS = {
    "QUEUE": {"internal_id", "timestamp", "message_body"},
    "DROPPED": {"variant", "count", "reported"},
    "ONCE": {"key"},
    "MARKS": {"name", "number"},
    "POISON": {"internal_id", "timestamp", "message_body", "reason", "tries", "next_try"},
}
# Views, triggers and virtual tables have no page. What they do has perhaps no end; and none of them is ours.
_IS_FOREIGN = "type NOT IN ('table', 'index') OR COALESCE(rootpage, 0) < 1"

VARIANT = "CASE WHEN json_valid(message_body) THEN json_extract(message_body, '$.variant') END"
"""The variant of a message; NULL if its body rotted, as json_extract() fails over what is not valid JSON."""

IS_INDEXED = "variant IN ('log', 'config')"
"""What a condition must contain for SQLite to look into the index only. Not `<> 'data'`: that becomes true of a
sample that rots, and SQLite calls it damage that such a row is not in the index."""

PAGE_SIZE = 1024
"""Bytes of a page. Each message makes SQLite write one or more, and samples are far smaller than the usual 4096."""

LARGEST_LOG = 1_100_000
"""Bytes of the write-ahead log that stay once it was written back, which SQLite does after 1000 pages."""


def room_to_open(memory_page: int) -> int:
    """Bytes that must be free, most of them for the file `-shm`, by which processes find their way in the log.

    SQLite makes it 32 KiB, or one page of memory where these are larger, as on some 64-bit ARMs.
    """
    return max(32_768, memory_page) + 16_384


ROOM_TO_OPEN = room_to_open(mmap.PAGESIZE)

SYNCED = "PRAGMA synchronous = FULL"
UNSYNCED = "PRAGMA synchronous = NORMAL"
"""In WAL mode: a power cut may undo the last commits, all from one of them on, and damages nothing."""
_SETTINGS = (
    # For a new file only, and before its first table. No auto_vacuum: it gives back page after page, each time
    # looking through all that are free, for minutes after a long outage.
    f"PRAGMA page_size = {PAGE_SIZE}",
    "PRAGMA auto_vacuum = NONE",
    "PRAGMA journal_mode = WAL",
    f"PRAGMA journal_size_limit = {LARGEST_LOG}",  # a reader that stands still makes it grow
    "PRAGMA cache_size = -256",  # KiB; the default of 2 MiB buys nothing at both ends of a table
    "PRAGMA secure_delete = ON",  # Debian's default. No message that was sent is left for a salvage to find.
)
_TABLES = (
    # No AUTOINCREMENT: it writes a second page for each message. The largest is always the newest, and is not given
    # again: what was removed, MARKS knows.
    "CREATE TABLE IF NOT EXISTS QUEUE (internal_id INTEGER PRIMARY KEY,"
    " timestamp DOUBLE NOT NULL, message_body TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS DROPPED (variant TEXT PRIMARY KEY, count INTEGER NOT NULL,"
    " reported INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS ONCE (key TEXT PRIMARY KEY) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS MARKS (name TEXT PRIMARY KEY, number INTEGER NOT NULL) WITHOUT ROWID",
    # Nearly always empty, and unknown to releases before this one: what is in it waits for one that knows it.
    "CREATE TABLE IF NOT EXISTS POISON (internal_id INTEGER PRIMARY KEY, timestamp DOUBLE NOT NULL,"
    " message_body TEXT NOT NULL, reason TEXT NOT NULL, tries INTEGER NOT NULL, next_try DOUBLE NOT NULL)",
)
# A queue of before 1.1 has nothing to mark: each of its messages was synced in the archive at once.
_MARK = "INSERT OR IGNORE INTO MARKS SELECT 'archived', COALESCE(MAX(internal_id), 0) FROM QUEUE"
# Of a file from before 1.1, too. Nothing of it is stored, and it is not counted by an INSERT without names.
_COLUMN = f"ALTER TABLE QUEUE ADD COLUMN variant TEXT GENERATED ALWAYS AS ({VARIANT}) VIRTUAL"
# The few that are not data, so that dropping logs first need not look for them. Data cost nothing here.
# 1.0 left two others, QUEUE_LOGS and QUEUE_CONFIGS: if it comes back, it need not read the queue to make them.
_INDEX = f"CREATE INDEX IF NOT EXISTS QUEUE_VARIANTS ON QUEUE (variant) WHERE {IS_INDEXED}"


def count_dropped(database: sqlite3.Connection, counts: dict[str, int]) -> None:
    """Remember how many messages of each variant left the queue without having been sent."""
    database.executemany(
        "INSERT INTO DROPPED (variant, count) VALUES (?, ?)"
        " ON CONFLICT (variant) DO UPDATE SET count = count + excluded.count",
        [(variant, count) for variant, count in counts.items() if count],
    )


def make_index(database: sqlite3.Connection) -> None:
    """Make the index, if there is none. That reads all rows, and others cannot write meanwhile."""
    database.set_progress_handler(notify.heartbeat, 100_000)
    database.execute(_INDEX)
    database.set_progress_handler(None, 0)


def check_files(path: str) -> None:
    """See that SQLite finds nothing but regular files: it would wait for a pipe, and follow a link.

    Raises:
        sqlite3.DatabaseError: There is something else, which counts as damage.
    """
    for suffix in FILE_SUFFIXES:
        try:
            mode = os.lstat(path + suffix).st_mode
        except FileNotFoundError:
            continue
        if not stat.S_ISREG(mode):
            raise errors.damage(f"{path}{suffix} is not a regular file")


def _check_objects(database: sqlite3.Connection) -> None:
    """See that our tables are tables, with our columns. Others may be a later version's."""
    if foreign := database.execute(f"SELECT name FROM sqlite_schema WHERE {_IS_FOREIGN} LIMIT 1").fetchall():
        raise errors.damage(f"{foreign[0][0]!r:.80} is not a table of a queue")
    for table, wanted in _COLUMNS.items():
        found = {name for [name] in database.execute("SELECT name FROM pragma_table_xinfo(?)", (table,))}
        if found and not wanted <= found:
            raise errors.damage(f"the table {table} has other columns")


def connect(
    path: str, timeout: float, *, is_synced: bool = True, more_tables: Sequence[str] = ()
) -> sqlite3.Connection:
    """Open a database of the queue, making what it lacks: tables, or the column `variant`.

    Args:
        path: Its file. It must exist, if it is to belong to the services.
        timeout: Seconds to wait for other processes.
        is_synced: Whether it must survive a power cut.
        more_tables: What makes other tables, if they are not there.

    Raises:
        sqlite3.Error: It cannot be opened; nothing is left open.
        OSError: There is no room for what SQLite needs beside it.
    """
    _look_for_room(path)
    database = sqlite3.connect(path, timeout=timeout, isolation_level=None, check_same_thread=False)
    try:
        # A byte that rotted on the card must cost one character, not the head of the queue for ever.
        database.text_factory = lambda raw: raw.decode(errors="replace")
        for statement in _SETTINGS:
            database.execute(statement).fetchall()
        database.execute(SYNCED if is_synced else "PRAGMA synchronous = OFF")
        _check_objects(database)
        for statement in (*_TABLES, *more_tables):
            database.execute(statement).fetchall()
        if not database.execute("SELECT 1 FROM pragma_table_xinfo('QUEUE') WHERE name = 'variant'").fetchall():
            database.execute(_COLUMN)
        if not database.execute("SELECT 1 FROM MARKS WHERE name = 'archived'").fetchall():
            database.execute(_MARK)
    except BaseException:  # also Python's own, about a name that rotted
        database.close()
        raise
    return database


def _look_for_room(path: str) -> None:
    """Raise `OSError` where SQLite would be killed: it writes to `-shm` like to memory, if the disk has no room.

    It makes sure of a byte in every 4 KiB. With blocks of 1 KiB, as mkfs.ext4 makes them on disks below 512 MB,
    that is not enough. What an earlier boot left there is no help: whoever opens it first truncates it.
    """
    if mounts.disk(os.path.dirname(path)).free_bytes < ROOM_TO_OPEN:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)


def lock_path(path: str) -> str:
    """Whoever opens or replaces the database at a path holds the lock on this file."""
    return f"{path}.lock"


def salvaging_path(path: str) -> str:
    """Where 1.0 has a damaged database until what can be read is in a new one."""
    return f"{path}.salvaging"
