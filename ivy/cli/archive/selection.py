"""Which messages of the archive are wanted: by time, kind and key. Reads them one at a time, however many."""

import argparse
import datetime
import math
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from ivy.cli import output
from ivy.types.messages import DataMessageBody, MessageArchiveItem
from ivy.utils.messaging_agent import MESSAGE_ARCHIVE_DIR
from ivy.utils.storage import archive

_NUMBER, _UNIT = r"(\d{1,9}(?:\.\d{1,9})?)", "(s|min|m|h|d|w)"
_AGO = re.compile(f"-?{_NUMBER}{_UNIT}", re.ASCII)
_SPAN = re.compile(f"{_NUMBER}{_UNIT}?", re.ASCII)
_SECONDS = {"s": 1, "min": 60, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}

_UNIX_TIME = re.compile(r"\d{9,12}(\.\d{1,9})?", re.ASCII)
_NUMBERS_AND_TEXT = frozenset({float, int, str})

_LATEST = datetime.datetime(9999, 12, 31, tzinfo=datetime.UTC).timestamp()


Sample = tuple[float, dict[str, float | int | str], bool]
"""When it was taken, what, and whether the clock was synchronised."""


class UsageError(ValueError):
    """Arguments that do not go together; the text says which."""


def check_times(since: float | None, until: float | None) -> None:
    """Raise `UsageError` where nothing can lie between them."""
    if since is not None and until is not None and since >= until:
        raise UsageError("--since must be earlier than --until")


@dataclass(frozen=True)
class Selection:
    """What is wanted; None and no keys mean all."""

    date: datetime.date | None = None
    since: float | None = None
    until: float | None = None
    kind: str | None = None
    keys: Sequence[str] = ()
    directory: str = MESSAGE_ARCHIVE_DIR
    """That of the archive."""

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> "Selection":
        """Understand the arguments of `ivy messages`; raises `UsageError` where they make no sense together."""
        has_times = arguments.since is not None or arguments.until is not None
        if arguments.date is not None and has_times:
            raise UsageError("--date goes neither with --since nor with --until")
        check_times(arguments.since, arguments.until)
        if arguments.key and arguments.kind not in (None, "data"):
            raise UsageError(f"--key is for data: messages of the kind {arguments.kind} have no keys")
        date = None if has_times else _date(arguments.date)
        kind = "data" if arguments.key or (arguments.csv and arguments.kind is None) else arguments.kind
        return cls(
            date=date,
            since=arguments.since,
            until=arguments.until,
            kind=kind,
            keys=arguments.key,
            directory=archive_of(arguments),
        )

    def read(self) -> Iterator[MessageArchiveItem]:
        """The messages, in the order in which they were written."""
        for path, record in self._records():
            for item in archive.parse_record(path, record):
                yield from self.pick(item)

    def samples(self, *, progress: bool = False) -> Iterator[Sample]:
        """The data messages that are wanted, at a fifth of the cost: years of them are millions.

        Args:
            progress: Whether to tell on a terminal how far it is; not where something else is printed meanwhile.
        """
        wanted_of: dict[tuple[str, ...], tuple[str, ...]] = {}  # most samples of a procedure have the same keys
        for path, (timestamp, body) in self._records(progress=progress):
            if body.get("variant") != "data":
                continue
            data, synchronised = body.get("data"), body.get("clock_synchronised", True)
            if type(data) is not dict or type(synchronised) is not bool:
                continue
            keys = tuple(data)
            wanted = wanted_of.get(keys)
            if wanted is None:
                wanted = wanted_of[keys] = tuple(key for key in keys if not self.keys or self._wants(key))
            if len(wanted) < len(keys):
                data = {key: data[key] for key in wanted}
            if not _NUMBERS_AND_TEXT.issuperset(map(type, data.values())):  # it may be valid in another spelling
                items = archive.parse_record(path, (timestamp, {**body, "data": data}))
                bodies = [item.message_body for item in items]
                data = next((found.data for found in bodies if isinstance(found, DataMessageBody)), {})
            if data or not self.keys:
                yield timestamp, data, synchronised

    def _records(self, *, progress: bool = False) -> Iterator[tuple[str, archive.Record]]:
        """Those of the time that is wanted, each with the path of its day."""
        since = -math.inf if self.since is None else self.since
        until = math.inf if self.until is None else self.until
        days = self._days()
        for day in output.progress(days, "reading the archive") if progress else days:
            path = archive.file_of(self.directory, day)
            for record in archive.records(path):
                if since <= record[0] < until:
                    yield path, record

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
        return [day for day in archive.days(self.directory) if first <= day <= last]


def archive_of(arguments: argparse.Namespace) -> str:
    """The directory of the archive that is wanted: by default the node's own."""
    return MESSAGE_ARCHIVE_DIR if arguments.data is None else str(arguments.data.archive)


def _date(text: str | None) -> datetime.date:
    today = datetime.datetime.now(datetime.UTC).date()
    try:
        return today if text is None else datetime.date.fromisoformat(text)
    except ValueError:
        raise UsageError(f"--date: must look like {today.isoformat()}, not {text!r}") from None


def parse_time(text: str) -> float:
    """Understand a time.

    Args:
        text: An ISO date (its beginning) or time; a Unix time; or a time before now, as a number with s, min, h, d
            or w. So is every time that `ivy messages` prints.

    Returns: Unix time in seconds, from 1970 to the year 9999.

    Raises:
        argparse.ArgumentTypeError: It is neither.
    """
    if ago := _AGO.fullmatch(text):
        return max(0.0, time.time() - float(ago[1]) * _SECONDS[ago[2]])
    if _UNIX_TIME.fullmatch(text):
        return min(float(text), _LATEST)
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must look like 2026-11-20, 2026-11-20T14:30 or -2h (s, min, h, d, w), not {text!r}"
        ) from None
    timestamp = (moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp()
    return min(max(0.0, timestamp), _LATEST)


def parse_span(text: str) -> float:
    """Understand a time span: `90min`, `12h`, `3d`, or seconds.

    Returns: Seconds.

    Raises:
        argparse.ArgumentTypeError: It is neither.
    """
    found = _SPAN.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"must look like 90s, 10min, 12h or 3600 (s, min, h, d, w), not {text!r}")
    return float(found[1]) * _SECONDS[found[2] or "s"]


def _day_of(timestamp: float) -> datetime.date:
    return datetime.datetime.fromtimestamp(timestamp, datetime.UTC).date()
