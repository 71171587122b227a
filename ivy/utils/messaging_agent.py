"""The message queue: what every procedure writes to and the backend reads from. Knows no network."""

import collections
import contextlib
import datetime
import functools
import json
import math
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Optional, Union

import pydantic

from ivy import constants
from ivy.types.config import LogLevel
from ivy.types.messages import (
    ConfigMessageBody,
    DataMessageBody,
    LogMessageBody,
    MessageArchiveItem,
    MessageBody,
    MessageQueueItem,
)
from ivy.utils.host import clock, journal, signals
from ivy.utils.storage import archive, contents, errors, last_sample, set_aside, trouble
from ivy.utils.storage.database import QueueDatabase
from ivy.utils.storage.doorbell import Doorbell
from ivy.utils.storage.spare import SpareQueue
from ivy.utils.storage.store import Returned, Row, Store
from ivy.utils.storage.turns import Turns

ACTIVE_QUEUE_FILE: str = os.path.join(constants.IVY_DATA_DIR, "active-message-queue.sqlite3")
"""The SQLite database with the messages that the broker has not acknowledged yet."""

MESSAGE_ARCHIVE_DIR: str = os.path.join(constants.IVY_DATA_DIR, "messages")
"""The directory with the archive of all messages, one CSV file per UTC day."""

MESSAGE_ARCHIVE_DIR_LOCK: str = os.path.join(constants.IVY_DATA_DIR, "messages.lock")
"""Whoever holds the lock on this file may write to the archive."""

LAST_MESSAGE_NOTE: str = os.path.join(constants.IVY_RUN_DIR, "last-message")
"""Where writers leave word of how far they came."""

SPARE_QUEUE_FILE: str = os.path.join(constants.IVY_RUN_DIR, "spare-queue.sqlite3")
"""Where messages wait while the data directory takes none, on a file system in memory."""

SECONDS_BETWEEN_TRIES = 5.0
"""How often it is tried whether a sick disk takes messages again; at once, where others only hold a lock."""

MOST_SECONDS_AHEAD = 300.0
"""By how much a device's clock may be ahead of the node's."""

MOST_DAYS = 3650
"""How old a message may be that brings its own time, where the archive keeps all days."""

_YEAR_3000 = 32_503_680_000
_MOST_MOVED_AT_ONCE = 2000
_BROUGHT_UP_AT_ONCE = 200
_MOST_REMEMBERED = 10_000

_Mark = tuple[float, int]
"""By what a message is known in both queues: its time, and a checksum of its body."""


class MessagingAgent:
    """The queue's contract:

    1. When `add_message` has returned, the message survives a kill of any process and a power cut, by one sync (see
       `storage.store`). Where the data directory takes nothing (full, read-only, sick, another's, a lock that
       nobody gives back for 2 s) it goes to the spare queue in memory, which survives all but a boot; bounded.
    2. It leaves the queue, once the archive has it durably, by `remove_messages`: when the broker acknowledged it,
       or has no word for it; or it is set aside, as the broker does not take it (see `ivy.backend.poison`); it
       must never block the others. Or when the queue is full (see `storage.bounds`), which is counted and reported.
    3. `get_n_latest_messages` returns the newest, oldest first among them: after an outage the operator sees
       live data while the backlog drains. Newest is what was added last, whatever the clock said.
    4. Delivery is at least once. Twice comes, after a crash or a reconnect, a window at most; after a power cut a
       quarter of one more, as what was sent when it was sampled leaves the queue without a sync of its own.
    5. Nothing here costs more when the queue is longer.
    6. Any number of processes and threads may use it at once.
    7. A damaged database is moved aside and replaced at once; what can be read of it is queued again in the
       background (see `storage.salvage`). Both are reported.
    8. No two messages have the same millisecond. (One that brings its own time gets another, where that was taken
       by the last message or by one of those before that brought their own; others of that time may be gone.)

    Whatever asks or changes the queue raises `sqlite3.Error` where the database can be neither read nor written.
    """

    procedure: ClassVar[Optional[str]] = None
    """Whose samples this process takes; set by whoever runs it as a service."""

    archive_days: ClassVar[Optional[int]] = None
    """How many days the archive keeps, set by whoever runs it as a service; None: all."""

    def __init__(self) -> None:
        """Open the queue, making it if it does not exist. No trouble with it is a reason to fail."""
        self._doorbell = Doorbell()
        self._lock = threading.RLock()
        self.database = QueueDatabase(ACTIVE_QUEUE_FILE)
        self._turns = Turns(MESSAGE_ARCHIVE_DIR_LOCK, LAST_MESSAGE_NOTE)
        self.store = Store(self.database, self._turns, MESSAGE_ARCHIVE_DIR, self._doorbell)
        self._spare = SpareQueue(SPARE_QUEUE_FILE)
        self._next_try = 0.0
        self._is_in_trouble = False
        self._why_not: Exception | None = None
        self._read_from_spare: dict[int, _Mark] = {}
        self._delivered: collections.deque[_Mark] = collections.deque(maxlen=_MOST_REMEMBERED)
        self._lost: collections.Counter[str] = collections.Counter()  # that not even the spare queue took
        try:
            self.store.open()
        except (OSError, sqlite3.Error) as error:  # whoever only looks need not tell the operator
            journal.send("ERROR", f"{ACTIVE_QUEUE_FILE} cannot be opened yet: {error}")

    def add_message(
        self,
        message_body: Union[DataMessageBody, LogMessageBody, ConfigMessageBody],
        *,
        timestamp: Optional[float] = None,
    ) -> None:
        """Add a message to the queue and to the archive, durably, and wake the backend.

        Args:
            message_body: The message.
            timestamp: When it was sampled, in seconds of Unix time, if not now: a record from a logger's memory. It
                stands in the archive on the day of that time.

        Raises:
            ValueError: The timestamp is no time, more than `MOST_SECONDS_AHEAD` ahead of the clock, or older than
                what the archive keeps. Nothing was added. (A clock that is not synchronised judges nobody.)

        Never raises because of the disk: where not even the spare queue takes it, the journal says so.
        """
        if timestamp is not None:
            _check(timestamp, self.archive_days)
        row = _row(message_body) if timestamp is None else (float(timestamp), message_body.model_dump_json())
        with signals.deferred(), self._lock:  # else the archive gets it from the next message
            self._put(row, timestamp is not None)
            if self.procedure is not None and isinstance(message_body, DataMessageBody):
                last_sample.note(self.procedure)

    def _put(self, row: Row, has_own_time: bool = False) -> None:
        if self._is_spare_in_use() and self._is_put_into_memory(row, has_own_time):  # what is older comes first
            self._try(self._move_back)
        elif not self._try(lambda: self.store.add(row, has_own_time)):
            self._put_into_memory(row, has_own_time)

    def _try(self, work: Callable[[], None]) -> bool:
        """Do something with the disk, if it is time to; returns whether it was done."""
        if time.monotonic() < self._next_try:
            return False
        self.database.is_impatient = self._is_in_trouble  # the message is safe, or has waited for them
        try:
            work()
        except (OSError, sqlite3.Error) as error:
            self._begin_trouble(error)
            return False
        finally:
            self.database.is_impatient = False
        if (self._is_in_trouble or trouble.is_noted()) and not self._is_spare_in_use():
            self._end_trouble()
        if self.database.beneath is not None:
            self._bring_up(self.database.beneath)
        return True

    def _bring_up(self, beneath: sqlite3.Connection) -> None:
        """Queue what lies beneath the disk that was mounted over the queue. Killed in between, some come twice."""
        try:
            while rows := contents.following(beneath, 0, _BROUGHT_UP_AT_ONCE):
                beneath.execute("BEGIN IMMEDIATE")  # others are at it, too
                with beneath:
                    rows = contents.following(beneath, 0, _BROUGHT_UP_AT_ONCE)
                    self.store.take_back([Returned(timestamp, body, False) for _, timestamp, body in rows])
                    contents.remove(beneath, [number for number, *_ in rows])
            self.database.close_beneath()
        except (OSError, sqlite3.Error) as error:
            journal.send("WARNING", f"what lies beneath the other disk is queued later: {error}")
        self._doorbell.ring()

    def _move_back(self) -> None:
        self._spare.move_back(self.store, _MOST_MOVED_AT_ONCE)

    def _is_spare_in_use(self) -> bool:
        with contextlib.suppress(OSError, sqlite3.Error):
            return self._spare.holds_any()
        return False

    def _put_into_memory(self, row: Row, has_own_time: bool = False) -> None:
        if not self._is_put_into_memory(row, has_own_time):
            self._lost[contents.variant_of(row[1])] += 1
            if self._lost.total() == 1:
                journal.send("ERROR", f"messages are lost, as the spare queue takes none either: {self._why_not}")

    def _is_put_into_memory(self, row: Row, has_own_time: bool) -> bool:
        try:
            self._spare.put(row, self._turns.latest_millisecond(), has_own_time)
            self._doorbell.ring()
        except (OSError, sqlite3.Error) as error:
            self._why_not = error
            return False
        return True

    def _begin_trouble(self, error: Exception) -> None:
        is_busy = errors.is_busy(error)
        self._is_in_trouble = True
        self._next_try = time.monotonic() + (0.0 if is_busy else SECONDS_BETWEEN_TRIES)
        if trouble.begin(str(error)):
            subject = f"the queue takes no messages, they wait in memory: {error}"
            journal.send("ERROR", subject)
            self._put_into_memory(_log("ERROR", subject))

    def _end_trouble(self) -> None:
        """The disk takes messages again: count those that were lost, and tell the operator."""
        self._is_in_trouble = False
        with contextlib.suppress(OSError, sqlite3.Error):
            self._lost.update(self._spare.take_dropped())
        lost = dict(self._lost)
        try:
            self.store.add_dropped(lost)
        except (OSError, sqlite3.Error):
            return  # in trouble again
        self._lost.clear()
        if (seconds := trouble.end()) is not None:
            missing = sum(count for variant, count in lost.items() if variant != "archive")
            subject = f"the queue took no messages for {seconds:.0f} s, {missing} were lost"
            journal.send("WARNING", subject)
            self._put(_log("WARNING", subject))

    def add_once(
        self, key: str, message_bodies: Sequence[Union[DataMessageBody, LogMessageBody, ConfigMessageBody]]
    ) -> None:
        """Add messages, all or none, unless that was done before under the same key.

        Raises:
            OSError, sqlite3.Error: The queue could not take them; they are not held in memory.
        """
        rows = [_row(body) for body in message_bodies]
        with signals.deferred(), self._lock:
            self.store.add_once(key, rows)

    def get_n_latest_messages(
        self,
        n: int,
        excluded_message_ids: Union[set[int], list[int]] = [],  # noqa: B006 (never changed)
    ) -> list[MessageQueueItem]:
        """Get the `n` latest messages of the queue. They stay there.

        Returns: The newest `n` but for those excluded, being on their way already; the oldest of them first.
        """
        return self.get_latest_messages_within(math.inf, n, excluded_message_ids)

    def get_latest_messages_within(
        self,
        most_bytes: float,
        n: int,
        excluded_message_ids: Union[set[int], list[int]],
        held_back: Collection[str] = (),
    ) -> list[MessageQueueItem]:
        """As `get_n_latest_messages`, but no more than have so many bytes together; one in any case.

        Args:
            most_bytes: See above.
            n: How many, at most.
            excluded_message_ids: Those that are not wanted.
            held_back: The variants of which none is wanted.
        """
        with self._lock, _one_kind_of_error():
            rows = self._newest(n, set(excluded_message_ids), most_bytes, held_back)
        items = [self._parse(*row) for row in reversed(rows)]
        return [item for item in items if item is not None]

    def _newest(
        self, n: int, excluded: set[int], most_bytes: float, held_back: Collection[str]
    ) -> list[tuple[int, float, str]]:
        """From both queues: in the spare one are the newer messages, under negative numbers."""
        if not self._spare.exists():
            return self.database.run(
                lambda connection: contents.newest(connection, n, excluded, most_bytes, held_back)
            )
        under_way = {-identifier for identifier in excluded if identifier < 0}
        excluded = {identifier for identifier in excluded if identifier > 0}
        spare: list[tuple[int, float, str]] = []
        with contextlib.suppress(OSError, sqlite3.Error):  # what it cannot give must not keep back the others
            spare = [(-row[0], *row[1:]) for row in self._spare.newest(n, under_way, most_bytes, held_back)]
            excluded |= self._spare.moved(under_way)
        self._read_from_spare.update({-row[0]: _mark(row) for row in spare})
        rest, rest_bytes = n - len(spare), most_bytes - sum(len(body) for _, _, body in spare)
        if spare and (rest <= 0 or rest_bytes <= 0):
            return spare
        try:
            found = self.database.run(
                lambda connection: contents.newest(connection, rest, excluded, rest_bytes, held_back)
            )
        except (OSError, sqlite3.Error):
            if not spare:
                raise
            return spare
        return spare + self._without_sent(found, {self._read_from_spare.get(each) for each in under_way})

    def _without_sent(
        self, rows: list[tuple[int, float, str]], under_way: set[_Mark | None]
    ) -> list[tuple[int, float, str]]:
        """Without what was sent from the spare queue, or is on its way from there, while it was moved.

        It is known again by what it says, too: one that came into the queue meanwhile may have the same time.
        """
        delivered = [row[0] for row in rows if _mark(row) in self._delivered]
        with contextlib.suppress(OSError, sqlite3.Error):
            self.store.remove(delivered)
        return [row for row in rows if _mark(row) not in under_way and _mark(row) not in self._delivered]

    def _parse(self, identifier: int, timestamp: float, body: str) -> Optional[MessageQueueItem]:
        try:
            time_or_0 = clock.or_epoch(timestamp)
            return MessageQueueItem(identifier=identifier, timestamp=time_or_0, message_body=_parsed(body))
        except (ValueError, TypeError, RecursionError) as error:
            # What no backend will ever understand must not stand in the way of the others.
            journal.send("ERROR", f"removed from the queue, being no message: {body!r:.1000}", details=str(error))
            self.remove_messages([identifier])
            self._doorbell.ring()  # others may have waited behind it
            return None

    def get_messages(self, message_ids: Collection[int]) -> list[MessageQueueItem]:
        """Get some messages, also such as were set aside; the oldest first, without those that there are not."""
        with self._lock, _one_kind_of_error():
            rows = self.database.run(
                partial(contents.chosen, identifiers=[each for each in message_ids if each > 0])
            )
            if spare := [-each for each in message_ids if each < 0]:
                rows += [(-row[0], *row[1:]) for row in self._spare.chosen(spare)]
                self._read_from_spare.update({-row[0]: _mark(row) for row in rows if row[0] < 0})
        items = [self._parse(*row) for row in rows]
        return [item for item in items if item is not None]

    def set_aside(self, reasons: Mapping[int, str], next_try: float) -> None:
        """Take messages out of the queue, durably, that the broker does not take; they are kept for another try.

        One that is refused each time is given up in the end, which is counted and reported.

        Args:
            reasons: Why, for each. Not for those in memory, which have no place yet to be set aside to.
            next_try: Unix time.

        Raises:
            errors.OtherDisk: As `remove_messages`.
        """
        with self._lock, _one_kind_of_error():
            if self.database.is_of_other_disk:
                raise errors.OtherDisk
            self.store.set_aside(reasons, next_try)

    def get_set_aside(self, longest: float) -> Optional[int]:
        """The message that was set aside and is to be tried again now.

        Args:
            longest: Seconds between two tries.
        """
        with self._lock, _one_kind_of_error():
            # A clock that is not set yet says nothing about what another has said before.
            trusted = math.inf if clock.is_synchronised() is False else longest
            return self.database.run(partial(set_aside.due, now=time.time(), longest=trusted))

    def remove_messages(self, message_ids: Union[set[int], list[int]]) -> None:
        """Remove messages from the queue, durably. Identifiers that are not in it are ignored.

        Raises:
            errors.OtherDisk: They may be those of others. Each time: whoever was told first did not care, perhaps.
        """
        self._remove(message_ids, is_durable=True)

    def _remove(self, message_ids: Collection[int], *, is_durable: bool) -> None:
        with self._lock, _one_kind_of_error():
            if self.database.is_of_other_disk:
                raise errors.OtherDisk
            spare = {-identifier for identifier in message_ids if identifier < 0}
            others = {identifier for identifier in message_ids if 0 < identifier < contents.FIRST_FOREIGN}
            if spare:
                self._spare.deliver(spare)
                marks = (self._read_from_spare.pop(identifier, None) for identifier in spare)
                self._delivered.extend(mark for mark in marks if mark is not None)
                others |= self._spare.moved(spare)
            self.store.remove(others, is_durable=is_durable)

    def remove_and_forget(self, message_ids: set[int], *, is_durable: bool = True) -> None:
        """As `remove_messages`; those that are removed leave the set, too.

        First those in memory: what a sick disk does not let go of must not keep them for ever.

        Args:
            message_ids: Which.
            is_durable: See `Store.remove`.
        """
        for some in ({identifier for identifier in message_ids if identifier < 0}, set(message_ids)):
            self._remove(some, is_durable=is_durable)
            message_ids -= some

    def keep_durable(self) -> None:
        """Let a power cut take nothing from the archive; once a minute, where nothing is removed. Never raises."""
        with self._lock, contextlib.suppress(OSError, sqlite3.Error):  # told by whoever adds messages
            self.store.keep_durable()

    def get_queue_length(self) -> int:
        """Count the messages in the queue: exactly up to 10 000; beyond, there are at most so many.

        Counted then are the numbers in use, and those between that are free: what was sent from the middle, logs
        that were dropped from between the data, what a salvage left out.
        """
        with self._lock, _one_kind_of_error():
            return self.database.run(contents.length) + self._spare.length()

    def get_oldest_timestamp(self) -> Optional[float]:
        """The Unix time of the message that has waited longest, in seconds; None if the queue is empty."""
        with self._lock, _one_kind_of_error():
            found = [self.database.run(contents.oldest_timestamp), self._spare.oldest_timestamp()]
        return min((clock.or_epoch(timestamp) for timestamp in found if timestamp is not None), default=None)

    def get_spare_length(self) -> int:
        """How many of the messages wait in memory, as the data directory does not take them."""
        with self._lock, _one_kind_of_error():
            return self._spare.length()

    def get_untold_losses(self) -> dict[str, int]:
        """How many messages left the queue without having been sent, by variant, and nobody was told of."""
        with self._lock, _one_kind_of_error():
            return self.database.run(contents.dropped_since_report)

    def note_told_losses(self, counts: dict[str, int]) -> None:
        """The operator was told of so many."""
        with self._lock, _one_kind_of_error():
            self.database.transaction(lambda connection: contents.note_report(connection, counts))

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
            self.store.close()
            self.database.close_beneath()
            self._spare.close()
            self._doorbell.close()


@contextlib.contextmanager
def _one_kind_of_error() -> Generator[None, None, None]:
    """For who uses the queue, it is all one."""
    try:
        yield
    except OSError as error:
        failure = sqlite3.OperationalError(str(error))
        if errors.is_disk_trouble(error):
            failure.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
        raise failure from error


@functools.cache
def _reader() -> pydantic.TypeAdapter[MessageBody]:
    """Made when it is wanted: a procedure reads no messages."""
    return pydantic.TypeAdapter(MessageBody)


def _parsed(body: str) -> Any:
    """A body, or what may be validated as one: the predecessor's JSON has what pydantic's does not know."""
    with contextlib.suppress(pydantic.ValidationError):
        return _reader().validate_json(body)
    return json.loads(body)


def _mark(row: tuple[int, float, str]) -> _Mark:
    return row[1], hash(row[2])


def _log(level: LogLevel, subject: str) -> Row:
    return _row(LogMessageBody(level=level, subject=f"queue - {level} - {subject}", body=""))


def _check(timestamp: float, archive_days: Optional[int]) -> None:
    is_number = isinstance(timestamp, (int, float)) and not isinstance(timestamp, bool)
    if not is_number or not 0 <= timestamp < _YEAR_3000:
        raise ValueError(f"timestamp: {timestamp!r} is not a time in seconds since 1970")
    if clock.is_synchronised() is False:
        return
    age = time.time() - timestamp
    days = MOST_DAYS if archive_days is None else archive_days
    if age < -MOST_SECONDS_AHEAD:
        raise ValueError(f"timestamp: {timestamp} is {-age:.0f} s in the future: look at the clock of the device")
    if age > days * 86_400:
        raise ValueError(
            f"timestamp: {timestamp} is {age / 86_400:.0f} days ago, and {days} are kept: "
            "look at the clock of the device, or raise archive.max_days"
        )


def _row(message_body: Union[DataMessageBody, LogMessageBody, ConfigMessageBody]) -> Row:
    timestamp = time.time()  # before others are asked, who may take seconds
    if clock.is_synchronised() is False:
        message_body = message_body.model_copy(update={"clock_synchronised": False})
    return timestamp, message_body.model_dump_json()
