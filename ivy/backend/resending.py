"""Messages of the archive that are sent again, when nothing else waits. Knows no link, and nothing of the queue.

They are read as they are sent, some at a time, so neither queue nor memory grows with what was asked for. How far
it is stands on the disk: whoever is killed sends those again that were acknowledged in the last seconds.
"""

import datetime
import math
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import NamedTuple

from ivy.types.messages import MessageQueueItem
from ivy.utils.logger import Logger
from ivy.utils.messaging_agent import MESSAGE_ARCHIVE_DIR
from ivy.utils.storage import archive, resend
from ivy.utils.storage.contents import FIRST_FOREIGN

_MOST_MESSAGES = 2000
"""From the first one on that is not acknowledged yet: so many come again after a kill."""
_MOST_BYTES = 2_000_000
"""Of all that was read and is not acknowledged yet; in the memory they take six times as much."""

_SECONDS_AT_ONCE = 0.005
"""For reading, before live messages have their turn."""

_SECONDS_OF_REST = 0.01
"""Before it goes on: on a small machine others sample meanwhile."""


class _Place(NamedTuple):
    """All before a line was sent: so many messages."""

    day: datetime.date | None = None
    line: int = 0
    sent: int = 0


class _Waiting(NamedTuple):
    item: MessageQueueItem
    size: int
    place: _Place


class Resending:
    """What is sent again, as long as it is not acknowledged. Trouble with the disk is no reason to fail."""

    def __init__(self, logger: Logger, seconds_between_saves: float, *, is_wanted: bool = True) -> None:
        """Nothing is opened yet.

        Args:
            logger: For what the operator should know of.
            seconds_between_saves: How long what was sent may come again, if this is killed.
            is_wanted: Whether anything is to be sent again over this connection.
        """
        self._logger = logger
        self._journal = logger.without_messages()
        self._between_saves = seconds_between_saves
        self._is_wanted = is_wanted
        self._known: tuple[int, int] | None = None  # the request's file, as it was when it was read
        self._request: resend.Request | None = None
        self._lines: Iterator[resend.Line] | None = None  # None when all were read
        self._place = self._saved = _Place()
        self._waiting: dict[int, _Waiting] = {}  # in the order in which they stand in the archive
        self._bytes = 0
        self._number = FIRST_FOREIGN  # of the last one; never given again, as somebody may still acknowledge it
        self._next_look = self._next_save = 0.0
        self._is_searching = False
        self._trouble = ""

    def next(
        self, n: int, most_bytes: float, excluded: Collection[int], held_back: Collection[str] = ()
    ) -> list[MessageQueueItem]:
        """Some messages that may be sent now, as nothing else waits; they stay here until they are removed.

        Args:
            n: How many, at most.
            most_bytes: How many bytes they may have together; one comes in any case.
            excluded: The numbers of those that are on their way.
            held_back: The variants of which none is wanted.
        """
        self._is_searching = False
        if not self._is_wanted:
            return []
        self._endures(self._look)
        if self._request is None:
            return []
        self._endures(lambda: self._read(n, excluded, held_back))
        found: list[MessageQueueItem] = []
        for each in self._free(excluded, held_back):
            most_bytes -= each.size
            if len(found) == n or (found and most_bytes < 0):
                break
            found.append(each.item)
        if time.monotonic() >= self._next_save:
            self._endures(self._save)
        return found

    def chosen(self, message_ids: Iterable[int]) -> list[MessageQueueItem]:
        """Some of the messages that were read, and not removed yet."""
        if not self._is_wanted:
            return []
        return [self._waiting[identifier].item for identifier in message_ids if identifier in self._waiting]

    def remove(self, message_ids: Collection[int]) -> None:
        """These were acknowledged, or will never be. Numbers of others are ignored."""
        for identifier in message_ids:
            if (gone := self._waiting.pop(identifier, None)) is not None:
                self._bytes -= gone.size

    def seconds_until_due(self) -> float:
        """How long there is nothing new to send; infinity while nobody looks for it."""
        return _SECONDS_OF_REST if self._is_searching else math.inf

    def stop(self) -> None:
        """Nothing more is sent again: what is left goes on after the next start."""
        self._is_wanted = self._is_searching = False

    def close(self) -> None:
        """Keep how far it is."""
        if self._request is not None:
            self._endures(self._save)

    def _endures(self, step: Callable[[], None]) -> None:
        try:
            step()
        except OSError as error:
            if str(error) != self._trouble:
                self._journal.warning(f"Messages of the archive are not sent again as they should be: {error}")
            self._trouble = str(error)

    def _look(self) -> None:
        """See whether something was asked for, or taken back."""
        try:
            status = os.lstat(resend.REQUEST_FILE)
        except FileNotFoundError:
            self._known = None
            return self._forget()
        found, now = (status.st_ino, status.st_mtime_ns), time.monotonic()
        if found == self._known or now < self._next_look:
            return
        self._next_look = now + self._between_saves  # what cannot be read is not tried in each turn
        if (request := resend.request()) is None:
            return
        if self._request is None or request.token != self._request.token:
            self._begin(request)
        self._known, self._next_look = found, 0.0

    def _begin(self, request: resend.Request) -> None:
        self._forget()
        reached = resend.progress(request)
        if reached.is_done:
            return
        self._lines = resend.lines(request, request.paths(MESSAGE_ARCHIVE_DIR), reached, self._logger.warning)
        self._place = self._saved = _Place(reached.day, reached.line, reached.sent)
        self._request = request
        self._journal.info(f"Sending messages of the archive again, the first {reached.sent} were sent")

    def _forget(self) -> None:
        self._request = self._lines = None
        self._waiting.clear()
        self._bytes = 0

    def _free(self, excluded: Collection[int], held_back: Collection[str]) -> Iterator[_Waiting]:
        for identifier, each in self._waiting.items():
            if identifier not in excluded and each.item.message_body.variant not in held_back:
                yield each

    def _read(self, n: int, excluded: Collection[int], held_back: Collection[str]) -> None:
        """Read until there are as many as are wanted, or others should have their turn."""
        deadline = time.monotonic() + _SECONDS_AT_ONCE
        missing = n - sum(1 for _ in self._free(excluded, held_back))
        while self._lines is not None and missing > 0 and not self._is_full():
            if (line := next(self._lines, None)) is None:
                self._lines = None
                return
            here = _Place(line.day, line.number, self._place.sent)
            is_message = line.record is not None and self._take(line.record, line.size, here)
            self._place = _Place(line.day, line.number + 1, here.sent + is_message)
            missing -= is_message
            if time.monotonic() > deadline:
                self._is_searching = True
                return

    def _is_full(self) -> bool:
        first = next(iter(self._waiting.values()), None)
        read = 0 if first is None else self._place.sent - first.place.sent
        return read >= _MOST_MESSAGES or self._bytes >= _MOST_BYTES

    def _take(self, record: archive.Record, size: int, place: _Place) -> bool:
        """Whether it is a message, after all."""
        for found in archive.parse_record(str(place.day), record):
            self._number += 1
            item = MessageQueueItem(
                identifier=self._number, timestamp=found.timestamp, message_body=found.message_body
            )
            self._waiting[self._number] = _Waiting(item, size, place)
            self._bytes += size
            return True
        return False

    def _save(self) -> None:
        """Keep how far it is; if all was sent, tell the operator."""
        self._next_save = time.monotonic() + self._between_saves
        if (request := self._request) is None:
            return
        place = next((each.place for each in self._waiting.values()), self._place)
        is_done = self._lines is None and not self._waiting
        if place == self._saved and not is_done:
            return
        reached = resend.Progress(
            token=request.token, day=place.day, line=place.line, sent=place.sent, is_done=is_done
        )
        resend.keep(reached)
        self._saved, self._trouble = place, ""
        if is_done:
            self._forget()
            self._logger.info(f"{place.sent} messages of the archive were sent again, as it was asked for")
