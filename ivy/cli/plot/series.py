"""What was sampled under one key, thinned out for a picture: so many bins of time, each with its extremes.

A spike of one sample among millions stays visible, and the memory that it takes depends on the picture only.
"""

import math
from collections import Counter
from dataclasses import dataclass, field

LARGEST = 1e300
"""What is larger is treated as infinite, so that differences are not."""

_USUAL_INTERVALS_OF_A_GAP = 4.0
_STEPS_PER_OCTAVE = 4  # in which intervals are counted: within a fifth


@dataclass(frozen=True)
class Window:
    """The time that a picture shows, and in how many bins."""

    start: float
    end: float
    bins: int

    def bin_of(self, timestamp: float) -> int:
        """The number of the bin of a time."""
        share = (timestamp - self.start) / (self.end - self.start)
        return min(self.bins - 1, max(0, int(share * self.bins)))


@dataclass
class Bin:
    """The samples of a short time."""

    start: float
    end: float
    first: float
    last: float
    low: float
    high: float
    after_break: bool

    def points(self) -> list[tuple[float, float]]:
        """Times and values of a line that shows the extremes."""
        if self.start == self.end and self.low == self.high:
            return [(self.start, self.first)]
        middle = (self.start + self.end) / 2
        extremes = (self.low, self.high) if self.last >= self.first else (self.high, self.low)
        return [(self.start, self.first), *((middle, value) for value in extremes), (self.end, self.last)]


@dataclass
class Series:
    """The samples of one key within a window."""

    key: str
    window: Window
    count: int = 0
    left_out: int = 0
    last: float | None = None
    _bins: dict[int, Bin] = field(default_factory=dict)
    _intervals: Counter[int] = field(default_factory=Counter)
    _latest: float = -math.inf
    _is_broken: bool = False

    def add(self, timestamp: float, value: float | int | str) -> None:
        """Add a sample. Text is counted only; a number that is none, or is infinite, also breaks the line."""
        if isinstance(value, str) or not abs(value) < LARGEST:
            self.left_out += 1
            self._is_broken = self._is_broken or not isinstance(value, str)
            return
        value = float(value)
        self.count += 1
        if timestamp > self._latest:
            if self.count > 1:
                self._intervals[round(_STEPS_PER_OCTAVE * math.log2(timestamp - self._latest))] += 1
            self._latest, self.last = timestamp, value
        self._put(self.window.bin_of(timestamp), timestamp, value)
        self._is_broken = False

    def _put(self, number: int, timestamp: float, value: float) -> None:
        found = self._bins.get(number)
        if found is None:
            self._bins[number] = Bin(timestamp, timestamp, value, value, value, value, self._is_broken)
            return
        found.low, found.high = min(found.low, value), max(found.high, value)
        if timestamp < found.start:  # the clock was set back
            found.start, found.first = timestamp, value
        elif timestamp >= found.end:
            found.end, found.last = timestamp, value

    def lines(self) -> list[list[tuple[float, float]]]:
        """Times and values of unbroken lines: between two of them is a gap in the data."""
        longest = self._longest_interval()
        lines: list[list[tuple[float, float]]] = []
        end = -math.inf
        for _, each in sorted(self._bins.items()):
            if each.after_break or each.start - end > longest:
                lines.append([])
            lines[-1].extend(each.points())
            end = each.end
        return lines

    def extremes(self) -> tuple[float, float]:
        """The lowest and the highest value; there must be one."""
        return min(each.low for each in self._bins.values()), max(each.high for each in self._bins.values())

    def _longest_interval(self) -> float:
        """Seconds between two samples that belong together: a few times the median, by its counts."""
        rest = self._intervals.total() / 2
        for step, count in sorted(self._intervals.items()):
            rest -= count
            if rest <= 0:
                return float(_USUAL_INTERVALS_OF_A_GAP * 2 ** (step / _STEPS_PER_OCTAVE))
        return 0.0
