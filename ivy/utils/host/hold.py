"""Whether somebody holds this node: no updates, no restarts by others, no reboots, until that is ended.

It is a file of root's, which all may read, and no boot ends it: `ivy.utils.updates.holding` writes and removes it.
Where the clock was set since the boot, that tells when the time is up. Elsewhere it neither ends a hold early nor
keeps one: then what counts are the seconds that the machine has run.
"""

import os
import time
from pathlib import Path
from typing import Any

import pydantic

from ivy import constants, files
from ivy.types.config import describe
from ivy.utils.host import busy, clock

FILE = os.path.join(constants.IVY_ROOT_DIR, "hold.json")
"""units/ivy-generator reads it, too."""

USUAL_SECONDS = 7 * 86_400.0
"""For how long, where nobody says: a forgotten one must not keep a node from updates that only they can reach."""

MOST_SECONDS = 366 * 86_400.0
LONGEST_REASON = 200
KEPT = "system-checks"
"""The procedure that no hold stops; units/ivy-generator has it, too."""

_MOST_BYTES = 10_000


class Hold(pydantic.BaseModel):
    """One that was begun."""

    model_config = pydantic.ConfigDict(frozen=True, allow_inf_nan=False)

    reason: str = pydantic.Field(min_length=1, max_length=LONGEST_REASON)
    stop: bool = False
    """Whether no procedure is to sample meanwhile; units/ivy-generator sees to that."""
    left: float = pydantic.Field(gt=0, le=MOST_SECONDS)
    """For how many seconds more, when it was last noted."""
    boot: str
    at: float
    """When that was: in which boot, and seconds since that."""
    until: float | None = None
    """When its time is up, as Unix time; None if the clock was not set when it began."""

    def seconds_left(self) -> float:
        """For how long more; 0 when its time is up."""
        if self.until is not None and clock.is_synchronised():
            left = self.until - time.time()
        elif self.boot == clock.boot_id():
            left = self.left - (busy.now() - self.at)
        else:
            left = self.left - busy.now()
        return min(max(0.0, left), MOST_SECONDS)

    def stops(self, procedure: str) -> bool:
        """Whether a procedure is not to run: all but the one that looks after queue and machine."""
        return self.stop and procedure.replace("_", "-") != KEPT

    def words(self) -> str:
        """For people: `held until 2026-11-29 18:30 (UTC): the mast is being painted`."""
        end = time.localtime(time.time() + self.seconds_left())
        return f"held until {time.strftime('%Y-%m-%d %H:%M (%Z)', end)}: {self.reason}"

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        left = round(self.seconds_left(), 1)
        return {"reason": self.reason, "stop": self.stop, "seconds_left": left, "until": round(time.time() + left)}


def look() -> Hold | None:
    """The hold that counts now, if any: one whose file is damaged does not."""
    try:
        found = load()
    except (OSError, ValueError):
        return None
    return found if found is not None and found.seconds_left() > 0 else None


def trouble() -> str | None:
    """Why a hold does not count although there is a file; None if there is no such trouble."""
    try:
        load()
    except ValueError as error:
        return str(error)
    except OSError as error:
        return f"{FILE} cannot be read, so that nothing is held: {error.strerror}"
    return None


def refusal() -> str | None:
    """What to say to whoever wants to change or restart something; None if nothing is held."""
    held = look()
    return None if held is None else f"this node is {held.words()}; `ivy hold --end` on the node ends that"


def load() -> Hold | None:
    """What the file says, whether or not the time is up; None without a file.

    Raises:
        OSError: It cannot be read.
        ValueError: It is damaged.
    """
    try:
        text = files.read(FILE, _MOST_BYTES)
    except FileNotFoundError:
        return None
    try:
        return Hold.model_validate_json(text)
    except pydantic.ValidationError as error:
        raise ValueError(f"{FILE} is damaged, so that nothing is held: {describe(error)}") from None


def is_clock_wrong() -> bool:
    """Whether nobody has set the clock since the boot, so that a time of day says nothing."""
    return clock.is_synchronised() is False


def write(reason: str, seconds: float, *, stop: bool) -> Hold:
    """Begin a hold, in place of any that there is.

    Args:
        reason: For people, on one line.
        seconds: For how long.
        stop: Whether no procedure is to sample meanwhile.

    Raises:
        ValueError: It is not to be, as for the length of the reason, or the time.
        OSError: It cannot be written.
    """
    until = None if is_clock_wrong() else time.time() + seconds
    try:
        hold = Hold(reason=reason, stop=stop, left=seconds, boot=clock.boot_id(), at=busy.now(), until=until)
    except pydantic.ValidationError as error:
        raise ValueError(describe(error)) from None
    _write(hold)
    return hold


def note(hold: Hold) -> None:
    """Have it on the disk how long a hold goes on, so that another boot goes on counting from there.

    Raises:
        OSError: It cannot be written.
    """
    if left := hold.seconds_left():
        _write(hold.model_copy(update={"left": left, "boot": clock.boot_id(), "at": busy.now()}))


def _write(hold: Hold) -> None:
    files.write_atomically(Path(FILE), f"{hold.model_dump_json()}\n", mode=0o644, follow=False)
