"""Runs a program that handles what strangers wrote, in a transient unit: no rights, no place to write but one.

What it may stands in `units/ivy_sandbox-*.service.d/`. Not for ivy's own services, which have units of their own.
"""

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from ivy import constants
from ivy.utils.host import commands, units
from ivy.utils.updates.errors import NodeTrouble, Rejected

TOKEN = "token"
"""The name of the file in `$CREDENTIALS_DIRECTORY` that holds the secret of a program."""

SECONDS_AT_MOST = 3600
"""The longest `RuntimeMaxSec=` of the units."""

_SECONDS_TO_END = 30
_NOT_SET_UP = range(200, 244)
"""Exit statuses of systemd's own, where it could not make the sandbox; see systemd.exec(5)."""
_LACKS = (
    "No space left on device",
    "Disk quota exceeded",
    "Read-only file system",
    "Input/output error",
    "Cannot allocate memory",
    "ut of memory",
    "MemoryError",
    "Too many open files",
    "cannot run /usr/bin/",  # what git calls a program that is not there
    "No module named pip",
    "Failed to find executable",
    "Failed to start transient service unit",
    "Failed to connect to bus",
    "Failed to connect to system scope bus",
    "git: not found",
)
"""What git, pip, sh and systemd say (LC_ALL=C) where a node lacks something."""
_RESULTS_OF_LACKS = ("oom-kill", "resources")
_PREFIX = f"{constants.NAME}_sandbox-"


def run(
    step: str,
    arguments: Sequence[str],
    *,
    writable: Path | None = None,
    environment: Sequence[str] = (),
    directory: Path = Path("/"),
    token: str | None = None,
    output: Path | None = None,
    shown: Sequence[str] = (),
    is_foreign: bool = False,
) -> str:
    """Run a program to its end.

    Args:
        step: What it does, in one word; names the unit, and with it what it may. One of each name at a time.
        arguments: The program and its arguments; never a shell string.
        writable: The only directory, besides a private /tmp, that it can write to: below /var/lib. systemd makes it
            the user's, with all that is in it; see `take_back`.
        environment: `NAME=value`, each. No secrets: everybody can read a unit's environment.
        directory: Where it is run.
        token: A secret, which it can read from the file `TOKEN`.
        output: A new file of root's for what it prints on its standard output, of `LimitFSIZE=` at most. This way
            nobody has to open what it made.
        shown: What is seen where the units hide all: paths, or `path:where it is seen`.
        is_foreign: Whether it is foreign code that speaks or ends: neither says anything about the node.

    Returns: What it printed, if that is not written to a file.

    Raises:
        CommandError: It failed; or took too long, and is foreign or speaks to the network.
        NodeTrouble: It failed because of what this node lacks, or was ended without a word, for want of memory or
            time.
        OSError: The settings of the unit are damaged. Nothing was run.
    """
    settings = [
        *_settings(step),
        f"WorkingDirectory={directory}",
        *(f"Environment={assignment}" for assignment in environment),
    ]
    settings += [f"BindReadOnlyPaths={path}" for path in shown]
    if writable is not None:
        settings.append(f"StateDirectory={os.path.relpath(writable, '/var/lib')}")
    unit = f"{_PREFIX}{step}.service"
    command = ["systemd-run", "--quiet", "--wait", "--pipe", f"--unit={unit}"]
    try:
        with _credential(token) as credential, _new_file(output) as file:
            command += [f"--property={setting}" for setting in [*settings, *credential]]
            command += ["--", *arguments]
            return commands.run(command, timeout=SECONDS_AT_MOST + _SECONDS_TO_END, output=file)
    except commands.CommandError as error:
        # A person wants to read what failed, and not how it was confined.
        outcome = "failed or took too long" if error.status is not None else str(error)
        text = f"`{' '.join(arguments)}` {outcome}: {error.output}"
        result = _result_of(unit)
        # Where there is a network, a silent end is that of the time to wait for it.
        is_silent = not error.output and not is_foreign and "PrivateNetwork=no" not in settings
        if result in _RESULTS_OF_LACKS or is_silent or _is_of_the_node(error, is_foreign):
            how = f" (exit status {error.status}, {result})" if result else ""
            raise NodeTrouble(f"the step {step!r}{how}: {error.output or text}") from None
        raise commands.CommandError(text, error.status, error.output) from None


def _result_of(unit: str) -> str:
    """How a unit ended that failed, and is kept until it is forgotten here."""
    with contextlib.suppress(commands.CommandError):
        result = units.show(unit, "Result").get("Result", "")
        commands.run(["systemctl", "reset-failed", "--", unit], timeout=_SECONDS_TO_END)
        return result
    return ""


def _is_of_the_node(error: commands.CommandError, is_foreign: bool) -> bool:
    if error.status is None or error.status in _NOT_SET_UP:
        return True
    return not is_foreign and any(lack in error.output for lack in _LACKS)


def _settings(step: str) -> list[str]:
    units = Path(constants.PROJECT_DIR, "units")
    own = sorted((units / f"{_PREFIX}{step}.service.d").glob("*.conf"))
    lines = (units / f"{_PREFIX}.service.d" / "10-sandbox.conf").read_text(encoding="utf-8").splitlines()
    if not lines or not lines[-1].startswith("User="):
        raise OSError(f"the sandbox in {units} is damaged")
    lines += [line for path in own for line in path.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line and line[0] not in "#["]


@contextlib.contextmanager
def _credential(token: str | None) -> Iterator[list[str]]:
    """The setting that hands over a secret: from memory, so that nothing is left when the pass is killed."""
    if token is None:
        yield []
        return
    with open(os.memfd_create(TOKEN), "w", encoding="utf-8") as file:
        file.write(token)
        file.flush()
        yield [f"LoadCredential={TOKEN}:/proc/{os.getpid()}/fd/{file.fileno()}"]


@contextlib.contextmanager
def _new_file(path: Path | None) -> Iterator[IO[bytes] | None]:
    if path is None:
        yield None
        return
    path.unlink(missing_ok=True)
    with path.open("xb") as file:
        os.fchmod(file.fileno(), 0o644)
        yield file


def stop_all() -> None:
    """End what a pass has left that was killed, also one of version 1.0, which names its units otherwise.

    Raises:
        CommandError: There is no systemd to ask.
    """
    for verb in ("stop", "reset-failed"):
        commands.run(["systemctl", verb, "--", f"{constants.NAME}_*.service"], timeout=_SECONDS_TO_END)


def take_back(directory: Path) -> None:
    """Make a tree root's, readable for everybody, if there is nothing in it but files, directories and inner links.

    Raises:
        Rejected: There is something else, or a link that leads outside.
        OSError: It cannot be changed.
    """
    inside = directory.resolve()
    for path in _tree(directory):
        mode = path.lstat().st_mode
        os.chown(path, 0, 0, follow_symlinks=False)
        if stat.S_ISLNK(mode):
            _check_link(path, inside)
        elif stat.S_ISDIR(mode) or stat.S_ISREG(mode):
            path.chmod(0o755 if stat.S_ISDIR(mode) or mode & 0o100 else 0o644)
        else:
            raise Rejected(f"{path.relative_to(directory)} is not a regular file")


def _tree(directory: Path) -> Iterator[Path]:
    yield directory
    for parent, directories, files in os.walk(directory):
        yield from (Path(parent, name) for name in directories + files)


def _check_link(path: Path, inside: Path) -> None:
    """The programs of a virtual environment are links to the system's Python, and ivy's own."""
    name = path.relative_to(inside)
    if ".venv" in name.parts[:1] or inside.name == ".venv":
        return
    try:
        if path.readlink().is_absolute() or not path.resolve().is_relative_to(inside):
            raise Rejected(f"{name} is a link that leads out of the release")
        path.resolve(strict=True)
    except (OSError, RuntimeError):  # which of them a circle raises depends on the version of Python
        raise Rejected(f"{name} is a link that leads nowhere") from None
