"""Where messages wait, in memory, while the disk does not take them: the newest ones, for as long as it must be."""

import collections
import sqlite3
import time
from collections.abc import Callable

from ivy.utils import notify
from ivy.utils.host import journal

Row = tuple[float, str]
"""Unix time in seconds, and a message's body as JSON."""

MOST_ROWS = 2000
MOST_CHARACTERS = 4_000_000


class MemoryBuffer:
    """Writes messages to a place, together with those that could not be written before.

    A process that ends loses what it holds here: the disk is full, and there is no other place.
    """

    def __init__(
        self, place: str, write: Callable[[Row], None], is_passing: Callable[[OSError | sqlite3.Error], bool]
    ) -> None:
        """Holds nothing yet.

        Args:
            place: What is written to, for reports.
            write: Writes a message there, durably.
            is_passing: Whether an error of `write` is one after which it is worth keeping the message.
        """
        self._place = place
        self._write = write
        self._is_passing = is_passing
        self._rows: collections.deque[Row] = collections.deque()
        self._lost: collections.Counter[str] = collections.Counter()
        self._since = 0.0

    def put(self, row: Row) -> str | None:
        """Write a message, or hold it.

        Returns: What is to be told if this ended a time of trouble.

        Raises:
            OSError, sqlite3.Error: What `write` raised, if that is not passing. The message is not held.
        """
        if self._rows:
            self._rows.append(row)
            return self._write_held()
        try:
            self._write(row)
        except (OSError, sqlite3.Error) as error:
            if not self._is_passing(error):
                raise
            self._rows.append(row)
            self._since = time.monotonic()
            journal.send("ERROR", f"{self._place} takes no messages, the newest are held in memory: {error}")
        return None

    def take_lost(self) -> dict[str, int]:
        """How many messages of each variant were given up since this was asked last."""
        lost = dict(self._lost)
        self._lost.clear()
        return lost

    def put_lost_back(self, lost: dict[str, int]) -> None:
        """Undo `take_lost`."""
        self._lost.update(lost)

    def _write_held(self) -> str | None:
        held = len(self._rows)
        try:
            while self._rows:
                self._write(self._rows[0])
                self._rows.popleft()
                notify.heartbeat()
        except (OSError, sqlite3.Error):
            self._give_up_some()
            return None
        lost = self._lost.total()
        report = f"{self._place} took no messages for {time.monotonic() - self._since:.0f} s, {lost} were lost"
        journal.send("WARNING", f"{report}; {held} held in memory are written now")
        return report

    def _give_up_some(self) -> None:
        """Keep what is held within bounds: logs go before data, the oldest first."""
        while len(self._rows) > MOST_ROWS or sum(len(body) for _, body in self._rows) > MOST_CHARACTERS:
            logs = (row for row in self._rows if variant_of(row[1]) == "log")
            given_up = next(logs, self._rows[0])
            self._rows.remove(given_up)
            self._lost[variant_of(given_up[1])] += 1


def variant_of(body: str) -> str:
    """The variant of a message's body as JSON, without parsing it."""
    return body[len('{"variant":"') :].partition('"')[0]
