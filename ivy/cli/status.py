"""`ivy status`, `ivy queue`: whether the node is well, and what waits to be sent, for people and for programs."""

import argparse
import dataclasses
import errno
import json
import os
import sqlite3
import sys
from collections.abc import Iterator, Sequence

from ivy import overview
from ivy.cli import output
from ivy.cli.main import refuse
from ivy.constants import JSON_SCHEMA
from ivy.utils.functions import duration
from ivy.utils.host import busy, rights, units
from ivy.utils.messaging_agent import ACTIVE_QUEUE_FILE
from ivy.utils.storage import aside
from ivy.utils.storage.contents import LARGEST_EXACT_LENGTH

_CLOCK = {True: "synchronised", False: "not synchronised: samples are marked", None: "nobody here can tell"}


def show(arguments: argparse.Namespace) -> int:
    """Print the status; 0 only if all is well."""
    found = overview.look()
    print(json.dumps(found.as_json(), indent=4) if arguments.json else "\n".join(map(output.line, _lines(found))))
    if rights.may_try_sudo() and any(os.strerror(errno.EACCES) in problem for problem in found.problems):
        print("ivy: not permitted to see all of it, try sudo", file=sys.stderr)
    return 1 if found.problems else 0


def show_queue(arguments: argparse.Namespace) -> int:
    """Print the state of the queue."""
    path = ACTIVE_QUEUE_FILE if arguments.data is None else arguments.data.queue
    if not overview.has_queue(path):
        refuse(f"{path} does not exist: nothing was queued yet", 1)
    try:
        queue = overview.queue() if arguments.data is None else overview.queue_elsewhere(path)
    except (OSError, sqlite3.Error) as error:
        refuse(f"{path}: {error}", 1)
    damaged, waiting = aside.damaged_files(path), aside.waiting(path)
    if arguments.json:
        form = {"schema": JSON_SCHEMA, **dataclasses.asdict(queue), "damaged_files": damaged}
        print(json.dumps(form, indent=4))
        return 0
    at_most = "at most " if queue.length >= LARGEST_EXACT_LENGTH else ""
    print(f"waiting:  {at_most}{_waiting(queue)}: {_counts(queue.waiting)}")
    print(f"size:     {queue.bytes / 1e6:.1f} MB in a file of {queue.file_bytes / 1e6:.1f} MB")
    if queue.set_aside:
        print(f"aside:    {queue.set_aside} that the broker does not take: tried again once a day, for a week")
    print(f"dropped:  {_counts(queue.dropped)}")
    if queue.resend is not None:
        sent, messages = queue.resend["sent"], queue.resend["messages"]
        state = "was done" if queue.resend["is_done"] else "goes on when nothing else waits"
        print(f"resend:   {sent} of {messages} messages of the archive were sent again, it {state}")
    print(f"archive:  durable, but for the last {queue.not_yet_durable}, which the queue has")
    if queue.spare or queue.trouble:
        why = output.line(queue.trouble or "they move to the disk with the next message")
        print(f"memory:   {queue.spare} of them for {duration(queue.trouble_seconds or 0)}: {why}")
    for path in waiting:
        print(f"damaged:  {output.line(path)}, what can be read is queued again")
    for path in damaged:
        print(f"damaged:  {output.line(path)}, what could be read was queued again")
    return 0


def _lines(found: overview.Overview) -> Iterator[str]:
    digest = f" ({found.config_digest})" if found.config_digest else ""
    name, revision = found.system_identifier or "a node of unknown name", found.config_revision
    yield f"ivy {found.version} on {name}, config revision {'unknown' if revision is None else revision}{digest}"
    yield from _table([(unit.name, unit.state, _sampled(unit), unit.status) for unit in found.units])
    if words := _busy(found):
        yield f"busy:     {words}: what would restart it waits, but for --now"
    if (wait := found.update_waits) is not None:
        at_most = busy.clock_time(wait.most_seconds)
        yield f"{f'{wait.what}:':<9} waits for {', '.join(wait.procedures)}, until {at_most} at the latest"
    if found.hold is not None:
        yield f"hold:     {found.hold.words().removeprefix('held ')}"
    disk = found.disk
    yield f"queue:    {_waiting(found.queue) if found.queue else 'cannot be read'}"
    is_known = found.system_identifier is not None  # by a config that could be read
    yield f"backend:  {_link(found.backend) if is_known else 'not known, as no config can be read'}"
    yield f"clock:    {_CLOCK[found.clock_synchronised]}"
    if disk is not None:
        yield f"disk:     {disk.used_percent} % used, {disk.free_megabytes} MB free"
    yield from (f"PROBLEM:  {problem}" for problem in found.problems)
    yield "ivy doctor says what to do" if found.problems else "all is well"


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Lines with columns, each as wide as it must be. Control characters of others are not there any more."""
    rows = [[output.line(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield f"  {'  '.join(map(str.ljust, row, widths))}".rstrip()


def _sampled(unit: overview.Service) -> str:
    age, is_to_run = unit.last_sample_seconds, unit.state not in overview.NOT_WANTED
    if age is None and not (unit.is_procedure and is_to_run):
        return ""
    silent = "" if unit.silent_seconds is None else "SILENT, "
    return silent + ("no sample since the boot" if age is None else f"last sample {duration(age)} ago")


def _busy(found: overview.Overview) -> str:
    seconds = {units.service_of(unit.name): unit.busy_seconds for unit in found.units}
    return busy.words({name: left for name, left in seconds.items() if left is not None})


def _link(link: overview.Link | None) -> str:
    if link is None:
        return "none is configured: messages are kept here"
    protocol = f" by MQTT {link.protocol}" if link.protocol else ""
    return f"{link.provider}, {'' if link.connected else 'not '}connected to {link.broker}{protocol}"


def _waiting(queue: overview.Queue) -> str:
    age = "" if queue.oldest_seconds is None else f", the oldest {duration(queue.oldest_seconds)} old"
    return f"{queue.length} message{'' if queue.length == 1 else 's'}{age}"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {variant}" for variant, count in counts.items())
