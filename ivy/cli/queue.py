"""`ivy queue`: what waits to be sent, what was dropped, and what is left of damaged databases."""

import argparse
import json
import os
import sqlite3
import sys
import time
from typing import Any

from ivy.cli.words import duration
from ivy.utils.messaging_agent import ACTIVE_QUEUE_FILE, MessagingAgent
from ivy.utils.storage import bounds, contents, salvage
from ivy.utils.storage.contents import LARGEST_EXACT_LENGTH


def show(arguments: argparse.Namespace) -> int:
    """Print the state of the queue."""
    if not os.path.exists(ACTIVE_QUEUE_FILE):
        print(f"ivy: {ACTIVE_QUEUE_FILE} does not exist: nothing was queued yet", file=sys.stderr)
        return 1
    try:
        queue = _collect()
    except sqlite3.Error as error:
        print(f"ivy: {ACTIVE_QUEUE_FILE}: {error}", file=sys.stderr)
        return 1
    print(json.dumps(queue, indent=4) if arguments.json else _readable(queue))
    return 0


def _collect() -> dict[str, Any]:
    messaging_agent = MessagingAgent()
    database = messaging_agent.database
    length, oldest = messaging_agent.get_queue_length(), messaging_agent.get_oldest_timestamp()
    size = bounds.measure(database)
    waiting, dropped = database.run(contents.waiting), database.run(contents.dropped)
    messaging_agent.teardown()
    return {
        "length": length,
        "waiting": waiting,
        "oldest_seconds": None if oldest is None else round(max(0.0, time.time() - oldest)),
        "bytes": size.used,
        "file_bytes": size.file,
        "dropped": dropped,
        "damaged_files": salvage.damaged_files(ACTIVE_QUEUE_FILE),
    }


def _readable(queue: dict[str, Any]) -> str:
    age = "" if queue["oldest_seconds"] is None else f", the oldest {duration(queue['oldest_seconds'])} old"
    at_most = "at most " if queue["length"] >= LARGEST_EXACT_LENGTH else ""
    lines = [
        f"waiting:  {at_most}{queue['length']} messages{age}: {_counts(queue['waiting'])}",
        f"size:     {queue['bytes'] / 1e6:.1f} MB in a file of {queue['file_bytes'] / 1e6:.1f} MB",
        f"dropped:  {_counts(queue['dropped'])}",
        *(f"damaged:  {path}, what could be read was queued again" for path in queue["damaged_files"]),
    ]
    return "\n".join(lines)


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {variant}" for variant, count in counts.items())
