"""What systemd knows about ivy's units, and what it should do with them.

Where it refuses, fails or is not there, all but `journal` raise `CommandError`, whose text says why.
"""

import os
import re
from collections.abc import Sequence

from ivy.utils import notify
from ivy.utils.host import commands

TARGET = "ivy.target"
UPDATER = "ivy-updater.service"
"""Makes one pass; the only service that may be done."""
TRIGGERS = (".timer", ".path", ".socket")
"""What starts a service when it is time."""

PATIENCE = 30.0
"""Seconds for the answer to a question."""

SECONDS_BEYOND_A_STOP = 5.0
"""How long after a service's time to stop it is killed, if systemd has not done that; as in units/ivy-end-stops."""

_SERVICE = re.compile(r"ivy-([a-z0-9]+(?:-[a-z0-9]+)*)\.service", re.ASCII)
_MOST_STOPS = 3
_LONGEST_START = 300.0
_LONGEST_RELOAD = 300.0  # longer than systemctl waits, so that the words are systemd's
_MOST_RELOADS = 3
_SECONDS_BETWEEN_RELOADS = 5.0
_NO_ROOM = "not enough space"
_SECONDS_OF = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}
_SECONDS_FOR_A_STOP = 7200 + 120 + 30  # the longest drain that a config may ask for, and a little


class NoRoomError(commands.CommandError):
    """systemd refuses to reload, as it does with less than 16 MB free in /run; the text is its own."""


def name_of(service: str) -> str:
    """The unit of a procedure or backend: `dummy_procedure` -> `ivy-dummy-procedure.service`."""
    return f"ivy-{service.replace('_', '-')}.service"


def service_of(unit: str) -> str:
    """The name of a procedure or backend by its unit, as commands have it: `ivy-heat-box.service` -> `heat-box`."""
    return unit.removeprefix("ivy-").removesuffix(".service")


def services_in(directory: str) -> list[str]:
    """The names of the services for which a directory has units, but for those that are made from templates."""
    found = [_SERVICE.fullmatch(name) for name in os.listdir(directory)]
    return sorted(match[1] for match in found if match)


def show(unit: str, *properties: str, timeout: float = PATIENCE) -> dict[str, str]:
    """Get properties of a unit, see `systemctl show`."""
    text = commands.run(["systemctl", "show", f"--property={','.join(properties)}", "--", unit], timeout=timeout)
    return _properties(text)


def show_each(names: Sequence[str], *properties: str, timeout: float = PATIENCE) -> dict[str, dict[str, str]]:
    """Get properties of several units at once; as `show`, by their names."""
    if not names:
        return {}
    wanted = f"--property=Id,{','.join(properties)}"
    text = commands.run(["systemctl", "show", wanted, "--", *names], timeout=timeout)
    blocks = map(_properties, text.split("\n\n"))
    return {block["Id"]: block for block in blocks if "Id" in block}


def _properties(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def target(timeout: float = PATIENCE) -> tuple[list[str], str]:
    """All that `ivy.target` wants, in the order of their names; and `enabled` if a boot starts it."""
    found = show(TARGET, "Wants", "UnitFileState", timeout=timeout)
    return sorted(found.get("Wants", "").split()), found.get("UnitFileState", "")


def wanted_by_target() -> list[str]:
    """The services that it wants."""
    return [unit for unit in target()[0] if unit.endswith(".service")]


def triggers_of_target() -> list[str]:
    """The timers, paths and sockets that it wants."""
    return [unit for unit in target()[0] if unit.endswith(TRIGGERS)]


def active(*patterns: str) -> list[str]:
    """The units of some names that are not at rest, whether or not there still is a file for them."""
    command = ["systemctl", "list-units", "--plain", "--no-legend", "--full"]
    running = "--state=active,activating,deactivating"
    text = commands.run([*command, running, "--", *patterns], timeout=PATIENCE)
    return [line.split()[0] for line in text.splitlines() if line.strip()]


def control(verb: str, unit: str, *options: str) -> None:
    """Start, stop or restart a unit, and wait until that is done (but with the option `--no-block`).

    A service that ignores SIGTERM can ask systemd for more time without an end (EXTEND_TIMEOUT_USEC=). It is killed
    5 s after the end of what its unit gives it.

    A stop is asked for again where a restart cancels it, as that of a pass that saw the service run just before.
    Not the other way round: whoever stops a service wants it stopped.
    """
    tries = _MOST_STOPS if verb == "stop" else 1
    while True:
        tries -= 1
        try:
            return _control(verb, unit, *options)
        except commands.CommandError as error:
            if tries <= 0 or not error.output.endswith("canceled."):
                raise


def _control(verb: str, unit: str, *options: str) -> None:
    command = ["systemctl", *options, verb, "--", unit]
    if verb not in ("stop", "restart") or "--no-block" in options:
        commands.run(command, timeout=_SECONDS_FOR_A_STOP)
        return
    limits = show(unit, "TimeoutStopUSec", "TimeoutStartUSec")
    try:
        commands.run(command, timeout=seconds_of(limits.get("TimeoutStopUSec", "")) + SECONDS_BEYOND_A_STOP)
    except commands.CommandError as error:
        if error.status is not None:
            raise
    else:
        return
    if show(unit, "ActiveState").get("ActiveState") == "deactivating":
        commands.run(["systemctl", "kill", "--signal=KILL", "--", unit], timeout=PATIENCE)
    rest = "stop" if verb == "stop" else "start"  # what is left of it: to restart would begin again
    limit = PATIENCE + min(_LONGEST_START, seconds_of(limits.get("TimeoutStartUSec", "")))
    commands.run(["systemctl", rest, "--", unit], timeout=limit)


def seconds_of(span: str) -> float:
    """A time span as `systemctl show` tells it (`2min 3s`); the longest that there is if it tells none."""
    parts = re.findall(r"([\d.]+)(us|ms|s|min|h|d)(?: |$)", span)
    return sum(float(number) * _SECONDS_OF[unit] for number, unit in parts) or _SECONDS_FOR_A_STOP


def journal(unit: str, lines: int) -> str:
    """The last lines of a unit's journal; empty if there are none to be had."""
    options = ["--output=cat", "--no-pager", "--quiet"]
    try:
        return commands.run(
            ["journalctl", "--boot", f"--unit={unit}", f"--lines={lines}", *options], timeout=PATIENCE
        ).strip()
    except commands.CommandError:
        return ""


def reload() -> None:
    """Let the generator look at the current release and config again, however busy the machine is.

    Raises:
        NoRoomError: Trying again would not help.
        CommandError: It failed time and again.
    """
    for rest in reversed(range(_MOST_RELOADS)):
        try:
            commands.run(["systemctl", "daemon-reload"], timeout=_LONGEST_RELOAD)
            return
        except commands.CommandError as error:
            if _NO_ROOM in error.output:
                raise NoRoomError(error.output, error.status, error.output) from None
            if not rest:
                raise
        notify.sleep(_SECONDS_BETWEEN_RELOADS)
