"""What systemd knows about ivy's units, and what it should do with them."""

from ivy.utils import commands

TARGET = "ivy.target"
_SECONDS_FOR_A_QUESTION = 30
_SECONDS_FOR_A_STOP = 7200 + 120 + 30  # the longest drain that a config may ask for, and a little


def name_of(service: str) -> str:
    """The unit of a procedure or backend: `dummy_procedure` -> `ivy-dummy-procedure.service`."""
    return f"ivy-{service.replace('_', '-')}.service"


def show(unit: str, *properties: str) -> dict[str, str]:
    """Get properties of a unit, see `systemctl show`.

    Raises:
        CommandError: There is no systemd to ask.
    """
    text = commands.run(
        ["systemctl", "show", f"--property={','.join(properties)}", "--", unit], timeout=_SECONDS_FOR_A_QUESTION
    )
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def wanted_by_target() -> list[str]:
    """The services that `ivy.target` wants, in the order of their names.

    Raises:
        CommandError: There is no systemd to ask.
    """
    wants = show(TARGET, "Wants").get("Wants", "").split()
    return sorted(unit for unit in wants if unit.endswith(".service"))


def control(verb: str, unit: str) -> None:
    """Start, stop or restart a unit, and wait until that is done.

    Raises:
        CommandError: systemd refused or failed; the text says why.
    """
    commands.run(["systemctl", verb, "--", unit], timeout=_SECONDS_FOR_A_STOP)


def reload() -> None:
    """Let the generator look at the current release and config again.

    Raises:
        CommandError: systemd refused or failed; the text says why.
    """
    commands.run(["systemctl", "daemon-reload"], timeout=_SECONDS_FOR_A_QUESTION)
