"""`ivy messages`: the archive for people, or as JSON lines or a table for programs."""

import argparse
import contextlib
import datetime
import os
import sys
import time
from collections.abc import Iterator

from ivy.cli import output
from ivy.cli.archive import table
from ivy.cli.archive.selection import Selection, UsageError
from ivy.cli.main import prepare_output
from ivy.constants import JSON_SCHEMA
from ivy.types.messages import ConfigMessageBody, DataMessageBody, MessageArchiveItem
from ivy.utils.storage import archive, compressed

_SECONDS_BETWEEN_LOOKS = 0.5


def show(arguments: argparse.Namespace) -> int:
    """Print the messages that are wanted."""
    try:
        _check(arguments)
        selection = Selection.of(arguments)
    except UsageError as error:
        print(f"ivy messages: {error}", file=sys.stderr)
        return 2
    prepare_output(for_programs=arguments.csv or arguments.json)
    if arguments.csv:
        table.write_csv(selection, sys.stdout)
        return 0
    for item in _follow(selection) if arguments.follow else selection.read():
        print(_for_programs(item) if arguments.json else _readable(item), flush=arguments.follow)
    return 0


def _check(arguments: argparse.Namespace) -> None:
    if arguments.csv and arguments.json:
        raise UsageError("--csv or --json, not both")
    if arguments.follow and arguments.csv:
        raise UsageError("--follow does not go with --csv, whose columns are known at the end only; use --json")
    if arguments.follow and arguments.until is not None:
        raise UsageError("--follow does not go with --until")


def _follow(selection: Selection) -> Iterator[MessageArchiveItem]:
    """The messages that are wanted, and all that come, whatever the day; never ends."""
    today = datetime.datetime.now(datetime.UTC).date()
    days = archive.days(selection.directory)
    # Not from a day on of which there is no archive: years may lie between.
    date = min((day for day in [*days, selection.date or today] if day >= selection.first_day()), default=today)
    while True:
        for item in _follow_file(archive.file_of(selection.directory, date), date):
            yield from selection.pick(item)
        date += datetime.timedelta(days=1)


def _follow_file(path: str, date: datetime.date) -> Iterator[MessageArchiveItem]:
    is_past = datetime.datetime.now(datetime.UTC).date() > date
    if is_past and os.path.lexists(path + compressed.SUFFIX):  # of days ago: nothing comes any more
        yield from archive.read(path)
        return
    position = 0
    while True:
        is_over = datetime.datetime.now(datetime.UTC).date() > date  # asked first: then all of it is read below
        with contextlib.suppress(FileNotFoundError), archive.open_day(path) as file:
            file.seek(position)
            for line in archive.lines(file):
                if not line.endswith(b"\n"):
                    break  # being written right now
                position = file.tell()
                yield from archive.parse_line(path, line.decode(errors="replace"))
        if is_over:
            return
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def _for_programs(item: MessageArchiveItem) -> str:
    return f'{{"schema":{JSON_SCHEMA},{item.model_dump_json()[1:]}'


def _readable(item: MessageArchiveItem) -> str:
    body = item.message_body
    if isinstance(body, DataMessageBody):
        text = ", ".join(f"{key}={value}" for key, value in body.data.items())
    elif isinstance(body, ConfigMessageBody):
        text = f"revision {body.config.general.config_revision} {body.status}"
    else:
        text = body.subject
    mark = "" if body.clock_synchronised else " (clock not synchronised)"
    return output.line(f"{output.moment(item.timestamp)} {body.variant:<6} {text}{mark}")
