"""What may be under way, and how fast: after trouble, and where the platform says so. Knows no platform."""

import math
import time
from collections.abc import Sequence

from ivy.backend.delays import USUAL, Delays
from ivy.backend.dialect import Limits, Publication

_SHARE = 0.8  # of what is allowed: the platform's clock runs otherwise, and counts what is on its way


class Bucket:
    """So many within so many seconds; what was not used is kept up to that number. It begins full."""

    def __init__(self, number: float, seconds: float) -> None:
        self._capacity = max(1.0, number)
        self._rate = number / seconds
        self._level = self._capacity
        self._filled = time.monotonic()

    def seconds_until(self, cost: float) -> float:
        """How long to wait until it holds so much. What it never can may be taken when it is full."""
        now = time.monotonic()
        self._level = min(self._capacity, self._level + (now - self._filled) * self._rate)
        self._filled = now
        return max(0.0, (min(cost, self._capacity) - self._level) / self._rate)

    @property
    def whole(self) -> int:
        """How many it held when this was asked last."""
        return max(0, math.floor(self._level))

    def take(self, cost: float) -> None:
        """Use so much, if need be in advance."""
        self._level -= cost


class Pace:
    """Holds publications to the limits that the platform named last; without any it says yes to everything."""

    def __init__(self) -> None:
        self._limits = Limits()
        self._of_publications: list[Bucket] = []
        self._of_points: list[Bucket] = []
        self._sent = self._sent_points = 0  # since the limits are these

    def limit(self, limits: Limits) -> None:
        """Keep to these from now on. What was sent before counts: the platform has counted it, too."""
        if limits == self._limits:  # of a new connection: the platform goes on counting, and so does this
            return
        self._limits = limits
        self._of_publications = [_used(number, seconds, self._sent) for number, seconds in limits.publications]
        self._of_points = [_used(number, seconds, self._sent_points) for number, seconds in limits.points]
        self._sent = self._sent_points = 0

    def may_be_in_flight(self, publications: int) -> bool:
        """Whether so many may wait for their acknowledgments."""
        return self._limits.most_in_flight is None or publications <= self._limits.most_in_flight

    def is_sparing(self, in_flight: int) -> bool:
        """Whether the platform counts publications, or would not have so many under way."""
        return bool(self._of_publications) or not self.may_be_in_flight(in_flight)

    @property
    def largest(self) -> float:
        """How large a publication may be, in bytes."""
        return math.inf if self._limits.largest_publication is None else self._limits.largest_publication

    def are_small_enough(self, publications: Sequence[Publication]) -> bool:
        """Whether the platform takes publications as large as these."""
        return all(publication.size <= self.largest for publication in publications)

    def seconds_until(self, publications: Sequence[Publication]) -> float:
        """How long to wait before all of these may be sent."""
        points = sum(publication.points for publication in publications)
        waits = [bucket.seconds_until(len(publications)) for bucket in self._of_publications]
        return max([0.0, *waits, *(bucket.seconds_until(points) for bucket in self._of_points)])

    def take(self, publications: Sequence[Publication]) -> None:
        """These are sent now."""
        points = sum(publication.points for publication in publications)
        self._sent += len(publications)
        self._sent_points += points
        for bucket in self._of_publications:
            bucket.take(len(publications))
        for bucket in self._of_points:
            bucket.take(points)


def _used(number: int, seconds: float, sent: int) -> Bucket:
    bucket = Bucket(number * _SHARE, seconds)
    bucket.take(min(sent, number))
    return bucket


class Brake:
    """Holds everything back for a while when the platform says that it is too much; longer each time."""

    def __init__(self, delays: Delays = USUAL) -> None:
        """Hold nothing back."""
        self._delays = delays
        self._pause = 0.0
        self._until = 0.0

    def pull(self, now: float) -> float:
        """It was too much. Returns until when nothing is to be sent; what came back together counts once."""
        if now >= self._until:
            longest, first = self._delays.longest_to_slow_down, self._delays.to_slow_down
            self._pause = min(longest, 2 * self._pause or first)
            self._until = now + self._pause
        return self._until

    def release(self) -> None:
        """Something was delivered."""
        self._pause = 0.0


class Window:
    """How many messages may be under way: as many as the config says, until there is trouble; and again soon."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.size = most

    def shrink(self, under_way: int) -> None:
        """So many messages, which were under way, may have been too much: try half of them."""
        self.size = max(1, min(self.size, under_way) // 2)

    def grow(self) -> None:
        """A publication got through: try a little more. Twice as much would mostly be refused again."""
        self.size = min(self._most, self.size + self.size // 4 + 1)
