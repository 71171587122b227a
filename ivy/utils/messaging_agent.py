"""The message queue: what every procedure writes to and the backend reads from. Knows no network."""

import contextlib
import datetime
import json
import os
import sqlite3
import threading
import time
from typing import Any, Optional, Union

from ivy import constants, files
from ivy.types.messages import (
    ConfigMessageBody,
    DataMessageBody,
    LogMessageBody,
    MessageArchiveItem,
    MessageQueueItem,
)
from ivy.utils import journal, message_archive, notify, signals
from ivy.utils.wakeup import Doorbell

ACTIVE_QUEUE_FILE: str = os.path.join(constants.IVY_DATA_DIR, "active-message-queue.sqlite3")
"""The SQLite database with the messages that the broker has not acknowledged yet."""

MESSAGE_ARCHIVE_DIR: str = os.path.join(constants.IVY_DATA_DIR, "messages")
"""The directory with the archive of all messages, one CSV file per UTC day."""

MESSAGE_ARCHIVE_DIR_LOCK: str = os.path.join(constants.IVY_DATA_DIR, "messages.lock")
"""Whoever holds the lock on this file may write to the archive."""

_SECONDS_OF_PATIENCE = 2 * constants.WATCHDOG_SECONDS
"""How long another process may hold the database: one that hangs in it is killed by the watchdog before."""

_LARGEST_EXACT_LENGTH = 10_000


class MessagingAgent:
    """The queue's contract:

    1. When `add_message` has returned, the message survives a kill of any process and a power cut.
    2. It leaves the queue by `remove_messages` only: when the broker acknowledged it, or has no word for it.
    3. `get_n_latest_messages` returns the newest, oldest first among them: after an outage the operator sees
       live data while the backlog drains. Newest is what was added last, whatever the clock said.
    4. Delivery is at least once.
    5. Nothing here costs more when the queue is longer.
    6. Any number of processes and threads may use it at once.
    """

    def __init__(self) -> None:
        """Open the queue, making it if it does not exist.

        Raises:
            OSError: The data directory is not writable.
            sqlite3.Error: The database cannot be opened.
        """
        files.make_directory(constants.IVY_DATA_DIR)
        # Only if there is none yet: closing a descriptor of the database that is not SQLite's own would release the
        # locks that other agents of this process hold (see "How To Corrupt An SQLite Database File", 2.2).
        with contextlib.suppress(FileExistsError):
            os.close(files.open_shared(ACTIVE_QUEUE_FILE, os.O_EXCL))
        self._doorbell = Doorbell()
        self._lock = threading.RLock()
        self._database = sqlite3.connect(
            ACTIVE_QUEUE_FILE,
            timeout=min(2, notify.SECONDS_BETWEEN_HEARTBEATS),
            isolation_level=None,
            check_same_thread=False,
        )
        # A byte that rotted on the card must cost one character, not the head of the queue for ever.
        self._database.text_factory = lambda raw: raw.decode(errors="replace")
        self._execute("PRAGMA journal_mode = WAL")
        self._execute("PRAGMA synchronous = FULL")  # in WAL mode, NORMAL may forget commits in a power cut
        self._execute("PRAGMA cache_size = -256")  # KiB; the default of 2 MiB buys nothing at both ends of a table
        # No AUTOINCREMENT: it writes a second page for each message, and an identifier is needed no longer
        # than its row. The largest is always the newest.
        self._execute(
            "CREATE TABLE IF NOT EXISTS QUEUE (internal_id INTEGER PRIMARY KEY,"
            " timestamp DOUBLE NOT NULL, message_body TEXT NOT NULL)"
        )

    def add_message(self, message_body: Union[DataMessageBody, LogMessageBody, ConfigMessageBody]) -> None:
        """Add a message to the queue and to the archive, durably, and wake the backend.

        Args:
            message_body: The message; its timestamp is the time of this call.

        Raises:
            sqlite3.Error: The queue could not take it (the archive may have). A failure of the archive alone is
                reported to the journal: the message is safe in the queue.
        """
        timestamp = time.time()
        body = message_body.model_dump_json()
        with signals.deferred(), self._lock:  # a message stands in both places, or was never added
            try:
                self._execute("INSERT INTO QUEUE (timestamp, message_body) VALUES (?, ?)", (timestamp, body))
                self._doorbell.ring()
            finally:
                self._archive(timestamp, body)

    def _archive(self, timestamp: float, body: str) -> None:
        path = message_archive.file_of(
            MESSAGE_ARCHIVE_DIR, datetime.datetime.fromtimestamp(timestamp, datetime.UTC).date()
        )
        try:
            message_archive.append(path, MESSAGE_ARCHIVE_DIR_LOCK, timestamp, body)
        except OSError as error:
            journal.send("ERROR", f"{path}: a message is missing in the archive: {error}")

    def get_n_latest_messages(
        self,
        n: int,
        excluded_message_ids: Union[set[int], list[int]] = [],  # noqa: B006 (never changed)
    ) -> list[MessageQueueItem]:
        """Get the `n` latest messages of the queue. They stay there.

        Args:
            n: The number of messages, at most.
            excluded_message_ids: Messages to leave out, being on their way already.

        Returns: The newest `n` of the others, the oldest of them first.

        Raises:
            sqlite3.Error: The database cannot be read.
        """
        rows = self._execute(
            "SELECT internal_id, timestamp, message_body FROM QUEUE"
            " WHERE internal_id NOT IN (SELECT value FROM json_each(?)) ORDER BY internal_id DESC LIMIT ?",
            (json.dumps(list(excluded_message_ids)), n),
        )
        items = [self._parse(*row) for row in reversed(rows)]
        return [item for item in items if item is not None]

    def _parse(self, identifier: int, timestamp: float, body: str) -> Optional[MessageQueueItem]:
        try:
            return MessageQueueItem(identifier=identifier, timestamp=timestamp, message_body=json.loads(body))
        except (ValueError, TypeError, RecursionError) as error:
            # What no backend will ever understand must not stand in the way of the others.
            journal.send("ERROR", f"removed from the queue, being no message: {body!r:.1000}", details=str(error))
            self.remove_messages([identifier])
            return None

    def remove_messages(self, message_ids: Union[set[int], list[int]]) -> None:
        """Remove messages from the queue, durably. Identifiers that are not in it are ignored.

        Args:
            message_ids: The identifiers of the messages.

        Raises:
            sqlite3.Error: The database cannot be written.
        """
        self._execute(
            "DELETE FROM QUEUE WHERE internal_id IN (SELECT value FROM json_each(?))",
            (json.dumps(list(message_ids)),),
        )

    def get_queue_length(self) -> int:
        """Count the messages in the queue: exactly up to 10 000, at most one window too many beyond.

        Raises:
            sqlite3.Error: The database cannot be read.
        """
        [[few]] = self._execute("SELECT COUNT(*) FROM (SELECT 1 FROM QUEUE LIMIT ?)", (_LARGEST_EXACT_LENGTH,))
        if few < _LARGEST_EXACT_LENGTH:
            return int(few)
        # Counting reads the whole table. But it shrinks at its ends only, but for what is on its way.
        [[length]] = self._execute(
            "SELECT (SELECT MAX(internal_id) FROM QUEUE) - (SELECT MIN(internal_id) FROM QUEUE) + 1"
        )
        return int(length or 0)

    def get_oldest_timestamp(self) -> Optional[float]:
        """The Unix time of the message that has waited longest, in seconds; None if the queue is empty.

        Raises:
            sqlite3.Error: The database cannot be read.
        """
        rows = self._execute("SELECT timestamp FROM QUEUE ORDER BY internal_id LIMIT 1")
        return float(rows[0][0]) if rows else None

    def _execute(self, statement: str, parameters: tuple[Any, ...] = ()) -> list[Any]:
        """Run one statement, a transaction of its own. Waits for other processes, with heartbeats."""
        deadline = time.monotonic() + _SECONDS_OF_PATIENCE
        while True:
            try:
                with self._lock:
                    return self._database.execute(statement, parameters).fetchall()
            except sqlite3.OperationalError as error:
                busy = error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
                if not busy or time.monotonic() > deadline:
                    raise
            notify.heartbeat()

    @staticmethod
    def get_message_archive_file() -> str:
        """The path of the archive file for the current UTC day."""
        return message_archive.file_of(MESSAGE_ARCHIVE_DIR, datetime.datetime.now(datetime.UTC).date())

    @staticmethod
    def load_message_archive(date: datetime.date) -> list[MessageArchiveItem]:
        """Load the archive of a day.

        Args:
            date: The UTC day.

        Returns: The messages in the order in which they were added; none if there is no archive of that day.

        Raises:
            OSError: The archive cannot be read.
        """
        return message_archive.load(message_archive.file_of(MESSAGE_ARCHIVE_DIR, date))

    def teardown(self) -> None:
        """Close the queue."""
        with self._lock:
            self._database.close()
            self._doorbell.close()
