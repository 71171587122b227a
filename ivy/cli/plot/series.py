"""What was sampled under one key, thinned out for a picture: so many bins of time, each with its extremes.

A spike of one sample among millions stays visible, and the memory that it takes depends on the picture only.
"""

import math
from collections import Counter
from dataclasses import dataclass, field

LARGEST = 1e300
"""What is larger is treated as infinite, so that differences are not."""

_USUAL_INTERVALS_OF_A_GAP = 4.0
_Point = tuple[float, float]
_STEPS_PER_OCTAVE = 4  # in which intervals are counted: within a fifth


@dataclass(frozen=True)
class Window:
    """The time that a picture shows, and in how many bins."""

    start: float
    end: float
    bins: int


@dataclass
class Series:
    """The samples of one key within a window."""

    key: str
    window: Window
    count: int = 0
    left_out: int = 0
    last: float | None = None
    _bins: dict[int, list[_Point]] = field(default_factory=dict)
    """Of each, the first, the last, the lowest and the highest."""
    _after_breaks: set[int] = field(default_factory=set)
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
        start, end, bins = self.window.start, self.window.end, self.window.bins
        number = min(bins - 1, int((timestamp - start) / (end - start) * bins))
        point = (timestamp, value)
        points = self._bins.get(number)
        if points is None:
            self._bins[number] = [point] * 4
            if self._is_broken:
                self._after_breaks.add(number)
        else:
            if point > points[1]:
                points[1] = point
            elif point < points[0]:  # a clock may have been set back
                points[0] = point
            if value < points[2][1]:
                points[2] = point
            elif value > points[3][1]:
                points[3] = point
        self._is_broken = False

    def lines(self) -> list[list[tuple[float, float]]]:
        """Times and values of unbroken lines: between two of them is a gap in the data."""
        longest = self._longest_interval()
        lines: list[list[tuple[float, float]]] = []
        end = -math.inf
        for number, corners in sorted(self._bins.items()):
            points = sorted(set(corners))
            if number in self._after_breaks or points[0][0] - end > longest:
                lines.append([])
            lines[-1].extend(points)
            end = points[-1][0]
        return lines

    def extremes(self) -> tuple[float, float]:
        """The lowest and the highest value; there must be one."""
        values = [value for points in self._bins.values() for _, value in points]
        return min(values), max(values)

    def _longest_interval(self) -> float:
        """Seconds between two samples that belong together: a few times the median, by its counts."""
        rest = self._intervals.total() / 2
        for step, count in sorted(self._intervals.items()):
            rest -= count
            if rest <= 0:
                return float(_USUAL_INTERVALS_OF_A_GAP * 2 ** (step / _STEPS_PER_OCTAVE))
        return 0.0
