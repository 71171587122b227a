"""The archive as one wide table for programs such as pandas: a row per message, a column per key, CSV in UTF-8."""

import csv
import datetime
from typing import Any, TextIO

from ivy.cli.archive.selection import Selection
from ivy.types.messages import DataMessageBody, LogMessageBody, MessageArchiveItem

_COLUMNS = ("timestamp", "time_utc", "timestamp_in_doubt")


def write_csv(selection: Selection, out: TextIO) -> None:
    """Write a table.

    The archive is read twice, because the header needs all keys, and a table of years is larger than the memory.
    A key that is sampled for the first time in between is left out. A cell is empty where a message lacks the key.
    """
    columns = dict.fromkeys(_COLUMNS)
    for item in selection.read():
        columns |= dict.fromkeys(_row(item))
    writer = csv.DictWriter(out, list(columns), extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for item in selection.read():
        writer.writerow(_row(item))


def _row(item: MessageArchiveItem) -> dict[str, Any]:
    time = datetime.datetime.fromtimestamp(item.timestamp, datetime.UTC).isoformat(timespec="milliseconds")
    doubt = int(not item.message_body.clock_synchronised)
    first = dict(zip(_COLUMNS, (item.timestamp, time.replace("+00:00", "Z"), doubt), strict=True))
    fields = {f"data.{key}" if key in _COLUMNS else key: value for key, value in _fields(item).items()}
    return first | fields


def _fields(item: MessageArchiveItem) -> dict[str, Any]:
    body = item.message_body
    if isinstance(body, DataMessageBody):
        return dict(body.data)
    if isinstance(body, LogMessageBody):
        return {"level": body.level, "subject": body.subject, "body": body.body}
    general = body.config.general
    return {
        "status": body.status,
        "config_revision": general.config_revision,
        "software_version": str(general.software_version),
    }
