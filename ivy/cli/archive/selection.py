"""Which messages of the archive are wanted: by time, kind and key. Reads them one at a time, however many."""

import argparse
import datetime
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from ivy.types.messages import DataMessageBody, MessageArchiveItem
from ivy.utils.messaging_agent import MESSAGE_ARCHIVE_DIR
from ivy.utils.storage import archive

_AGO = re.compile(r"-?(\d{1,9}(?:\.\d{1,9})?)(s|min|m|h|d|w)", re.ASCII)
_SECONDS = {"s": 1, "min": 60, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}

_LATEST = datetime.datetime(9999, 12, 31, tzinfo=datetime.UTC).timestamp()


class UsageError(ValueError):
    """Arguments that do not go together; the text says which."""


@dataclass(frozen=True)
class Selection:
    """What is wanted; None and no keys mean all."""

    date: datetime.date | None = None
    since: float | None = None
    until: float | None = None
    kind: str | None = None
    keys: Sequence[str] = ()

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> "Selection":
        """Understand the arguments of `ivy messages`; raises `UsageError` where they make no sense together."""
        has_times = arguments.since is not None or arguments.until is not None
        if arguments.date is not None and has_times:
            raise UsageError("--date goes neither with --since nor with --until")
        if arguments.key and arguments.kind not in (None, "data"):
            raise UsageError(f"--key is for data: messages of the kind {arguments.kind} have no keys")
        date = None if has_times else _date(arguments.date)
        kind = "data" if arguments.key or (arguments.csv and arguments.kind is None) else arguments.kind
        return cls(date=date, since=arguments.since, until=arguments.until, kind=kind, keys=arguments.key)

    def read(self) -> Iterator[MessageArchiveItem]:
        """The messages, in the order in which they were written."""
        for day in self._days():
            for item in archive.read(archive.file_of(MESSAGE_ARCHIVE_DIR, day)):
                yield from self.pick(item)

    def pick(self, item: MessageArchiveItem) -> Iterator[MessageArchiveItem]:
        """The message if it is wanted, reduced to the wanted keys; or nothing."""
        if self.since is not None and item.timestamp < self.since:
            return
        if self.until is not None and item.timestamp >= self.until:
            return
        if self.kind is not None and item.message_body.variant != self.kind:
            return
        body = item.message_body
        if self.keys and isinstance(body, DataMessageBody):
            data = {key: value for key, value in body.data.items() if self._wants(key)}
            if not data:
                return
            item = item.model_copy(update={"message_body": body.model_copy(update={"data": data})})
        yield item

    def first_day(self) -> datetime.date:
        """The day to begin with."""
        if self.date is not None:
            return self.date
        return datetime.date.min if self.since is None else _day_of(self.since)

    def _wants(self, key: str) -> bool:
        return any(fnmatchcase(key, pattern) for pattern in self.keys)

    def _days(self) -> list[datetime.date]:
        first = self.first_day()
        last = self.date or (datetime.date.max if self.until is None else _day_of(self.until))
        return [day for day in archive.days(MESSAGE_ARCHIVE_DIR) if first <= day <= last]


def _date(text: str | None) -> datetime.date:
    today = datetime.datetime.now(datetime.UTC).date()
    try:
        return today if text is None else datetime.date.fromisoformat(text)
    except ValueError:
        raise UsageError(f"--date: must look like {today.isoformat()}, not {text!r}") from None


def parse_time(text: str) -> float:
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


def _day_of(timestamp: float) -> datetime.date:
    return datetime.datetime.fromtimestamp(timestamp, datetime.UTC).date()
