"""The message queue: what every procedure writes to and the backend reads from. Knows no network."""

import contextlib
import datetime
import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, Optional, TypeVar, Union

from ivy import constants, files
from ivy.types.messages import (
    ConfigMessageBody,
    DataMessageBody,
    LogMessageBody,
    MessageArchiveItem,
    MessageQueueItem,
)
from ivy.utils.host import clock, journal, signals
from ivy.utils.storage import archive, contents, errors, schema
from ivy.utils.storage.database import QueueDatabase
from ivy.utils.storage.doorbell import Doorbell
from ivy.utils.storage.memory_buffer import MemoryBuffer, Row

ACTIVE_QUEUE_FILE: str = os.path.join(constants.IVY_DATA_DIR, "active-message-queue.sqlite3")
"""The SQLite database with the messages that the broker has not acknowledged yet."""

MESSAGE_ARCHIVE_DIR: str = os.path.join(constants.IVY_DATA_DIR, "messages")
"""The directory with the archive of all messages, one CSV file per UTC day."""

MESSAGE_ARCHIVE_DIR_LOCK: str = os.path.join(constants.IVY_DATA_DIR, "messages.lock")
"""Whoever holds the lock on this file may write to the archive."""

LAST_SAMPLE = os.path.join(constants.IVY_RUN_DIR, "last-sample-")
"""With a procedure's name behind it, a file that was changed when that sampled last, in seconds since the boot."""

_Result = TypeVar("_Result")


class MessagingAgent:
    """The queue's contract:

    1. When `add_message` has returned, the message survives a kill of any process and a power cut. While the disk
       takes nothing, or another process replaces a damaged database, it survives in memory only, if it is among the
       newest; the journal says when that begins.
    2. It leaves the queue by `remove_messages`: when the broker acknowledged it, or has no word for it, or surely
       breaks the connection over it (see `ivy.backend.poison`); it must never block the others. Or when the queue
       is full (see `storage.bounds`), which is counted and reported.
    3. `get_n_latest_messages` returns the newest, oldest first among them: after an outage the operator sees
       live data while the backlog drains. Newest is what was added last, whatever the clock said.
    4. Delivery is at least once.
    5. Nothing here costs more when the queue is longer.
    6. Any number of processes and threads may use it at once.
    7. A damaged database is replaced by one with all that can be read (see `storage.salvage`), and is reported.

    Whatever asks or changes the queue raises `sqlite3.Error` where the database can be neither read nor written.
    """

    procedure: ClassVar[Optional[str]] = None
    """Whose samples this process takes; set by whoever runs it as a service."""

    def __init__(self) -> None:
        """Open the queue, making it if it does not exist. Neither a full disk nor damage is a reason to fail.

        Raises:
            OSError: The data directory is not writable.
            sqlite3.Error: The database cannot be opened.
        """
        self._doorbell = Doorbell()
        self._lock = threading.RLock()
        self.database = QueueDatabase(ACTIVE_QUEUE_FILE)
        self._queue = MemoryBuffer("the queue", self._write_to_queue, errors.is_disk_trouble)
        self._archive = MemoryBuffer(
            "the archive", self._write_to_archive, lambda error: isinstance(error, OSError)
        )
        try:
            self.get_oldest_timestamp()
        except (OSError, sqlite3.Error) as error:
            if not errors.is_disk_trouble(error):
                self.teardown()
                raise
            journal.send("ERROR", f"{ACTIVE_QUEUE_FILE} cannot be opened yet: {error}")

    def add_message(self, message_body: Union[DataMessageBody, LogMessageBody, ConfigMessageBody]) -> None:
        """Add a message to the queue and to the archive, durably, and wake the backend.

        Args:
            message_body: The message; its timestamp is the time of this call.

        Raises:
            sqlite3.Error: The queue could not take it, for another reason than the disk's (the archive may have).
                A failure of the archive alone is reported to the journal: the message is safe in the queue.
        """
        row = _row(message_body)
        with signals.deferred(), self._lock:  # a message stands in both places, or was never added
            try:
                report = self._queue.put(row)
                self._doorbell.ring()
            finally:
                self._archive.put(row)
            if self.procedure is not None and isinstance(message_body, DataMessageBody):
                _note_sample(LAST_SAMPLE + self.procedure)
            if report is not None:
                self._tell(report)

    def add_once(
        self, key: str, message_bodies: Sequence[Union[DataMessageBody, LogMessageBody, ConfigMessageBody]]
    ) -> None:
        """Add messages, all or none, unless that was done before under the same key.

        Raises:
            OSError, sqlite3.Error: The queue could not take them; they are not held in memory.
        """
        rows = [_row(body) for body in message_bodies]
        with signals.deferred(), self._lock:
            if not self.database.transaction(lambda connection: schema.add_once(connection, key, rows)):
                return
            self._doorbell.ring()
            for row in rows:
                self._archive.put(row)

    def _tell(self, report: str) -> None:
        """The disk takes messages again: count those that were lost, and tell the operator.

        Never raises: the message that was added is safe, and the next one may be the first to fail again.
        """
        lost = self._queue.take_lost()
        try:
            self.database.transaction(lambda connection: schema.count_dropped(connection, lost))
        except (OSError, sqlite3.Error) as error:
            self._queue.put_lost_back(lost)
            journal.send("ERROR", f"what the queue lost is counted later: {error}")
        try:  # where there is no room again, this is held in memory, and its end is the time to count
            self.add_message(LogMessageBody(level="WARNING", subject=f"queue - WARNING - {report}", body=""))
        except sqlite3.Error as error:
            journal.send("ERROR", f"{report}, which cannot be queued: {error}")

    def _write_to_queue(self, row: Row) -> None:
        self._run(lambda connection: contents.insert(connection, row))

    def _write_to_archive(self, row: Row) -> None:
        date = datetime.datetime.fromtimestamp(row[0], datetime.UTC).date()
        archive.append(archive.file_of(MESSAGE_ARCHIVE_DIR, date), MESSAGE_ARCHIVE_DIR_LOCK, *row)

    def get_n_latest_messages(
        self,
        n: int,
        excluded_message_ids: Union[set[int], list[int]] = [],  # noqa: B006 (never changed)
    ) -> list[MessageQueueItem]:
        """Get the `n` latest messages of the queue. They stay there.

        Returns: The newest `n` but for those excluded, being on their way already; the oldest of them first.
        """
        rows = self._run(lambda connection: contents.newest(connection, n, excluded_message_ids))
        items = [self._parse(*row) for row in reversed(rows)]
        return [item for item in items if item is not None]

    def _parse(self, identifier: int, timestamp: float, body: str) -> Optional[MessageQueueItem]:
        try:
            time_or_0 = clock.or_epoch(timestamp)
            return MessageQueueItem(identifier=identifier, timestamp=time_or_0, message_body=json.loads(body))
        except (ValueError, TypeError, RecursionError) as error:
            # What no backend will ever understand must not stand in the way of the others.
            journal.send("ERROR", f"removed from the queue, being no message: {body!r:.1000}", details=str(error))
            self.remove_messages([identifier])
            return None

    def remove_messages(self, message_ids: Union[set[int], list[int]]) -> None:
        """Remove messages from the queue, durably. Identifiers that are not in it are ignored."""
        identifiers = list(message_ids)
        self._run(lambda connection: contents.remove(connection, identifiers))

    def get_queue_length(self) -> int:
        """Count the messages in the queue: exactly up to 10 000; beyond, there are at most so many.

        Counted then are the numbers in use, and those between that are free: what was sent from the middle, logs
        that were dropped from between the data, what a salvage left out.
        """
        return self._run(contents.length)

    def get_oldest_timestamp(self) -> Optional[float]:
        """The Unix time of the message that has waited longest, in seconds; None if the queue is empty."""
        timestamp = self._run(contents.oldest_timestamp)
        return None if timestamp is None else clock.or_epoch(timestamp)

    def _run(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        try:
            return self.database.run(work)
        except OSError as error:  # for who uses the queue, it is all one
            failure = sqlite3.OperationalError(str(error))
            if errors.is_disk_trouble(error):
                failure.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
            raise failure from error

    @staticmethod
    def get_message_archive_file() -> str:
        """The path of the archive file for the current UTC day."""
        return archive.file_of(MESSAGE_ARCHIVE_DIR, datetime.datetime.now(datetime.UTC).date())

    @staticmethod
    def load_message_archive(date: datetime.date) -> list[MessageArchiveItem]:
        """Load the archive of a UTC day.

        Returns: The messages in the order in which they were added; none if there is no archive of that day.

        Raises:
            OSError: The archive cannot be read.
        """
        return list(archive.read(archive.file_of(MESSAGE_ARCHIVE_DIR, date)))

    def teardown(self) -> None:
        """Close the queue."""
        with self._lock:
            self.database.close()
            self._doorbell.close()


def _note_sample(path: str) -> None:
    """By the time of a file on the tmpfs, which costs two calls; the clock may be set meanwhile."""
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    with contextlib.suppress(OSError):  # of no use to the sample
        files.make_directory(constants.IVY_RUN_DIR)
        Path(path).touch()
        os.utime(path, (now, now))


def _row(message_body: Union[DataMessageBody, LogMessageBody, ConfigMessageBody]) -> Row:
    if clock.is_synchronised() is False:
        message_body = message_body.model_copy(update={"clock_synchronised": False})
    return time.time(), message_body.model_dump_json()
