"""Which messages of the archive are wanted: by time, kind and key. Reads them one at a time, however many."""

import argparse
import datetime
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Optional

from ivy.cli.archive.times import day_of
from ivy.types.messages import DataMessageBody, MessageArchiveItem
from ivy.utils.messaging_agent import MESSAGE_ARCHIVE_DIR
from ivy.utils.storage import archive


class UsageError(ValueError):
    """Arguments that do not go together; the text says which."""


@dataclass(frozen=True)
class Selection:
    """What is wanted; None and no keys mean all."""

    date: Optional[datetime.date] = None
    since: Optional[float] = None
    until: Optional[float] = None
    kind: Optional[str] = None
    keys: Sequence[str] = ()

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> "Selection":
        """Understand the arguments of `ivy messages`.

        Raises:
            UsageError: They make no sense together.
        """
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
        return datetime.date.min if self.since is None else day_of(self.since)

    def _wants(self, key: str) -> bool:
        return any(fnmatchcase(key, pattern) for pattern in self.keys)

    def _days(self) -> list[datetime.date]:
        first = self.first_day()
        last = self.date or (datetime.date.max if self.until is None else day_of(self.until))
        return [day for day in archive.days(MESSAGE_ARCHIVE_DIR) if first <= day <= last]


def _date(text: Optional[str]) -> datetime.date:
    today = datetime.datetime.now(datetime.UTC).date()
    try:
        return today if text is None else datetime.date.fromisoformat(text)
    except ValueError:
        raise UsageError(f"--date: must look like {today.isoformat()}, not {text!r}") from None
