"""What systemd knows about ivy's units, and what it should do with them.

Where it refuses, fails or is not there, all but `journal` raise `CommandError`, whose text says why.
"""

from collections.abc import Sequence

from ivy.utils.host import commands

TARGET = "ivy.target"
PATIENCE = 30.0
"""Seconds for the answer to a question."""

_SECONDS_FOR_A_STOP = 7200 + 120 + 30  # the longest drain that a config may ask for, and a little


def name_of(service: str) -> str:
    """The unit of a procedure or backend: `dummy_procedure` -> `ivy-dummy-procedure.service`."""
    return f"ivy-{service.replace('_', '-')}.service"


def show(unit: str, *properties: str, timeout: float = PATIENCE) -> dict[str, str]:
    """Get properties of a unit, see `systemctl show`."""
    text = commands.run(["systemctl", "show", f"--property={','.join(properties)}", "--", unit], timeout=timeout)
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def show_each(names: Sequence[str], *properties: str, timeout: float = PATIENCE) -> dict[str, dict[str, str]]:
    """Get properties of several units at once; as `show`, by their names."""
    if not names:
        return {}
    wanted = f"--property=Id,{','.join(properties)}"
    text = commands.run(["systemctl", "show", wanted, "--", *names], timeout=timeout)
    blocks = [
        dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in text.split("\n\n")
    ]
    return {block["Id"]: block for block in blocks if "Id" in block}


def wanted_by_target(timeout: float = PATIENCE) -> list[str]:
    """The services that `ivy.target` wants, in the order of their names."""
    wants = show(TARGET, "Wants", timeout=timeout).get("Wants", "").split()
    return sorted(unit for unit in wants if unit.endswith(".service"))


def active_services(pattern: str) -> list[str]:
    """The services of a name that are not at rest, whether or not there still is a file for them."""
    command = [
        "systemctl",
        "list-units",
        "--plain",
        "--no-legend",
        "--full",
        "--state=active,activating,deactivating",
    ]
    text = commands.run([*command, "--", pattern], timeout=PATIENCE)
    return [line.split()[0] for line in text.splitlines() if line.strip()]


def control(verb: str, unit: str, *options: str) -> None:
    """Start, stop or restart a unit, and wait until that is done (but with the option `--no-block`)."""
    commands.run(["systemctl", *options, verb, "--", unit], timeout=_SECONDS_FOR_A_STOP)


def journal(unit: str, lines: int) -> str:
    """The last lines of a unit's journal; empty if there are none to be had."""
    command = [
        "journalctl",
        "--boot",
        f"--unit={unit}",
        f"--lines={lines}",
        "--output=cat",
        "--no-pager",
        "--quiet",
    ]
    try:
        return commands.run(command, timeout=PATIENCE).strip()
    except commands.CommandError:
        return ""


def reload() -> None:
    """Let the generator look at the current release and config again."""
    commands.run(["systemctl", "daemon-reload"], timeout=PATIENCE)
