"""How runs of services ended, in words: by exit status, signal or watchdog, and with which last words of their own.

Reads what systemd says of it, and what `units/ivy-report-end` has counted; counts nothing itself.
"""

import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass

from ivy import constants, files
from ivy.utils.host import commands

PROPERTIES = ("Result", "ExecMainCode", "ExecMainStatus")
"""What `of_properties` wants to know of a unit."""

FIRST_OF_SYSTEMD = 200
"""The least exit status that is systemd's own: it could not even start the program."""

_SECONDS_TO_ANSWER = 10.0
_LINES_OF_JOURNAL = 30
_LONGEST_LINE = 300
_MOST_BYTES = 1000
_CODES = {"1": "exited", "2": "killed", "3": "dumped"}  # of waitid(2), as `systemctl show` has them
_WITHOUT_MORE = ("", "success", "exit-code", "signal", "core-dump")
_RESULTS = {
    "watchdog": "watchdog, as it gave no sign of life",
    "timeout": "timeout, as it took too long to start or to stop",
    "oom-kill": "out of memory",
}
_TRACE = "Current thread "  # of Python's faulthandler: what follows is where it was, the innermost call first
_EPILOGUE = "Extension modules:"


@dataclass(frozen=True)
class Record:
    """What was counted of a service that fails time and again."""

    seconds: int
    """Since its first failure."""
    age: int
    """Seconds since the last one."""
    count: int
    ending: str
    """The last one, in words."""
    status: int | None
    """The last one's exit status; None if it had none."""


def describe(result: str, code: str = "", status: str = "") -> str:
    """An ending in words, such as `exit status 217 (USER)`.

    Args:
        result: `$SERVICE_RESULT`, see systemd.exec(5).
        code: `$EXIT_CODE`: exited, killed or dumped.
        status: `$EXIT_STATUS`: a number, or the name of a signal.
    """
    how = ""
    if code == "exited" and status.isdecimal():
        name = _name_of(status)
        how = f"exit status {status} ({name})" if name else f"exit status {status}"
    elif code in ("killed", "dumped") and status:
        how = f"signal {status}"
    what = "" if result in _WITHOUT_MORE else _RESULTS.get(result, result)
    return ", ".join(filter(None, (what, how))) or result or "unknown"


def of_properties(found: Mapping[str, str]) -> str:
    """The same, from the properties of a unit that does not run now: while one runs, they are about this run."""
    code, status = _CODES.get(found.get("ExecMainCode", ""), ""), found.get("ExecMainStatus", "")
    if code in ("killed", "dumped"):
        status = _signal_name(status)
    return describe(found.get("Result", ""), code, status)


def record(unit: str) -> Record | None:
    """What was counted of a unit since the boot; None if it never failed, or nobody counts."""
    try:
        text = files.read(os.path.join(constants.ENDS_DIR, unit), most_bytes=_MOST_BYTES).decode()
        began, last, _, count, ending, *_ = text.split()
        result, code, status, *_ = ending.split(":")
        now = int(time.clock_gettime(time.CLOCK_BOOTTIME))
        number = int(status) if code == "exited" else None
        return Record(now - int(began), now - int(last), int(count), describe(result, code, status), number)
    except (OSError, ValueError):
        return None


def last_line(invocation: str) -> str:
    """What a run of a service said last; empty if it said nothing, or the journal cannot be read.

    Args:
        invocation: The run, see `$INVOCATION_ID`. What systemd says of it is not the service's.
    """
    match = f"_SYSTEMD_INVOCATION_ID={invocation}"
    command = ["journalctl", f"--lines={_LINES_OF_JOURNAL}", "--output=cat", "--no-pager", "--quiet", match]
    try:
        said = commands.run(command, timeout=_SECONDS_TO_ANSWER) if invocation else ""
    except commands.CommandError:
        return ""
    lines = [line.strip() for line in said.splitlines() if line.strip() and not line.startswith(_EPILOGUE)]
    traces = [number for number, line in enumerate(lines[:-1]) if line.startswith(_TRACE)]
    if traces:
        return lines[traces[-1] + 1][:_LONGEST_LINE]
    return lines[-1][:_LONGEST_LINE] if lines else ""


def _name_of(status: str) -> str:
    """What systemd calls an exit status: `CONFIG` for 78, `USER` for 217; empty if it has no name."""
    try:
        # A head, and a line of name, number, and whose status it is.
        said = commands.run(["systemd-analyze", "exit-status", status], timeout=_SECONDS_TO_ANSWER)
    except commands.CommandError:
        return ""
    name = said.splitlines()[-1].split()[:1] if said.strip() else []
    return name[0] if name and name[0] != "-" else ""


def _signal_name(number: str) -> str:
    try:
        return signal.Signals(int(number)).name.removeprefix("SIG")
    except ValueError:
        return number
