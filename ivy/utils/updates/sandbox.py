"""Runs a program that handles what strangers wrote, in a transient unit: no rights, no place to write but one.

systemd makes the walls. Not for ivy's own services, whose sandbox stands in their units.
"""

from collections.abc import Sequence
from pathlib import Path

from ivy import constants
from ivy.utils.host import commands

USER = f"{constants.NAME}-updater"
"""Who runs it: owns the sources that are fetched, and nothing else."""

_SECONDS_TO_END = 30
_WALLS = (
    "ProtectSystem=strict",
    "ProtectHome=yes",
    "PrivateTmp=yes",
    "PrivateDevices=yes",
    "ProtectHostname=yes",
    "ProtectClock=yes",
    "ProtectControlGroups=yes",
    "ProtectKernelLogs=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelTunables=yes",
    "ProtectProc=invisible",
    "CapabilityBoundingSet=",
    "NoNewPrivileges=yes",
    "LockPersonality=yes",
    "RestrictNamespaces=yes",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    "SystemCallArchitectures=native",
    "SystemCallFilter=@system-service",
    "SystemCallErrorNumber=EPERM",
    "UMask=0022",
    "LimitCORE=0",
    "LimitFSIZE=200M",  # what is fetched must not fill the disk before anybody has looked at it
    "TasksMax=100",
    "LimitNPROC=100",  # the same for a kernel without that controller, as some Raspberry Pis have it
    "MemoryMax=500M",
    "MemorySwapMax=0",
    "Nice=10",
    "IOSchedulingClass=idle",
    "TimeoutStopSec=5",
)
_WITHOUT_NETWORK = ("PrivateNetwork=yes", "RestrictAddressFamilies=AF_UNIX")
_WITH_NETWORK = ("RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",)


def run(
    step: str,
    arguments: Sequence[str],
    *,
    timeout: float,
    writable: Sequence[Path] = (),
    groups: Sequence[str] = (),
    network: bool = False,
    environment: Sequence[str] = (),
    directory: Path = Path("/"),
    input: str = "",
) -> str:
    """Run a program to its end.

    Args:
        step: What it does, in one word; names the unit. One of each name at a time.
        arguments: The program and its arguments; never a shell string.
        timeout: Seconds after which everything that it has started is killed.
        writable: The only directories, besides a private /tmp, that it can write to.
        groups: Whose files it can read besides.
        network: Whether there is any.
        environment: `NAME=value`, each. No secrets: everybody can read a unit's environment.
        directory: Where it is run.
        input: What it can read from its standard input. The place for secrets.

    Returns: What it printed on its standard output.

    Raises:
        CommandError: It failed, or took too long.
    """
    properties = [
        *_WALLS,
        *(_WITH_NETWORK if network else _WITHOUT_NETWORK),
        f"User={USER}",
        *(f"SupplementaryGroups={group}" for group in groups),
        f"WorkingDirectory={directory}",
        f"RuntimeMaxSec={timeout:.0f}",
        *(f"ReadWritePaths={path}" for path in writable),
        *(f"Environment={assignment}" for assignment in environment),
    ]
    unit = unit_name(step)
    command = ["systemd-run", "--quiet", "--wait", "--pipe", "--collect", "--service-type=exec", f"--unit={unit}"]
    command += [f"--property={setting}" for setting in properties]
    try:
        return commands.run([*command, "--", *arguments], timeout=timeout + _SECONDS_TO_END, input=input)
    except commands.CommandError as error:
        # A person wants to read what failed, and not how it was confined.
        verdict = "failed or took too long" if error.status is not None else str(error)
        raise commands.CommandError(
            f"`{' '.join(arguments)}` {verdict}: {error.said}", error.status, error.said
        ) from None


def stop_all() -> None:
    """End what a pass has left that was killed.

    Raises:
        CommandError: There is no systemd to ask.
    """
    commands.run(["systemctl", "stop", "--", unit_name("*")], timeout=_SECONDS_TO_END)


def unit_name(step: str) -> str:
    """The transient unit of a step. Without a dash, so that the drop-ins of ivy's services do not apply to it."""
    return f"{constants.NAME}_{step}.service"
