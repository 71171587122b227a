"""Finds the message for which a broker breaks connections. Pure bookkeeping: sends and removes nothing.

A poison message breaks the connection twice: among others, which cannot be told from it, and alone. A broker that
is restarted, in trouble or out of quota breaks connections too, and must never cost a message. So one is to blame
only if all else went well: it was alone, over a connection that had carried others, and broke that promptly; the
broker took the next connection at once, and another message over it; and of late, no connection broke without it.
Who is not convicted waits for its next chance, longer each time, and stays in the queue.

Suspects must not wait for the end of a backlog, nor hold it up: of a connection that carries others, they get a
small part.
"""

import collections
import dataclasses
from collections.abc import Sequence

from ivy.backend.delays import USUAL, Delays
from ivy.types.messages import MessageQueueItem

_SECONDS_TO_BREAK = 5.0
_SECONDS_OF_TROUBLE = 600.0
_LONGEST_WAIT = 86400.0
_MOST_BREAKS = 100
_DELIVERIES_BETWEEN = 10  # publications from one suspect to the next, while there are others to send


@dataclasses.dataclass
class _Suspicion:
    breaks: int = 0
    not_before: float = 0.0
    not_first_before: float = 0.0
    """When it may go over a connection that has carried nothing yet, and so proves nothing."""


class Suspects:
    """Remembers the messages that were under way when the broker broke a connection. All times are monotonic."""

    def __init__(self, most: int, delays: Delays = USUAL) -> None:
        """Nobody is suspected.

        Args:
            most: How many to suspect, at least as many as may be under way. Of more, the oldest become ordinary
                again: if one was to blame, it will be found among others.
            delays: How long suspects wait.
        """
        self._most = most
        self._delays = delays
        self._suspects: dict[int, _Suspicion] = {}  # the latest last
        self._breaks: collections.deque[tuple[float, frozenset[int]]] = collections.deque(maxlen=_MOST_BREAKS)
        self._has_just_broken = False
        self.has_delivered = False  # whether the connection carries messages at all
        self._since_a_suspect = 0  # publications that it carried
        self._sent_alone = 0.0
        self._accused: int | None = None  # until another message gets through, or none does
        self._accused_at = 0.0

    def __len__(self) -> int:
        return len(self._suspects)

    def connected(self) -> None:
        """There is a new connection."""
        self._has_just_broken = self.has_delivered = False
        self._since_a_suspect = 0

    def delivered(self, message_ids: Sequence[int]) -> int | None:
        """The broker acknowledged messages. Returns the one that is to blame for the last break, if any is."""
        self.has_delivered = True
        is_free = self._suspects.keys().isdisjoint(message_ids)
        self._since_a_suspect = self._since_a_suspect + 1 if is_free else 0
        for identifier in message_ids:
            self._suspects.pop(identifier, None)
        culprit, self._accused = self._accused, None
        if culprit is not None:
            self._suspects.pop(culprit, None)
            unexplained = [one for one in self._breaks if culprit not in one[1]]
            self._breaks = collections.deque(unexplained, maxlen=_MOST_BREAKS)
        return culprit

    def broken(self, in_flight: set[int], now: float) -> None:
        """The broker broke the connection."""
        delays = self._delays
        for identifier in in_flight:
            suspicion = self._suspects[identifier] = self._suspects.pop(identifier, _Suspicion())
            suspicion.breaks += 1
            is_first = suspicion.breaks == 1
            suspicion.not_first_before = now + (delays.for_a_witness if is_first else delays.of_a_suspect)
            if suspicion.breaks > 1 and self.has_delivered:
                wait = min(_LONGEST_WAIT, delays.of_a_suspect * 2.0 ** (suspicion.breaks - 2))
                suspicion.not_before = suspicion.not_first_before = now + wait
        for identifier in list(self._suspects)[: -self._most]:
            del self._suspects[identifier]
        self._breaks.append((now, frozenset(in_flight)))
        self._has_just_broken = True
        self._accused = min(in_flight) if self._is_evident(in_flight, now) else None
        self._accused_at = now

    def _is_evident(self, in_flight: set[int], now: float) -> bool:
        if len(in_flight) != 1 or not self.has_delivered or now - self._sent_alone > _SECONDS_TO_BREAK:
            return False
        [alone] = in_flight
        others = [time for time, messages in self._breaks if alone not in messages]
        return self._suspects[alone].breaks > 1 and not any(now - time < _SECONDS_OF_TROUBLE for time in others)

    def lost(self) -> None:
        """There is no connection, for a reason that is in no message; so the last break had none there either."""
        self._accused = None
        if not self._has_just_broken:
            return
        self._has_just_broken = False
        when, messages = self._breaks.pop()
        self._breaks.append((when, frozenset()))
        for identifier in messages:
            breaks = self._suspects.pop(identifier, _Suspicion()).breaks - 1
            if breaks > 0:
                self._suspects[identifier] = _Suspicion(breaks)

    def choose(
        self, items: Sequence[MessageQueueItem], in_flight: set[int], now: float
    ) -> Sequence[MessageQueueItem]:
        """Those that may be sent now: all that are no suspects; or one suspect, alone, when its turn comes."""
        if not self._suspects:
            return items
        if not self._suspects.keys().isdisjoint(in_flight):
            return []
        free = [item for item in items if item.identifier not in self._suspects]
        if (free or in_flight) and self._since_a_suspect < _DELIVERIES_BETWEEN:
            return free
        impossible = self.waiting(now).union(item.identifier for item in free)
        ready = [item for item in items if item.identifier not in impossible]
        if not ready or in_flight:
            return [] if ready else free
        self._sent_alone = now
        return sorted(ready, key=lambda item: self._suspects[item.identifier].breaks)[:1]

    def forget_all_but(self, message_ids: set[int]) -> None:
        """These are all the messages that there are: whoever else is suspected was dropped from the queue."""
        for identifier in self._suspects.keys() - message_ids:
            del self._suspects[identifier]

    def waiting(self, now: float) -> set[int]:
        """Those that may not be sent now, whatever else there is."""
        if self._accused is not None and now - self._accused_at < self._delays.for_a_witness:
            return set(self._suspects)
        return {
            identifier
            for identifier, suspicion in self._suspects.items()
            if now < (suspicion.not_before if self.has_delivered else suspicion.not_first_before)
            or identifier == self._accused
        }
