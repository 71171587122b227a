"""Tells the operator how many messages were dropped, whoever dropped them.

Not by the queue: this message would be dropped first.
"""

import sqlite3
import time
from collections.abc import Callable, Mapping

from ivy.backend.delays import Delays
from ivy.backend.dialect import Dialect, Publication
from ivy.types.messages import LogMessageBody, MessageQueueItem
from ivy.utils.logger import Logger
from ivy.utils.messaging_agent import MessagingAgent
from ivy.utils.storage import set_aside


class Losses:
    """Remembers what was told of them, until it was acknowledged."""

    def __init__(self, queue: MessagingAgent, dialect: Dialect, journal: Logger, delays: Delays) -> None:
        """Nothing was told.

        Args:
            queue: Which counts what is dropped.
            dialect: How to tell it.
            journal: For trouble with that.
            delays: How long to wait between two reports.
        """
        self._queue = queue
        self._dialect = dialect
        self._journal = journal
        self._delays = delays
        self._told: dict[int, dict[str, int]] = {}  # what was dropped, by the token that tells of it
        self._next = 0.0

    def report(self, publish: Callable[[Publication], int]) -> None:
        """Tell it over a connection, if it is time to, and there is something to tell.

        Args:
            publish: Publishes, and returns the token that the acknowledgment will carry.

        Raises:
            sqlite3.Error: The queue does not tell.
        """
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + self._delays.between_losses
        counts = self._queue.get_untold_losses()
        if not counts:
            return
        body = LogMessageBody(
            level="WARNING",
            subject=f"queue - WARNING - {_in_words(counts)}",
            body="archive: those that are missing there, too",
        )
        item = MessageQueueItem(identifier=0, timestamp=time.time(), message_body=body)
        for publication in self._dialect.encode([item]).publications:
            self._told[publish(publication)] = counts

    def answered(self, token: int, *, is_delivered: bool) -> None:
        """A publication was answered, perhaps one of these."""
        counts = self._told.pop(token, None)
        if counts is None or not is_delivered:
            return
        try:
            self._queue.note_told_losses(counts)
        except sqlite3.Error as error:
            self._journal.warning(f"That messages were dropped will be told again: {error}")

    def disconnected(self) -> None:
        """Nothing will be answered any more."""
        self._told.clear()


def _in_words(counts: Mapping[str, int]) -> str:
    dropped = ", ".join(f"{count} {kind}" for kind, count in counts.items() if kind != set_aside.GIVEN_UP)
    given_up = counts.get(set_aside.GIVEN_UP, 0)
    said = [f"Messages were dropped for lack of room: {dropped}"] if dropped else []
    said += [f"Messages were given up, as the broker took them on no day of a week: {given_up}"] if given_up else []
    return "; ".join(said)
