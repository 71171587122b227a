"""Whether the clock can be trusted. It has no battery: after a boot it is wrong until there was a network."""

import ctypes
import os
from typing import Optional

_SIZE_OF_TIMEX = 256  # struct timex has 208 bytes on 64-bit machines, 128 on others
_FAILED = -1
_TIME_ERROR = 5
_TIMESYNCD = "/run/systemd/timesync"
_was_synchronised = False


def is_synchronised() -> Optional[bool]:
    """Whether the clock was set by someone who knows the time since the boot; None if nobody here can tell.

    Costs next to nothing once it was: what comes later (a network that is away for a week) sets no clock back.
    """
    global _was_synchronised
    if _was_synchronised:
        return True
    state = _kernel_says()
    if state is None:
        state = _timesyncd_says()
    _was_synchronised = state is True
    return state


def _kernel_says() -> Optional[bool]:
    """What adjtimex(2) says, whoever keeps the clock: chrony, timesyncd, a GPS. None where it is forbidden."""
    only_look = ctypes.create_string_buffer(_SIZE_OF_TIMEX)  # all zeros: change nothing
    state = ctypes.CDLL(None).adjtimex(only_look)
    return None if state == _FAILED else state != _TIME_ERROR


def _timesyncd_says() -> Optional[bool]:
    """The sandbox of a service forbids adjtimex, even to look. What Debian installs leaves a file."""
    if not os.path.isdir(_TIMESYNCD):
        return None
    return os.path.exists(f"{_TIMESYNCD}/synchronized")
