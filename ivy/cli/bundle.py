"""`ivy bundle`: one file with what somebody far away needs to see what is wrong with this node. Changes nothing.

What cannot be had is named in it. Nothing is sent anywhere.
"""

import argparse
import io
import os
import socket
import tarfile
import tempfile
import time
from pathlib import Path

from ivy import constants
from ivy.cli import output, redaction
from ivy.cli.main import refuse
from ivy.utils.host import commands

_LARGEST_PART = 4_000_000
"""Bytes; of what is longer, the end is taken."""

_SECONDS_FOR_A_PART = 300.0  # for a doctor without a network, say
_UNITS = f"{constants.NAME}*"
_PACKAGES = (constants.NAME, "ivy-node", "python3", "systemd", "python3-pydantic", "python3-paho-mqtt", "mosquitto")
_SAID = ("status", "doctor", "releases", "queue")
PARTS: dict[str, list[str]] = {
    **{f"{name}.txt": [constants.NAME, name] for name in _SAID},
    **{f"{name}.json": [constants.NAME, name, "--json"] for name in _SAID},
    "info.txt": [constants.NAME, "info"],
    "config.json": [constants.NAME, "config", "show"],
    "units.txt": ["systemctl", "status", "--no-pager", "--full", "--lines=0", "--all", "--", _UNITS],
    "units-properties.txt": ["systemctl", "show", "--no-pager", "--all", "--", _UNITS],
    "units-failed.txt": ["systemctl", "list-units", "--no-pager", "--failed"],
    "journal.txt": [
        *("journalctl", "--no-pager", "--quiet", "--since=-24h", "--lines=50000", "--output=short-iso-precise"),
        f"--unit={_UNITS}",
    ],
    "journal-boots.txt": ["journalctl", "--no-pager", "--list-boots"],
    "packages.txt": ["dpkg-query", "--show", *_PACKAGES],
    "system.txt": ["uname", "--all"],
    "os-release.txt": ["cat", "/etc/os-release"],
    "disk.txt": ["df", "--human-readable", "--print-type"],
    "memory.txt": ["free", "--mebi"],
    "clock.txt": ["timedatectl", "status", "--no-pager"],
}
"""What is in it, and which programs say so. Each may fail."""

_PROBLEMS = "problems.txt"


def make(arguments: argparse.Namespace) -> None:
    """Write the file, for root only to read."""
    if os.geteuid() != 0:
        refuse("only root can see all of it, and knows what is secret in it; try again with sudo")
    name = f"{constants.NAME}-bundle-{socket.gethostname()}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    path = Path(arguments.file or f"{name}.tar.gz")
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        refuse(f"{path} cannot be written: {error.strerror}", 1)
    try:
        with os.fdopen(descriptor, "wb") as file:
            _fill(file, name)
    except BaseException:
        path.unlink()
        raise
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB. This node's passwords and tokens are *** in it;")
    print("look through it before you give it away, as it tells of names, addresses and times.")


def _fill(file: io.BufferedWriter, directory: str) -> None:
    secret = redaction.pattern()
    problems = ""
    with tarfile.open(fileobj=file, mode="w:gz") as archive:

        def add(name: str, text: str) -> None:
            content = str(redaction.hidden(text, secret)).encode(errors="replace")
            entry = tarfile.TarInfo(f"{directory}/{name}")
            entry.size, entry.mode, entry.mtime = len(content), 0o600, time.time()
            archive.addfile(entry, io.BytesIO(content))

        for name in output.progress(list(PARTS), "asking for"):
            said, complaint = _said_by(PARTS[name])
            add(name, said)
            problems += f"{name}: {complaint}\n" if complaint else ""
        add(_PROBLEMS, problems or "none\n")


def _said_by(command: list[str]) -> tuple[str, str]:
    """What a program printed, or the end of that; and how it failed, as `ivy status` does where all is not well."""
    complaint = ""
    with tempfile.TemporaryFile() as printed:
        try:
            commands.run(command, timeout=_SECONDS_FOR_A_PART, output=printed)
        except commands.CommandError as error:
            complaint = str(error)
        size = printed.seek(0, os.SEEK_END)
        printed.seek(max(0, size - _LARGEST_PART))
        if size > _LARGEST_PART:
            complaint += f" (only its end is here, of {size} bytes)"
            printed.readline()  # a secret that is cut in two would not be found
        return printed.read().decode(errors="replace"), complaint
