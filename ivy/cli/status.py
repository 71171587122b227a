"""`ivy status`, `ivy queue`: whether the node is well, and what waits to be sent, for people and for programs."""

import argparse
import dataclasses
import json
import os
import sqlite3
from collections.abc import Iterator

from ivy import overview
from ivy.cli.main import refuse
from ivy.utils.messaging_agent import ACTIVE_QUEUE_FILE
from ivy.utils.storage import salvage
from ivy.utils.storage.contents import LARGEST_EXACT_LENGTH

_UNITS = ((86_400, "d"), (3600, "h"), (60, "min"))
_MOST_OF_A_UNIT = 3  # of a larger one, until which the smaller one says more
_CLOCK = {True: "synchronised", False: "not synchronised: samples are marked", None: "nobody here can tell"}


def show(arguments: argparse.Namespace) -> int:
    """Print the status; 0 only if all is well."""
    found = overview.look()
    print(json.dumps(found.as_json(), indent=4) if arguments.json else "\n".join(_lines(found)))
    return 1 if found.problems else 0


def show_queue(arguments: argparse.Namespace) -> int:
    """Print the state of the queue."""
    if not os.path.exists(ACTIVE_QUEUE_FILE):
        refuse(f"{ACTIVE_QUEUE_FILE} does not exist: nothing was queued yet", 1)
    try:
        queue = overview.queue()
    except sqlite3.Error as error:
        refuse(f"{ACTIVE_QUEUE_FILE}: {error}", 1)
    damaged = salvage.damaged_files(ACTIVE_QUEUE_FILE)
    if arguments.json:
        print(json.dumps({**dataclasses.asdict(queue), "damaged_files": damaged}, indent=4))
        return 0
    at_most = "at most " if queue.length >= LARGEST_EXACT_LENGTH else ""
    print(f"waiting:  {at_most}{_waiting(queue)}: {_counts(queue.waiting)}")
    print(f"size:     {queue.bytes / 1e6:.1f} MB in a file of {queue.file_bytes / 1e6:.1f} MB")
    print(f"dropped:  {_counts(queue.dropped)}")
    for path in damaged:
        print(f"damaged:  {path}, what could be read was queued again")
    return 0


def duration(seconds: float) -> str:
    """A time span, in the largest unit of which it has a few: `100 s`, `45 min`, `30 h`, `12 d`."""
    for length, unit in _UNITS:
        if seconds >= _MOST_OF_A_UNIT * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _lines(found: overview.Overview) -> Iterator[str]:
    yield f"ivy {found.version} on {found.system_identifier}, config revision {found.config_revision}"
    for unit in found.units:
        age = unit.last_sample_seconds
        sampled = "" if age is None else f" (last sample {duration(age)} ago)"
        yield f"  {unit.name:<32} {unit.state:<20} {unit.status}{sampled}".rstrip()
    disk = found.disk
    yield f"queue:    {_waiting(found.queue) if found.queue else 'cannot be read'}"
    yield f"backend:  {_link(found.backend)}"
    yield f"clock:    {_CLOCK[found.clock_synchronised]}"
    if disk is not None:
        yield f"disk:     {disk.used_percent} % used, {disk.free_megabytes} MB free"
    yield from (f"PROBLEM:  {problem}" for problem in found.problems)
    if not found.problems:
        yield "all is well"


def _link(link: overview.Link | None) -> str:
    if link is None:
        return "none is configured: messages are kept here"
    return f"{link.provider}, {'' if link.connected else 'not '}connected to {link.broker}"


def _waiting(queue: overview.Queue) -> str:
    age = "" if queue.oldest_seconds is None else f", the oldest {duration(queue.oldest_seconds)} old"
    return f"{queue.length} messages{age}"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {variant}" for variant, count in counts.items())
