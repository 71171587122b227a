"""Quantities as a person reads them."""

_UNITS = ((86_400, "d"), (3600, "h"), (60, "min"))
_MOST_OF_A_UNIT = 3  # of a larger one, until which the smaller one says more


def duration(seconds: float) -> str:
    """A time span, in the largest unit of which it has a few: `100 s`, `45 min`, `30 h`, `12 d`."""
    for length, unit in _UNITS:
        if seconds >= _MOST_OF_A_UNIT * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
