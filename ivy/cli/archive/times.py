"""Times as people write them in arguments: `2026-11-20`, `2026-11-20T14:30`, `-2h`. Without a zone they are UTC."""

import argparse
import datetime
import re
import time

_AGO = re.compile(r"-?(\d{1,9}(?:\.\d{1,9})?)(s|min|m|h|d|w)", re.ASCII)
_SECONDS = {"s": 1, "min": 60, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}

_LATEST = datetime.datetime(9999, 12, 31, tzinfo=datetime.UTC).timestamp()


def parse(text: str) -> float:
    """Understand a time.

    Args:
        text: An ISO date (its beginning) or time; or a time before now, as a number with s, min, h, d or w.

    Returns: Unix time in seconds, from 1970 to the year 9999.

    Raises:
        argparse.ArgumentTypeError: It is neither.
    """
    if ago := _AGO.fullmatch(text):
        return max(0.0, time.time() - float(ago[1]) * _SECONDS[ago[2]])
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must look like 2026-11-20, 2026-11-20T14:30 or -2h (s, min, h, d, w), not {text!r}"
        ) from None
    timestamp = (moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp()
    return min(max(0.0, timestamp), _LATEST)


def day_of(timestamp: float) -> datetime.date:
    """The UTC day of such a time."""
    return datetime.datetime.fromtimestamp(timestamp, datetime.UTC).date()
