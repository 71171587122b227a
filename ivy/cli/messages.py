"""`ivy messages`: the archive for people, or as JSON lines for programs."""

import argparse
import datetime
import os
import sys
import time
from collections.abc import Iterator

from ivy.types.messages import ConfigMessageBody, DataMessageBody, MessageArchiveItem
from ivy.utils import message_archive
from ivy.utils.messaging_agent import MESSAGE_ARCHIVE_DIR, MessagingAgent

_SECONDS_BETWEEN_LOOKS = 0.5


def show(arguments: argparse.Namespace) -> int:
    """Print the messages of a day."""
    try:
        today = datetime.datetime.now(datetime.UTC).date()
        date = datetime.date.fromisoformat(arguments.date) if arguments.date else today
    except ValueError:
        print(f"ivy messages: --date: must look like {today.isoformat()}, not {arguments.date!r}", file=sys.stderr)
        return 2
    items = _follow(date) if arguments.follow else iter(MessagingAgent.load_message_archive(date))
    for item in items:
        print(item.model_dump_json() if arguments.json else _readable(item), flush=arguments.follow)
    return 0


def _follow(date: datetime.date) -> Iterator[MessageArchiveItem]:
    """The messages of a day and of those after it, as they come; never ends."""
    while True:
        path = message_archive.file_of(MESSAGE_ARCHIVE_DIR, date)
        yield from _follow_file(path, date)
        date += datetime.timedelta(days=1)


def _follow_file(path: str, date: datetime.date) -> Iterator[MessageArchiveItem]:
    position = 0
    while True:
        is_over = datetime.datetime.now(datetime.UTC).date() > date  # asked first: then all of it is read below
        if os.path.exists(path):
            with open(path, "rb") as file:
                file.seek(position)
                for line in file:
                    if not line.endswith(b"\n"):
                        break  # being written right now
                    position += len(line)
                    yield from message_archive.parse_line(path, line.decode(errors="replace"))
        if is_over:
            return
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def _readable(item: MessageArchiveItem) -> str:
    when = datetime.datetime.fromtimestamp(item.timestamp).astimezone()
    body = item.message_body
    if isinstance(body, DataMessageBody):
        text = ", ".join(f"{key}={value}" for key, value in body.data.items())
    elif isinstance(body, ConfigMessageBody):
        text = f"revision {body.config.general.config_revision} {body.status}"
    else:
        text = body.subject
    doubt = "" if body.clock_synchronised else " (clock not synchronised)"
    return f"{when:%Y-%m-%d %H:%M:%S} {body.variant:<6} {text}{doubt}"
