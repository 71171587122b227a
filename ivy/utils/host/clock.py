"""Whether the clock can be trusted. It has no battery: after a boot it is wrong until there was a network."""

import contextlib
import os
import sys
import time
from pathlib import Path

from ivy import constants, files

# struct timex has 208 bytes on 64-bit machines, 128 on others; all zeros: change nothing, only look.
_ASK_KERNEL = "import ctypes; print(ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(256)))"
_FAILED = -1
_TIME_ERROR = 5
_ASK_TIMEDATED = ["timedatectl", "show", "--property=NTPSynchronized", "--value"]
_SECONDS_TO_ANSWER = 5.0
_SECONDS_BETWEEN_QUESTIONS = 60.0

_NOTE = os.path.join(constants.IVY_RUN_DIR, "clock-synchronised")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

_LATEST = 253402300799.0  # the year 9999: what is later has no date

_last_answer: bool | None = None
_next_question = float("-inf")


def is_synchronised() -> bool | None:
    """Whether the clock was set by someone who knows the time since the boot; None if nobody here can tell.

    Costs next to nothing once it was: what comes later (a network that is away for a week) sets no clock back.
    Whoever found out notes it for all that start until the next boot: after some nine hours without a network the
    kernel says no again. Until then, whoever knows is asked once a minute.
    """
    global _last_answer, _next_question
    if _last_answer is not True and time.monotonic() >= _next_question:
        _last_answer = _is_noted() or _ask()
        _next_question = time.monotonic() + _SECONDS_BETWEEN_QUESTIONS
    return _last_answer


def _is_noted() -> bool:
    try:
        return files.read(_NOTE) == _BOOT_ID.read_bytes()
    except OSError:
        return False


def _ask() -> bool | None:
    # Timedated first, although it only asks the kernel: in a service's sandbox there is no other way.
    answer = _timedated_says()
    if answer is None:
        answer = _kernel_says()
    if answer is True:
        with contextlib.suppress(OSError), files.as_owner_of(constants.IVY_RUN_DIR):
            # Which boot: where there is no /run/ivy, the note outlives it.
            files.write_atomically(Path(_NOTE), _BOOT_ID.read_text(), durable=False)
    return answer


def or_epoch(timestamp: float) -> float:
    """A Unix time, or 0 if it has no date: rotten bits, which must not stop whoever shows, stores or sends it."""
    return timestamp if 0 <= timestamp <= _LATEST else 0.0


def _kernel_says() -> bool | None:
    """What adjtimex(2) says, whoever keeps the clock: chrony, timesyncd, a GPS. None where it is forbidden."""
    # Not in this process: while Debian is upgraded under it, a library that it loads late is none for the Python
    # that it is, and a crash of that would end the sampling.
    answer = _output_of([sys.executable, "-IS", "-c", _ASK_KERNEL])
    if answer is None or not answer.lstrip("-").isdecimal():
        return None
    return None if int(answer) == _FAILED else int(answer) != _TIME_ERROR


def _timedated_says() -> bool | None:
    """The sandbox of a service forbids adjtimex, even to look; systemd-timedated looks for us."""
    answer = _output_of(_ASK_TIMEDATED)
    return {"yes": True, "no": False}.get(answer or "")


def _output_of(command: list[str]) -> str | None:
    from ivy.utils.host import commands  # not at the top: whoever adds no message does without

    try:
        return commands.run(command, timeout=_SECONDS_TO_ANSWER).strip()
    except commands.CommandError:
        return None
