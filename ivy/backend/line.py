"""How many bytes may be under way: what the line to the broker carries in some seconds. Pure bookkeeping."""

from collections.abc import Iterable

from ivy.backend.dialect import LARGEST_BATCH, Publication
from ivy.backend.in_flight import Sent

MOST_BYTES = 4_000_000
"""Bytes of messages that are under way, at most: in a backend's memory they take six times as much."""

_FIRST_BYTES = 4096
_USUAL_BYTES = 150.0
"""Of a message."""
_SECONDS_AHEAD = 5.0
_PARTS = 2
"""Of what may be under way: one is acknowledged while the other one is on a line that is slow."""
_SHORTEST = 1e-3


class Line:
    """How many bytes may be under way, and how many of them in one publication.

    So a live sample waits for some seconds at most, however slow the line is. What it carries shows when something
    is acknowledged. It begins small, and has grown to its size after some round trips.

    A broker may have a bound for publications that it does not name, but breaks the connection over. Half of what
    it did not take is a new bound, which grows slowly.
    """

    def __init__(self) -> None:
        """Nothing is known."""
        self._bound = MOST_BYTES
        self.connected()

    def connected(self) -> None:
        """There is a new connection, perhaps by another way. What the broker takes is as it was."""
        self._carries = _FIRST_BYTES
        self._largest_taken = 0
        self._bytes_per_message = _USUAL_BYTES

    @property
    def most_bytes(self) -> int:
        """What may be under way; of a message that is larger, one."""
        return min(self._carries, self._bound)

    @property
    def largest_batch(self) -> int:
        """Bytes of a publication of several messages, at most."""
        return min(LARGEST_BATCH, self.most_bytes // _PARTS)

    @property
    def messages_at_once(self) -> int:
        """How many messages to publish together, if they are like those before."""
        return max(1, int(self.largest_batch / self._bytes_per_message))

    def taken(self, sent: Sent, acknowledged: int, now: float) -> None:
        """The broker took a publication.

        Args:
            sent: What it was.
            acknowledged: Bytes that the connection has carried by now.
            now: What time it is, monotonic.
        """
        publication, is_large = sent.publication, self._is_large(sent.publication)
        seconds = max(_SHORTEST, now - sent.since)
        carries = round(_SECONDS_AHEAD * (acknowledged - sent.acknowledged) / seconds)
        if carries > self._carries and is_large:
            self._carries = min(MOST_BYTES, carries, 2 * self._carries)
        elif carries < self._carries and sent.under_way > self.most_bytes // _PARTS:
            self._carries = max(1, carries)  # of a line that was idle, little is known
        if is_large:
            self._bound = min(MOST_BYTES, self._bound + self._bound // 16 + 1)
        self._largest_taken = max(self._largest_taken, publication.size)
        self._bytes_per_message = publication.size / len(publication.message_ids)

    def not_taken(self, publications: Iterable[Publication]) -> None:
        """The broker refused a publication, or broke the connection over one of these: it may be too large.

        That of one message cannot be made smaller.
        """
        largest = max((each.size for each in publications if len(each.message_ids) > 1), default=0)
        if largest > self._largest_taken:
            self._bound = max(1, min(self.most_bytes // 2, largest))

    def _is_large(self, publication: Publication) -> bool:
        """Whether it is nearly as large as it might be; how a small one fares says nothing of larger ones."""
        return publication.size >= self.largest_batch // 2
