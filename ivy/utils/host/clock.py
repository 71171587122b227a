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
_LEAST_PAUSE = 100  # times as long as the last question took: each that hangs is a gap between samples
_LEAST_STEP = 1.0  # seconds; who keeps a clock well moves it slowly

_NOTE = "clock-synchronised"
_PLACES = (
    constants.BACKEND_RUN_DIR,
    constants.UPDATER_RUN_DIR,
)  # never /run/ivy: procedures would believe each other
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

_LATEST = 253402300799.0  # the year 9999: what is later has no date

_last_answer: bool | None = None
_next_question = float("-inf")


def is_synchronised() -> bool | None:
    """Whether the clock was set by someone who knows the time since the boot; None if nobody here can tell.

    Costs next to nothing once it was: what comes later (a network that is away for a week) sets no clock back.
    Whoever keeps the clock, or a backend, notes it for all that start until the next boot: after some nine hours
    without a network the kernel says no again. Until then, that note is looked for at each call, and whoever knows
    is asked once a minute; less often, where that takes seconds.
    """
    global _last_answer, _next_question
    if _last_answer is not True and (os.path.exists(constants.TIMESYNC_FLAG) or any(map(_is_noted_in, _PLACES))):
        _last_answer = True
    if _last_answer is not True and (asked := time.monotonic()) >= _next_question:
        _last_answer = _ask()
        answered = time.monotonic()
        _next_question = answered + max(_SECONDS_BETWEEN_QUESTIONS, _LEAST_PAUSE * (answered - asked))
    return _last_answer


class Watch:
    """Notices that the clock was stepped, or became synchronised. Has no thread: whoever uses it asks."""

    def __init__(self) -> None:
        self._seen = (0.0, False)

    def has_changed(self) -> bool:
        """Whether that happened since this was last asked; the first answer is worth nothing."""
        # The clock less the time since the boot is the same at any time, until the clock is set.
        offset = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        (before, was_synchronised), self._seen = self._seen, (offset, is_synchronised() is True)
        stepped = abs(offset - before) > _LEAST_STEP
        return stepped or (self._seen[1] and not was_synchronised)


def boot_id() -> str:
    """What this boot is known by."""
    return _BOOT_ID.read_text().strip()


def _is_noted_in(directory: str) -> bool:
    try:
        return files.read(os.path.join(directory, _NOTE)).decode(errors="replace").strip() == boot_id()
    except OSError:
        return False


def _ask() -> bool | None:
    # Timedated first, although it only asks the kernel: in a service's sandbox there is no other way.
    answer = _timedated_says()
    if answer is None:
        answer = _kernel_says()
    if answer is True and constants.NOTES_DIR in _PLACES:
        with contextlib.suppress(OSError), files.as_owner_of(constants.NOTES_DIR):
            # Which boot: where there is no /run, the note outlives it.
            files.write_atomically(Path(constants.NOTES_DIR, _NOTE), boot_id(), durable=False)
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
