"""Finds the message for which a broker breaks connections. Pure bookkeeping: sends and removes nothing.

A broker that is restarted breaks connections too, and must never cost a message. So there have to be three breaks
of one message's, and the last of them while it was alone, over a connection that had just carried others.
"""

from collections.abc import Sequence
from typing import Optional

from ivy.types.messages import MessageQueueItem

_BREAKS_OF_A_SUSPECT = 2


class Suspects:
    """Counts, for each message that is under way when the broker breaks the connection, how often that happened."""

    def __init__(self) -> None:
        self._breaks: dict[int, int] = {}
        self._has_delivered = False  # whether the connection carries messages at all

    def connected(self) -> None:
        """There is a new connection."""
        self._has_delivered = False

    def delivered(self, message_ids: Sequence[int]) -> None:
        """The broker acknowledged messages."""
        self._has_delivered = True
        for identifier in message_ids:
            self._breaks.pop(identifier, None)

    def broken(self, in_flight: set[int]) -> Optional[int]:
        """The broker broke the connection. Returns the message that is to blame, if that is certain."""
        for identifier in in_flight:
            self._breaks[identifier] = self._breaks.get(identifier, 0) + 1
        if len(in_flight) != 1 or not self._has_delivered:
            return None
        [alone] = in_flight
        if self._breaks[alone] <= _BREAKS_OF_A_SUSPECT:
            return None
        del self._breaks[alone]
        return alone

    def choose(self, items: Sequence[MessageQueueItem], in_flight: set[int]) -> Sequence[MessageQueueItem]:
        """Those that may be sent now: all that are no suspects; when there are none, one suspect, alone."""
        if not self._breaks:
            return items
        if any(map(self._is_suspect, in_flight)):
            return []
        free = [item for item in items if not self._is_suspect(item.identifier)]
        if free or in_flight or not items:
            return free
        return [min(items, key=lambda item: self._breaks[item.identifier])]

    def _is_suspect(self, identifier: int) -> bool:
        return self._breaks.get(identifier, 0) >= _BREAKS_OF_A_SUSPECT
