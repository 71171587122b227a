"""How fast a backlog is sent. Knows no platform.

A platform that takes messages from the broker faster than it stores them keeps them in memory, without a bound.
"""

import math
import time
from collections.abc import Iterable, Sequence

from ivy.backend.flow_control import Bucket
from ivy.types.messages import MessageQueueItem
from ivy.utils.storage.contents import FIRST_FOREIGN

_SECONDS_SAVED = 0.25  # what was not used in so long may be used at once
_SECONDS_AT_ONCE = 0.1  # what these allow is sent together, as each publication costs the network something
_MOST_LIVE = 50  # that are looked for beside a backlog; if there are more, one looks again at once
_SECONDS_LIVE = 60.0
_ROUNDING = 0.001


class Backlog:
    """Holds back messages that were there when the connection came up, never those that came after that."""

    def __init__(self, most_per_second: int | None) -> None:
        """Without a number, nothing is held back."""
        saved = (most_per_second or 0) * _SECONDS_SAVED
        self._bucket = Bucket(saved, _SECONDS_SAVED) if most_per_second is not None else None
        self._at_once = max(1, math.floor((most_per_second or 0) * _SECONDS_AT_ONCE))
        self._newest: int | None = None  # the last message that was seen; None before the first look
        self._newest_spare = 0  # their numbers fall
        self._looked_for = 0
        self._let_go: set[int] = set()  # of the backlog, by the last look
        self._holds_back = False
        self.is_behind = False  # whether there may be more that is not to be held back

    def connected(self) -> None:
        """What is there now is a backlog, whenever it came."""
        self._newest = None

    def room(self, room: int) -> int:
        """How many messages to look at, where there is room for so many."""
        self._looked_for = room if self._bucket is None else min(room, self._affordable() + _MOST_LIVE)
        return self._looked_for

    def choose(self, items: Sequence[MessageQueueItem]) -> list[MessageQueueItem]:
        """Those of the newest messages, oldest first, that may be sent now."""
        if self._bucket is None:
            return list(items)
        live = {item.identifier for item in items if self._is_live(item)}
        old = [item.identifier for item in items if item.identifier not in live]
        self._let_go = set(old[max(0, len(old) - self._affordable()) :])
        self._holds_back = len(self._let_go) < len(old)
        self.is_behind = not old and len(items) >= self._looked_for
        if not self.is_behind:  # else what the next look finds is live, too, and older than these
            self._see(item.identifier for item in items)
        return [item for item in items if item.identifier in live or item.identifier in self._let_go]

    def take(self, identifiers: Iterable[int]) -> None:
        """These of the chosen ones are sent now."""
        if self._bucket is not None:
            self._bucket.take(len(self._let_go.intersection(identifiers)))

    def seconds_until_more(self) -> float:
        """When to look again; infinite if nothing is held back."""
        if self._bucket is None or not self._holds_back:
            return math.inf
        return self._bucket.seconds_until(self._at_once)

    def _affordable(self) -> int:
        """How many of the backlog: none, until there are enough for a publication."""
        if self._bucket is None or self._bucket.seconds_until(self._at_once) > _ROUNDING:
            return 0
        return self._bucket.whole

    def _is_live(self, item: MessageQueueItem) -> bool:
        # What moves from the spare queue to the disk gets a new number, and keeps its time.
        is_new = self._newest is not None and (
            item.identifier > self._newest or item.identifier < self._newest_spare
        )
        return is_new and abs(time.time() - item.timestamp) < _SECONDS_LIVE

    def _see(self, identifiers: Iterable[int]) -> None:
        seen = [identifier for identifier in identifiers if identifier < FIRST_FOREIGN]
        self._newest = max([self._newest or 0, *seen])
        self._newest_spare = min([self._newest_spare, *seen])
