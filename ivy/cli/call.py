"""What units/ivy-call@.service runs: root does what an operator asked for by a remote call, and leaves the answer.

Nothing of a call is believed, as a backend that was taken over could have written it: it is read with the rights of
that one, and each method, parameter and pause is checked here. See `ivy.types.calls` and `ivy.backend.rpc`.
"""

import argparse
import contextlib
import json
import math
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ivy import constants, files
from ivy.cli import redaction
from ivy.cli.archive.selection import parse_time
from ivy.cli.main import refuse
from ivy.types import calls
from ivy.utils.host import busy, commands, hold, rights, units, waiting
from ivy.utils.updates.releases import Releases

_SECONDS_TO_READ = 5.0
_SECONDS_FOR_JOURNAL = 60.0
_SECONDS_FOR_DOCTOR = 600.0
_SECONDS_FOR_COMMANDS = 4.5 * 3600  # less than the unit's TimeoutStartSec=; a procedure may be waited for first
_SECONDS_UNTIL_REBOOT = 3.0  # for the backend, to see the answer and send it
_MOST_FINDINGS = 1_000_000
_LONGEST_LINE = 2000

_CHANGING = ("update_now", "rollback", "reboot")
"""What is not done while somebody holds the node."""

_Params = dict[str, str | int]


def run(arguments: argparse.Namespace) -> None:
    """Take the call of a method, do it, and leave the answer."""
    method: str = arguments.method
    if method not in calls.BY_ROOT:
        refuse(f"there is no remote call {method} for root; there are {', '.join(calls.BY_ROOT)}")
    if (asked := _take(f"{constants.CALL_FLAG}{method}")) is None:
        return
    print(f"an operator asks for {method}", flush=True)
    try:
        params = calls.checked(method, asked.params)
        if method in _CHANGING and (held := hold.refusal()) is not None:
            raise calls.CallError(held)
        _check_pause(method)
        answer = calls.success(_WORK[method](params))
    except calls.CallError as error:
        answer = calls.failure(str(error))
    except (commands.CommandError, OSError) as error:
        answer = calls.failure(_words_of(error))
    shown = calls.shortened(redaction.hidden(answer, redaction.pattern()), calls.LARGEST_ANSWER)
    _leave(method, calls.Answered(token=asked.token, answer=shown))
    print("done" if answer["success"] else f"refused: {answer['error']}", flush=True)
    if method == "reboot" and answer["success"]:
        _reboot_when_nobody_minds()


def _take(flag: str) -> calls.Asked | None:
    """What a backend has left word of, which is gone then, whatever it was."""

    def read() -> str:
        return files.read(flag, calls.LARGEST_REQUEST).decode(errors="replace")

    try:
        text = rights.ask(read, constants.BACKEND_RUN_DIR, _SECONDS_TO_READ)
        return calls.Asked.model_validate_json(text)
    except (OSError, ValueError) as error:
        print(f"{flag} cannot be used, and is removed: {type(error).__name__}", flush=True)
        return None
    finally:
        # Not by Python, which root could be led astray with by whoever swaps a directory for a link meanwhile.
        commands.run(["rm", "-rf", "--", flag], timeout=_SECONDS_FOR_JOURNAL)


def _check_pause(method: str) -> None:
    """Raise `CallError` if a method was begun too short a time ago; else it begins now."""
    pause = calls.METHODS[method].pause
    note = Path(constants.ANSWERS_DIR, f"{method}.began")
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    ages = [now - _since(note)]
    if method == "reboot":  # whatever the clock says, and whoever has rebooted the machine
        ages.append(_age_of_boot(now))
    rest = max(pause - age for age in ages)
    if rest > 0:
        least = f"{pause // 60} minutes" if pause > 60 else f"{pause} s"
        raise calls.CallError(f"too soon: there are at least {least} between two; ask again in {math.ceil(rest)} s")
    if pause > 0:
        files.write_atomically(note, f"{int(now)}\n", durable=False, follow=False)


def _since(note: Path) -> float:
    try:
        return float(files.read(str(note), 100))
    except (OSError, ValueError):
        return float("-inf")


def _age_of_boot(now: float) -> float:
    """How long systemd runs: in a container, too, whose kernel was booted long before."""
    try:
        fields = Path("/proc/1/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        return now - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, LookupError, ValueError):  # somebody hides it
        return now


def _logs(params: _Params) -> dict[str, Any]:
    unit = "ivy-*.service"
    if "name" in params:
        name = str(params["name"])
        calls.check_service(name, _services())
        unit = units.name_of(name)
    lines = params.get("lines", calls.USUAL_LINES)
    command = ["journalctl", f"--unit={unit}", f"--lines={lines}", "--utc", "--output=short-iso"]
    text = commands.run([*command, "--no-hostname", "--no-pager", "--quiet"], timeout=_SECONDS_FOR_JOURNAL)
    return {"lines": [line[:_LONGEST_LINE] for line in text.splitlines()[-int(lines) :]]}


def _services() -> set[str]:
    """Those of the release that runs, and the package's own."""
    releases = Releases()
    version = releases.current()
    directories = [Path(constants.PROJECT_DIR), *([releases.directory(version)] if version else [])]
    return {name for directory in directories for name in units.services_in(str(directory / "units"))}


def _doctor(_params: _Params) -> dict[str, Any]:
    with tempfile.TemporaryFile() as file:
        try:
            commands.run(_ivy("doctor", "--json"), timeout=_SECONDS_FOR_DOCTOR, output=file)
        except commands.CommandError as error:
            if error.status != 1:  # with which it says that not all is well
                raise
        file.seek(0)
        try:
            findings = json.loads(file.read(_MOST_FINDINGS))
        except ValueError:
            raise commands.CommandError("ivy doctor has said nothing that can be read") from None
    bad = [finding for finding in findings if not finding.get("ok")]
    good = [finding for finding in findings if finding.get("ok")]
    return {"well": not bad, "checks": len(findings), "bad": len(bad), "findings": [*bad, *good]}


def _resend(params: _Params) -> str:
    times = [f"--{name}={params[name]}" for name in ("since", "until") if name in params]
    for name in ("since", "until"):
        if name in params:
            try:
                parse_time(str(params[name]))
            except argparse.ArgumentTypeError as error:
                raise calls.CallError(f'"{name}" {error}') from None
    return commands.run(_ivy("resend", *times), timeout=_SECONDS_FOR_COMMANDS).strip()


def _update_now(_params: _Params) -> str:
    found = units.show(units.UPDATER, "ActiveState", "StatusText")
    said = found.get("StatusText", "")
    if found.get("ActiveState") in ("inactive", "failed"):
        units.control("start", units.UPDATER, "--no-block")
        return "begun: messages tell what becomes of what it finds"
    if said.startswith("waiting for ") and "because" not in said:  # for a network, say: nobody else holds it up
        units.control("restart", units.UPDATER, "--no-block")
        return f"begun again: it was {said}; messages tell what becomes of that"
    return f"a pass is under way already{f': {said}' if said else ''}"


def _reboot(_params: _Params) -> str:
    found: dict[str, float] = {}
    with contextlib.suppress(commands.CommandError):  # whatever systemd says, it is to reboot
        found = waiting.find(waiting.everybody())
    if found:
        words = busy.words({units.service_of(unit): seconds for unit, seconds in found.items()})
        return f"begun: the machine reboots when it may disturb {words}, or in two hours"
    return f"begun: the machine reboots in {_SECONDS_UNTIL_REBOOT:.0f} s, or when the services have stopped"


def _reboot_when_nobody_minds() -> None:
    time.sleep(_SECONDS_UNTIL_REBOOT)
    with contextlib.suppress(commands.CommandError):
        waiting.wait(waiting.everybody(), lambda words: print(words, flush=True), what="reboot")
    commands.run(["systemctl", "reboot"], timeout=_SECONDS_FOR_JOURNAL)


_WORK: dict[str, Callable[[_Params], Any]] = {
    "logs": _logs,
    "doctor": _doctor,
    "resend": _resend,
    "update_now": _update_now,
    "rollback": lambda _: commands.run(_ivy("rollback"), timeout=_SECONDS_FOR_COMMANDS).strip(),
    "reboot": _reboot,
}


def _ivy(*arguments: str) -> list[str]:
    """A command of the release that runs; what runs here is the package's own."""
    return ["env", "--unset=PYTHONPATH", constants.NAME, *arguments]


def _words_of(error: Exception) -> str:
    """What a command complains of, which is for the operator; else how it failed."""
    said = error.output if isinstance(error, commands.CommandError) and error.status is not None else ""
    return said.removeprefix("ivy: ") or str(error)


def _leave(method: str, answered: calls.Answered) -> None:
    """Write an answer for backends, and nobody else, to read."""
    path = Path(constants.ANSWERS_DIR, method)
    group_of = Path(constants.BACKEND_DIR)
    text = answered.model_dump_json()
    files.write_atomically(path, text, mode=0o640, durable=False, follow=False, group_of=group_of)
