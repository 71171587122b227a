"""`ivy hold`: the admin keeps everybody else from changing or restarting this node for a while."""

import argparse
import json
import time

from ivy import update_pass
from ivy.cli import update
from ivy.cli.main import refuse
from ivy.constants import JSON_SCHEMA
from ivy.utils.host import hold, units
from ivy.utils.updates import history, holding


def run(arguments: argparse.Namespace) -> int:
    """Begin a hold, end it, or say whether there is one."""
    begins = arguments.reason is not None
    if arguments.end and (begins or arguments.stop or arguments.until or arguments.seconds):
        refuse("--end takes nothing else")
    if arguments.end:
        return _end()
    if begins:
        return _begin(arguments)
    if arguments.stop or arguments.until or arguments.seconds:
        refuse("a reason is missing, for whoever wonders: ivy hold [--until TIME] [--stop] REASON")
    return _show(arguments)


def _show(arguments: argparse.Namespace) -> int:
    held = hold.look()
    if arguments.json:
        print(json.dumps({"schema": JSON_SCHEMA, "hold": held.as_json() if held else None}))
    elif held is not None:
        print(f"{held.words()}{', and no procedure samples' if held.stop else ''}")
    else:
        print(f"not held{f': {why}' if (why := hold.trouble()) else ''}")
    return 0 if held else 1


def _begin(arguments: argparse.Namespace) -> int:
    update.require_admin(is_hold=True)
    reason = " ".join(arguments.reason.split())
    seconds = hold.USUAL_SECONDS if arguments.seconds is None else arguments.seconds
    if seconds <= 0:
        refuse("--for: must be more than no time")
    if arguments.until is not None:
        if hold.is_clock_wrong():
            refuse("nobody has set this node's clock since the boot, so that nobody knows when that is: use --for")
        seconds = arguments.until - time.time()
        if seconds <= 0:
            refuse("--until: that was before now")
    known = hold.look()
    is_asked_again = arguments.until is None and arguments.seconds is None
    if known and is_asked_again and (known.reason, known.stop) == (reason, arguments.stop):
        print(f"already {known.words()}")
        return 0
    units.control("stop", units.UPDATER)  # it writes the file, too
    try:
        held = holding.begin(reason, seconds, stop=arguments.stop)
        _tell(f"This node is {held.words()}{'; no procedure samples' if held.stop else ''}")
    except ValueError as error:
        days = hold.MOST_SECONDS / 86_400
        refuse(
            f"a reason has {hold.LONGEST_REASON} letters at most, and a hold ends within {days:.0f} days: {error}"
        )
    finally:
        units.control("start", units.UPDATER, "--no-block")
    if history.load().trial is not None:
        print("What is on trial now is decided about first.")
    return 0


def _end() -> int:
    update.require_admin(is_hold=True)
    known, why = hold.look(), hold.trouble()
    if known is None and why is None:
        print("not held")
        return 0
    units.control("stop", units.UPDATER)
    try:
        holding.end()
        _tell(f"This node is not held any more: {known.reason if known else why}")
    finally:
        units.control("start", units.UPDATER, "--no-block")
    return 0


def _tell(text: str) -> None:
    """The admin here and the operator."""
    update.Progress(update_pass.running_config(), "hold").warning(text)
