"""How many messages may be sent, and how fast: after trouble, and where the platform says so. Knows no platform."""

import time
from collections.abc import Sequence

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

    def take(self, cost: float) -> None:
        """Use so much, if need be in advance."""
        self._level -= cost


class Pace:
    """Holds publications to the limits that the platform named last; without any it says yes to everything."""

    def __init__(self) -> None:
        self._limits = Limits()
        self._of_publications: list[Bucket] = []
        self._of_points: list[Bucket] = []

    def limit(self, limits: Limits) -> None:
        """Keep to these from now on."""
        if limits == self._limits:  # of a new connection: the platform goes on counting, and so does this
            return
        self._limits = limits
        self._of_publications = [Bucket(number * _SHARE, seconds) for number, seconds in limits.publications]
        self._of_points = [Bucket(number * _SHARE, seconds) for number, seconds in limits.points]

    def may_be_in_flight(self, publications: int) -> bool:
        """Whether so many may wait for their acknowledgments."""
        return self._limits.most_in_flight is None or publications <= self._limits.most_in_flight

    def are_small_enough(self, publications: Sequence[Publication]) -> bool:
        """Whether the platform takes publications as large as these."""
        largest = self._limits.largest_publication
        return largest is None or all(publication.size <= largest for publication in publications)

    def seconds_until(self, publications: Sequence[Publication]) -> float:
        """How long to wait before all of these may be sent."""
        points = sum(publication.points for publication in publications)
        waits = [bucket.seconds_until(len(publications)) for bucket in self._of_publications]
        return max([0.0, *waits, *(bucket.seconds_until(points) for bucket in self._of_points)])

    def take(self, publications: Sequence[Publication]) -> None:
        """These are sent now."""
        for bucket in self._of_publications:
            bucket.take(len(publications))
        for bucket in self._of_points:
            bucket.take(sum(publication.points for publication in publications))


class Window:
    """As large as the config says, until there is trouble; and again soon after it."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.size = most

    def shrink(self) -> None:
        """What was under way may have been too much: try half of it."""
        self.size = max(1, self.size // 2)

    def grow(self) -> None:
        """A publication got through: try a little more. Twice as much would mostly be refused again."""
        self.size = min(self._most, self.size + self.size // 4 + 1)
