"""Where the axes of a picture have their ticks, and what stands there: round numbers, round times in UTC."""

import datetime
import math

WIDEST_LABEL = 10
"""Characters of a value's label, at most."""

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_TIME_STEPS = (
    *(1, 2, 5, 10, 15, 30),
    *(_MINUTE * count for count in (1, 2, 5, 10, 15, 30)),
    *(_HOUR * count for count in (1, 2, 3, 6, 12)),
    *(_DAY * count for count in (1, 2, 5, 10)),
)
_MONTH_STEPS = (1, 2, 3, 6, 12, 24, 60, 120, 240, 600, 1200)


def padded(low: float, high: float) -> tuple[float, float]:
    """Bounds of an axis that is no point, however close the extremes of its values."""
    least = max(abs(low), abs(high)) * 1e-9
    if high - low > max(least, 1e-290):
        return low, high
    room = max(abs(high) * 0.05, 1e-6) if high else 1.0
    return low - room, high + room


def of_values(low: float, high: float, most: int) -> list[tuple[float, str]]:
    """Ticks of an axis of values: where, and the label.

    Args:
        low: The lower bound.
        high: The upper bound, higher.
        most: How many there may be, about.
    """
    rough = (high - low) / max(1, most)
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(magnitude * factor for factor in (1, 2, 5, 10) if magnitude * factor >= rough * 0.999)
    numbers = range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return [(number * step, _value_label(number * step, decimals)) for number in numbers]


def _value_label(value: float, decimals: int) -> str:
    plain = f"{value:.{decimals}f}" if decimals < WIDEST_LABEL and abs(value) < 1e9 else ""
    return plain if 0 < len(plain) <= WIDEST_LABEL else f"{value:.4g}"


def of_times(start: float, end: float, most: int) -> list[tuple[float, str]]:
    """Ticks of an axis of times (Unix, in seconds), otherwise as those of values."""
    rough = (end - start) / max(1, most)
    if rough > _TIME_STEPS[-1]:
        return _of_months(start, end, rough)
    step = next(step for step in _TIME_STEPS if step >= rough)
    times = range(math.ceil(start / step) * step, math.floor(end) + 1, step)
    return [(time, _time_label(time, step)) for time in times]


def _time_label(time: int, step: int) -> str:
    moment = datetime.datetime.fromtimestamp(time, datetime.UTC)
    if time % _DAY == 0:
        return f"{moment:%m-%d}"
    return f"{moment:%H:%M}" if step >= _MINUTE else f"{moment:%H:%M:%S}"


def _of_months(start: float, end: float, rough: float) -> list[tuple[float, str]]:
    step = next((step for step in _MONTH_STEPS if step * 30 * _DAY >= rough), _MONTH_STEPS[-1])
    first, last = (datetime.datetime.fromtimestamp(time, datetime.UTC) for time in (start, end))
    months = range(max(12, first.year * 12 // step * step), last.year * 12 + last.month, step)
    begins = [datetime.datetime(month // 12, month % 12 + 1, 1, tzinfo=datetime.UTC) for month in months]
    return [(begin.timestamp(), f"{begin:%Y-%m}") for begin in begins if start <= begin.timestamp() <= end]


def range_text(start: float, end: float) -> str:
    """Both ends of a time, for a caption."""
    ends = [datetime.datetime.fromtimestamp(time, datetime.UTC) for time in (start, end)]
    return f"{ends[0]:%Y-%m-%d %H:%M} to {ends[1]:%Y-%m-%d %H:%M} UTC"


def number(value: float) -> str:
    """A value for a caption."""
    return f"{value:.6g}"
