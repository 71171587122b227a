"""A message's two places, queue and archive, and the order in which they are written and synced.

One sync makes a message safe: that of the queue's commit. Its line in the archive is appended unsynced; the
archive is synced before the queue lets go of messages, once for all of them. So what a power cut took from the
archive's end is in the queue, and whoever opens it first after a boot appends it again.
"""

import contextlib
import datetime
import itertools
import os
import sqlite3
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ivy import files
from ivy.utils import notify
from ivy.utils.host import clock, journal
from ivy.utils.storage import archive, contents, errors, schema, set_aside, trouble
from ivy.utils.storage.database import QueueDatabase
from ivy.utils.storage.doorbell import Doorbell
from ivy.utils.storage.turns import Turn, Turns

Row = tuple[float, str]
"""Unix time in seconds, and a message's body as JSON."""


@dataclass(frozen=True)
class Returned:
    """A message from the spare queue; if it was delivered from there, the archive only is to have it."""

    timestamp: float
    body: str
    is_delivered: bool
    has_own_time: bool = False


SECONDS_WITHOUT_ARCHIVE = 60.0
"""How long messages that were sent stay in the queue because the archive cannot take them."""

SECONDS_BETWEEN_TRIES = 5.0
"""How often an archive that takes nothing is tried, where that means to read much of the queue."""

MUCH = 1_000_000
"""Bytes of messages."""
_SECONDS_PER_DAY = 86_400
_EPOCH = datetime.date(1970, 1, 1)
_ROWS_AT_ONCE = 500
_REMOVED_AT_ONCE = 128
_MOST_OF_A_TAIL = 64_000_000
_TORN = 65_536
"""Bytes that a line may be further back than the messages themselves explain."""


class Store:
    """Queue and archive, for whoever adds messages and whoever removes them."""

    def __init__(self, database: QueueDatabase, turns: Turns, directory: str, doorbell: Doorbell) -> None:
        """Nothing is opened yet.

        Args:
            database: The queue.
            turns: The lock over both.
            directory: That of the archive.
            doorbell: Rung as soon as there is something to read.
        """
        self._doorbell = doorbell
        self._database = database
        self._turns = turns
        self._directory = directory
        self._appender = archive.Appender()
        self._durable_name = ""
        self._file_of_day = -1, ""  # that of the last message, and its day
        self._without_archive_since: float | None = None
        self._next_try = 0.0

    def open(self) -> None:
        """Open the queue. Append to the archive what it lacks, if nobody has done so since the boot.

        Raises:
            OSError, sqlite3.Error: The queue cannot be opened.
        """
        with self._take() as turn:
            self._database.run(contents.archived)
            if turn.number is None:
                self._catch_up(turn)

    def add(self, row: Row, has_own_time: bool = False) -> None:
        """Add a message, durably.

        Args:
            row: The message.
            has_own_time: Whether its time is not that of this call: it says nothing about that of the next one.

        Raises:
            OSError, sqlite3.Error: The queue does not take it. (Where the archive does not, it gets it later.)
        """
        with self._take() as turn:
            self._insert(turn, row, has_own_time)

    def add_once(self, key: str, rows: Sequence[Row]) -> None:
        """Add messages, all or none, unless that was done before under the same key.

        Raises:
            OSError, sqlite3.Error: The queue does not take them.
        """
        with self._take() as turn:

            def insert(connection: sqlite3.Connection) -> bool:
                if not contents.is_first(connection, key):
                    return False
                for each in rows:
                    _insert_when_free(connection, turn, each)
                return True

            if self._database.transaction(insert):
                self._doorbell.ring()
                self._catch_up(turn)

    def take_back(self, messages: Sequence[Returned]) -> list[int]:
        """Add messages that waited elsewhere, in order; to the archive first, as what was sent has no other place.

        Returns: For each the number that it has in the queue; 0 if only the archive has it.

        Raises:
            OSError, sqlite3.Error: None of them was added.
        """
        with self._take() as turn:
            is_archived = self._catch_up(turn, at_once=self._is_given_up()) and self._append_returned(messages)
            if not is_archived and not self._is_given_up():
                raise OSError("the archive takes no messages")

            def insert(connection: sqlite3.Connection) -> list[int]:
                last = turn.number or 0
                for each in messages:
                    if each.has_own_time:
                        contents.take_time(connection, each.timestamp, ())
                if not is_archived:
                    schema.count_dropped(connection, {"archive": sum(each.is_delivered for each in messages)})
                return [
                    0 if each.is_delivered else contents.insert(connection, last, each.timestamp, each.body)
                    for each in messages
                ]

            numbers = self._database.transaction(insert)
            turn.milliseconds = max(
                [
                    turn.milliseconds,
                    *(round(clock.or_epoch(each.timestamp) * 1000) for each in messages if not each.has_own_time),
                ]
            )
            turn.keep(max([turn.number or 0, *numbers]) if is_archived else turn.number)
            return numbers

    def _append_returned(self, messages: Sequence[Returned], size: int = 0) -> bool:
        """Append what is not among the last bytes; at least of so many as a try that went no further has left."""
        try:
            for path, some in itertools.groupby(messages, key=lambda each: self._file_of(each.timestamp)):
                lines = [archive.line(each.timestamp, each.body) for each in some]
                tail = archive.tail(path, max(size, 2 * sum(map(len, lines)) + _TORN))
                new = [line for line in lines if archive.fingerprint(line.encode()) not in tail]
                if new:
                    self._append_to(path, "".join(new))
                if any(each.is_delivered for each in messages):
                    self._sync_file(path)
        except OSError as error:
            self._endure(error)
            return False
        return True

    def remove(self, identifiers: Iterable[int], *, is_durable: bool = True) -> None:
        """Remove messages, once the archive has them durably.

        Args:
            identifiers: Which.
            is_durable: Whether a power cut brings back none of them. If not, it is the next message that is added
                whose sync makes this durable, too.

        Raises:
            OSError, sqlite3.Error: They could not be removed now.
        """
        if not (listed := list(identifiers)):
            return
        archived = self.sync(max(listed))

        def remove(connection: sqlite3.Connection, some: list[int]) -> None:
            contents.remove(connection, some)
            contents.note_archived(connection, archived)

        for first in range(0, len(listed), _REMOVED_AT_ONCE):  # those who add messages wait meanwhile
            some = listed[first : first + _REMOVED_AT_ONCE]
            is_synced = is_durable and some[-1] == listed[-1]  # one sync is that of all before
            with self._take():
                self._database.transaction(partial(remove, some=some), is_synced=is_synced)
            notify.heartbeat()

    def set_aside(self, reasons: Mapping[int, str], next_try: float) -> None:
        """Set messages aside, once the archive has them durably; see `set_aside.put`.

        Raises:
            OSError, sqlite3.Error: It could not be done now.
        """
        if not reasons:
            return
        archived = self.sync(max(reasons))

        def put(connection: sqlite3.Connection) -> None:
            set_aside.put(connection, reasons, next_try)
            contents.note_archived(connection, archived)

        with self._take():
            self._database.transaction(put)

    def sync(self, last: int | None = None) -> int:
        """Make the archive durable, if it is not up to this message (all of them, if None).

        Returns: The number up to which it is, for `contents.note_archived`.

        Raises:
            OSError, sqlite3.Error: It could not be done now.
        """
        before = self._database.run(contents.archived)
        if last is not None and last <= before:
            return before
        with self._take() as turn:
            lacks_nothing = self._catch_up(turn, at_once=last is not None and self._is_given_up())
            reached = turn.number or 0
        try:
            if not lacks_nothing and (last is None or reached < last):
                raise OSError("the archive takes no messages")
            self._sync_days(before, reached)
        except OSError as error:
            self._endure(error)
            if last is None or not self._is_given_up():
                raise
            return self._give_up(before, last)
        if lacks_nothing:
            self._enjoy()
        return max(before, reached)

    def salvaged_rows(self, old: str) -> int:
        """How many rows of a damaged queue were gone through before the salvage was interrupted."""
        return self._database.run(partial(contents.mark, name=_salvage_of(old)))

    def put_salvaged(
        self, old: str, rows: Sequence[tuple[int, float, bytes]], read: int, dropped: dict[str, int], durable: float
    ) -> None:
        """Queue rows of a damaged queue again, under their numbers where these are free.

        Args:
            old: Its file.
            rows: Number, timestamp and body of each.
            read: How many were gone through for that.
            dropped: How many there is no room for, by variant.
            durable: Up to which number the archive had them durably: later ones are looked for there.
        """
        doubted = [Returned(row[1], row[2].decode(errors="replace"), False) for row in rows if row[0] > durable]

        def put(connection: sqlite3.Connection) -> None:
            contents.put_back(connection, rows)
            schema.count_dropped(connection, dropped)
            contents.set_mark(connection, _salvage_of(old), contents.mark(connection, _salvage_of(old)) + read)

        with self._take():
            self._append_returned(doubted, _MOST_OF_A_TAIL)  # much was appended since, perhaps
            self._database.transaction(put)

    def forget_salvages(self) -> None:
        """All are done."""
        self._database.transaction(contents.forget_marks)

    def add_dropped(self, counts: dict[str, int]) -> None:
        """Count messages that were dropped elsewhere."""
        self._database.transaction(lambda connection: schema.count_dropped(connection, counts))

    def keep_durable(self) -> None:
        """Make the archive durable and note it, now and then, where nothing is removed.

        Raises:
            OSError, sqlite3.Error: It could not be done now.
        """
        reached = self.sync()
        if reached > self._database.run(contents.archived):
            with self._take():
                self._database.transaction(partial(contents.note_archived, number=reached), is_synced=False)

    def close(self) -> None:
        """Close what this has open; the queue, too."""
        self._database.close()
        self._appender.close()
        self._turns.close()

    @contextlib.contextmanager
    def _take(self) -> Generator[Turn, None, None]:
        with self._turns.take(self._database.patience()) as turn:
            self._database.floor = turn.number or 0
            try:
                yield turn
            except errors.OtherDisk:
                turn.keep(None)  # it was noted of the one beneath
                raise

    def _insert(self, turn: Turn, row: Row, has_own_time: bool) -> None:
        body, before = row[1], turn.number

        def insert(connection: sqlite3.Connection) -> tuple[float, int]:
            if not has_own_time:
                return _insert_when_free(connection, turn, row)
            timestamp = contents.take_time(connection, row[0], (turn.milliseconds,))
            return timestamp, contents.insert(connection, before or 0, timestamp, body)

        # Usually one statement writes, which needs no transaction of its own.
        timestamp, number = (self._database.transaction if has_own_time else self._database.run)(insert)
        self._doorbell.ring()  # the message is safe, so it can be sent while the archive is written
        if before is None or number != before + 1:  # a writer was killed, or the archive took nothing
            self._catch_up(turn)
            return
        try:
            self._append(timestamp, body)
        except OSError as error:
            self._endure(error)
            turn.keep(before)
        else:
            self._enjoy()
            turn.keep(number)

    def _append(self, timestamp: float, body: str) -> None:
        self._append_to(self._file_of(timestamp), archive.line(timestamp, body))

    def _append_to(self, path: str, lines: str) -> None:
        with files.as_owner_of(self._directory):
            self._appender.append(path, lines)

    def _file_of(self, timestamp: float) -> str:
        day = _day_of(timestamp)
        if day != self._file_of_day[0]:
            self._file_of_day = day, archive.file_of(self._directory, _EPOCH + datetime.timedelta(days=day))
        return self._file_of_day[1]

    def _catch_up(self, turn: Turn, *, at_once: bool = False) -> bool:
        """Append what the archive lacks: all that its tail does not hold, of what came after what it surely has.

        Args:
            turn: Knows how far it goes.
            at_once: Whether it is tried in any case: if it takes nothing now, it never gets this.

        Returns: Whether it lacks nothing any more.
        """
        if not at_once and time.monotonic() < self._next_try:
            turn.keep(turn.number)
            return False
        number = max(turn.number or 0, self._database.run(contents.archived))
        size = min(
            2 * self._database.run(partial(contents.size_of_following, number=number)) + _TORN, _MOST_OF_A_TAIL
        )
        path, tail = "", set[int]()
        try:
            while rows := self._database.run(partial(contents.following, number=number, n=_ROWS_AT_ONCE)):
                for identifier, timestamp, body in rows:
                    if self._file_of(timestamp) != path:
                        path = self._file_of(timestamp)
                        tail = archive.tail(path, size)
                    if archive.fingerprint(archive.line(timestamp, body).encode()) not in tail:
                        self._append(timestamp, body)
                        self._enjoy()
                    number = identifier
                notify.heartbeat()
        except OSError as error:
            self._endure(error)
            if size > MUCH:  # else each message costs more than the one before
                self._next_try = time.monotonic() + SECONDS_BETWEEN_TRIES
            turn.keep(number)
            return False
        turn.keep(number)
        return True

    def _sync_days(self, after: int, last: int) -> None:
        for day in self._database.run(lambda connection: contents.days(connection, after, last)):
            self._sync_file(self._file_of(day * _SECONDS_PER_DAY))

    def _sync_file(self, path: str) -> None:
        with files.as_owner_of(self._directory):
            archive.sync(path)
            if path != self._durable_name:  # its name, too, once
                files.sync(Path(self._directory))
                self._durable_name = path

    def _endure(self, error: OSError) -> None:
        if self._without_archive_since is None:
            self._without_archive_since = time.monotonic()
            journal.send("ERROR", f"the archive takes no messages, they wait in the queue: {error}")
            trouble.begin(str(error), trouble.ARCHIVE_PATH)

    def _enjoy(self) -> None:
        if trouble.is_noted(trouble.ARCHIVE_PATH):  # by a process that was killed, perhaps
            trouble.end(trouble.ARCHIVE_PATH)
        if self._without_archive_since is not None:
            seconds = time.monotonic() - self._without_archive_since
            self._without_archive_since = None
            journal.send("WARNING", f"the archive took no messages for {seconds:.0f} s")

    def _is_given_up(self) -> bool:
        since = self._without_archive_since
        return since is not None and time.monotonic() - since > SECONDS_WITHOUT_ARCHIVE

    def _give_up(self, before: int, last: int) -> int:
        """Let go of messages that the archive could not be given. Returns the number of the last one."""

        def count(connection: sqlite3.Connection) -> None:
            schema.count_dropped(connection, {"archive": contents.count(connection, before, last)})
            contents.note_archived(connection, last)

        with self._take() as turn:
            self._database.transaction(count)
            turn.keep(max(turn.number or 0, last))
        return last


def _insert_when_free(connection: sqlite3.Connection, turn: Turn, row: Row) -> tuple[float, int]:
    """Add a message under the first millisecond from its time on that no other has. Returns time and number."""
    timestamp, number = row[0], None
    while number is None:
        timestamp = turn.own_millisecond(timestamp)
        number = contents.insert_where_free(connection, turn.number or 0, timestamp, row[1])
    return timestamp, number


def _salvage_of(old: str) -> str:
    return f"salvaged of {os.path.basename(old)}"


def _day_of(timestamp: float) -> int:
    """In days since 1970."""
    return int(clock.or_epoch(timestamp) // _SECONDS_PER_DAY)
