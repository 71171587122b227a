"""`ivy resend`: asks for messages of the archive to be sent again, or takes that back. The backend sends them."""

import argparse
import collections
import sys
import time
from functools import partial

from ivy.cli import output
from ivy.cli.archive.selection import UsageError
from ivy.cli.main import refuse, refuse_config
from ivy.types import accepted_config
from ivy.types.config import ConfigError
from ivy.utils.messaging_agent import MESSAGE_ARCHIVE_DIR
from ivy.utils.storage import resend
from ivy.utils.storage.doorbell import Doorbell


def run(arguments: argparse.Namespace) -> int:
    """Ask for it, count what would be sent, or end what was asked for."""
    try:
        _check(arguments)
    except UsageError as error:
        print(f"ivy resend: {error}", file=sys.stderr)
        return 2
    if arguments.cancel:
        return _cancel()
    request = resend.Request(
        since=arguments.since,
        until=_end(arguments),
        kind="data" if arguments.key else arguments.kind,
        keys=tuple(key.encode(errors="replace").decode() for key in arguments.key),  # as samples have it
    )
    if not arguments.dry_run:
        _look_for_backend()
        resend.refuse_second()  # before the counting, which may take minutes
    counts, size = _count(request)
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
    found = f"{counts.total()} messages" + (f" ({kinds}), {size / 1e6:.1f} MB in the archive" if counts else "")
    if arguments.dry_run:
        print(found)
        return 0
    if not counts:
        refuse("the archive has no such messages: nothing is sent again", 1)
    resend.begin(request.model_copy(update={"messages": counts.total()}))
    doorbell = Doorbell()
    doorbell.ring()
    doorbell.close()
    print(f"{found}, are sent again when nothing else waits; how far that is: ivy queue")
    return 0


def _check(arguments: argparse.Namespace) -> None:
    times = (arguments.since, arguments.until)
    if arguments.cancel:
        if arguments.dry_run or arguments.key or arguments.kind or times != (None, None):
            raise UsageError("--cancel goes with nothing else")
        return
    if arguments.since is None:
        raise UsageError("--since is missing: the time of the first message that is to be sent again")
    if arguments.since >= _end(arguments):
        raise UsageError("--since must be earlier than --until, and than now")
    if len(arguments.key) > resend.MOST_KEYS or any(len(key) > resend.LONGEST_KEY for key in arguments.key):
        most = f"{resend.MOST_KEYS} keys of {resend.LONGEST_KEY} characters"
        raise UsageError(f"--key takes at most {most}; a pattern such as 'temp*' stands for many")
    if arguments.key and arguments.kind not in (None, "data"):
        raise UsageError(f"--key is for data: messages of the kind {arguments.kind} have no keys")


def _end(arguments: argparse.Namespace) -> float:
    """Now at the latest: what is sampled later is sent anyhow."""
    now = time.time()
    return now if arguments.until is None else min(arguments.until, now)


def _look_for_backend() -> None:
    try:
        backend = accepted_config.load()[0].backend
    except ConfigError as error:
        refuse_config(error)
    if backend is None:
        refuse("backend: is null in the config: there is nobody to send to, see ivy setup", 1)


def _count(request: resend.Request) -> tuple[collections.Counter[str], int]:
    """How many messages of each kind would be sent again, and how many bytes they have in the archive."""
    counts: collections.Counter[str] = collections.Counter()
    size = 0
    complain = partial(print, "ivy:", file=sys.stderr)
    paths = request.paths(MESSAGE_ARCHIVE_DIR)
    for day in output.progress(list(paths), "reading the archive"):
        for line in resend.lines(request, {day: paths[day]}, resend.Progress(), complain):
            if line.record is not None:
                counts[str(line.record[1].get("variant"))] += 1
                size += line.size
    return counts, size


def _cancel() -> int:
    ended = resend.cancel()
    if ended is None:
        refuse("no messages are being sent again", 1)
    print(f"ended: {ended.sent} messages were sent again, the others are not")
    return 0
