"""`ivy.backend.line.Line`: how much is under way follows what the line carries, and what the broker takes."""

import itertools

import pytest

from ivy.backend.dialect import LARGEST_BATCH, Publication
from ivy.backend.in_flight import InFlight
from ivy.backend.line import MOST_BYTES, Line

SIZE = 100  # bytes of a message


def _batch(messages: int, size: int = SIZE) -> Publication:
    empty = Publication("", b"", tuple(range(messages)))
    return Publication("", bytes(max(0, size * messages - empty.size)), empty.message_ids)


class Use:
    """Keeps a line busy, as a forwarder would."""

    def __init__(self, bytes_per_second: float, round_trip: float = 0.1) -> None:
        self.bytes_per_second = bytes_per_second
        self.round_trip = round_trip
        self.line = Line()
        self.now = 1000.0
        self.longest = 0.0
        """Seconds from a publication to its acknowledgment."""
        self._in_flight = InFlight()
        self._tokens = itertools.count()

    def send(self, seconds: float) -> None:
        """Send for so long; then wait for what is under way."""
        waiting: list[tuple[float, int]] = []
        end = free_at = self.now
        end += seconds
        while self.now < end or waiting:
            while self.now < end and self._in_flight.size < self.line.most_bytes:
                token, batch = next(self._tokens), _batch(self.line.messages_at_once)
                self._in_flight.add(token, batch, self.now)
                free_at = max(free_at, self.now) + batch.size / self.bytes_per_second
                waiting.append((free_at + self.round_trip, token))
            self.now, token = waiting.pop(0)
            self.acknowledge(token)

    def send_one(self, seconds: float) -> None:
        """A small message on an idle line, and its acknowledgment after so long."""
        token = next(self._tokens)
        self._in_flight.add(token, _batch(1), self.now)
        self.now += seconds
        self.acknowledge(token)

    def acknowledge(self, token: int) -> None:
        """Something has arrived."""
        if (sent := self._in_flight.pop(token, self.now)) is not None:
            self.longest = self.now - sent.at
            self.line.taken(sent, self._in_flight.acknowledged, self.now)


@pytest.mark.parametrize("bytes_per_second", [100.0, 600.0, 5000.0, 100_000.0])
def test_no_more_is_under_way_than_is_carried_in_some_seconds(bytes_per_second: float) -> None:
    use = Use(bytes_per_second)
    use.send(120)
    assert 2 * bytes_per_second < use.line.most_bytes < 6 * bytes_per_second
    assert use.line.largest_batch <= min(max(SIZE, 5 * bytes_per_second), LARGEST_BATCH)
    assert SIZE * use.line.messages_at_once <= max(SIZE, use.line.largest_batch)
    assert use.longest < 8


def test_a_line_that_carries_much_is_used_after_some_round_trips() -> None:
    use = Use(1e9)
    use.send(1)
    assert use.line.most_bytes == MOST_BYTES
    assert use.line.largest_batch == LARGEST_BATCH


def test_a_line_that_becomes_slow_is_noticed() -> None:
    use = Use(50_000)
    use.send(30)
    use.bytes_per_second = 600
    use.send(700)
    assert use.line.most_bytes < 6 * 600


def test_a_small_message_on_an_idle_line_says_little_of_it() -> None:
    use = Use(1e6, 0.01)
    use.send(30)
    before = use.line.most_bytes
    use.send_one(0.5)
    use.send_one(1e-9)
    assert use.line.most_bytes == before


def test_another_connection_begins_small_again() -> None:
    use = Use(1e9)
    first = use.line.messages_at_once
    use.send(1)
    use.line.connected()
    assert use.line.messages_at_once == first < 20


def _take(line: Line, messages: int) -> None:
    in_flight = InFlight()
    in_flight.add(0, _batch(messages), 0)
    if (sent := in_flight.pop(0, 1)) is not None:
        line.taken(sent, in_flight.acknowledged, 1)


def test_half_of_what_a_broker_breaks_the_connection_over_is_the_next_bound() -> None:
    line = Line()
    line.not_taken([_batch(16), _batch(8)])
    assert line.largest_batch == 8 * SIZE
    line.connected()
    assert line.largest_batch == 8 * SIZE
    line.not_taken([_batch(8)])
    assert line.largest_batch == 4 * SIZE


def test_not_if_as_large_ones_came_through_over_this_connection() -> None:
    line = Line()
    _take(line, 16)
    before = line.largest_batch
    line.not_taken([_batch(16), _batch(8)])
    assert line.largest_batch == before
    line.connected()
    line.not_taken([_batch(8)])
    assert line.largest_batch == 4 * SIZE


def test_one_message_cannot_be_made_smaller() -> None:
    line = Line()
    before = line.largest_batch
    line.not_taken([_batch(1, 10_000)])
    assert line.largest_batch == before


def test_a_bound_grows_slowly_and_by_large_ones_only() -> None:
    use = Use(1e9)
    use.line.not_taken([_batch(16)])
    for _ in range(100):
        _take(use.line, 3)
    assert use.line.largest_batch == 8 * SIZE
    _take(use.line, 4)
    assert 8 * SIZE < use.line.largest_batch < 9 * SIZE
    use.send(10)
    assert use.line.largest_batch == LARGEST_BATCH


@pytest.mark.parametrize("limit", [300, 1000, 10_000])
def test_a_broker_with_a_bound_breaks_few_connections(limit: int) -> None:
    line, breaks, taken = Line(), 0, 0
    for now in range(1000):
        in_flight, batch = InFlight(), _batch(line.messages_at_once)
        in_flight.add(0, batch, now)
        if batch.size > limit:
            breaks += 1
            line.not_taken([batch])
            line.connected()
        elif (sent := in_flight.pop(0, now + 0.01)) is not None:
            taken += 1
            line.taken(sent, in_flight.acknowledged, now + 0.01)
    assert breaks <= taken / 8
