"""Begins a hold of this node, waits for its end, and ends it: see `ivy.utils.host.hold`, for all who only ask.

With a hold that wants it, units/ivy-generator lets systemd want no procedure any more, but for the one that looks
after queue and machine: so that no boot and no restart of all brings them back.
"""

import contextlib
import os
from collections.abc import Callable

from ivy import files
from ivy.utils import notify
from ivy.utils.host import busy, commands, hold, units

_SECONDS_BETWEEN_LOOKS = 10.0
_SECONDS_BETWEEN_NOTES = 600.0


def begin(reason: str, seconds: float, *, stop: bool = False) -> hold.Hold:
    """Hold this node, as from now, instead of any hold that there is. No pass of the updater may be under way.

    Raises:
        ValueError: It is not to be, as for the length of the reason, or the time.
        OSError: It cannot be written.
        CommandError: It is held, but what was to be stopped may not have been.
    """
    before = hold.look()
    begun = hold.write(reason, seconds, stop=stop)
    if stop != bool(before and before.stop):
        _switch_procedures()
    return begun


def end() -> None:
    """End any hold, and start what it had stopped; the same conditions and errors as for `begin`."""
    before: hold.Hold | None = None
    with contextlib.suppress(OSError, ValueError):
        before = hold.load()
    files.remove(hold.FILE)
    if before is None or before.stop:
        _switch_procedures()


def tidy() -> str | None:
    """End a hold whose time is up, or whose file is damaged. Returns what is to be told of that, if anything.

    Raises:
        OSError: The file cannot be removed.
    """
    if not os.path.lexists(hold.FILE) or hold.look() is not None:
        return None
    found = None
    said = hold.trouble()
    if said is None and (found := hold.load()) is not None:
        said = f"The time is up for which this node was held: {found.reason}"
    with contextlib.suppress(commands.CommandError):  # systemd looks again at the next boot at the latest
        end()
    return said


def wait(look: Callable[[], None], seconds_between_looks: float = _SECONDS_BETWEEN_LOOKS) -> None:
    """Wait until nothing is held any more, with heartbeats.

    Args:
        look: Called now and then.
        seconds_between_looks: How often to look.
    """
    noted = float("-inf")
    while (held := hold.look()) is not None:
        if busy.now() - noted >= _SECONDS_BETWEEN_NOTES:
            noted = busy.now()
            with contextlib.suppress(OSError):  # then another boot begins to count again
                hold.note(held)
        notify.status(held.words())
        look()
        notify.sleep(min(seconds_between_looks, held.seconds_left()))


def _switch_procedures() -> None:
    """Let systemd ask the generator; stop what it does not want any more, and start what it wants now."""
    before = _wanted()
    units.reload()
    after = _wanted()
    for unit in sorted(before - after, key=lambda unit: unit.endswith(".service")):  # first what would start them
        units.control("stop", unit)
    if units.show(units.TARGET, "ActiveState").get("ActiveState") != "active":
        return  # somebody has stopped all of it
    for unit in sorted(after - before):
        with contextlib.suppress(commands.CommandError):  # as at a boot, where it is no reason either
            units.control("start", unit)


def _wanted() -> set[str]:
    return {*units.wanted_by_target(), *units.triggers_of_target()}
