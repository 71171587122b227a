"""The host's name: what somebody says, or one of its own for each machine that has only the image's."""

import contextlib
import os
import re
from pathlib import Path

from ivy import files
from ivy.utils.host import commands

BY_DEFAULT = ("ivy-node", "localhost")
"""Names that say of no machine which one it is: packaging/ivy-node/ivy-first-boot.service has them, too."""

_APPLICATION = "5f0c7a5d2f7e4a52a1d1c1b8f2f0a7e4"
"""So that nobody who sees the name learns the machine's own number."""

_FILE = "etc/hostname"
_DIGITS = 6
_SECONDS = 30.0


def choose(wanted: str | None, root: Path) -> str | None:
    """Let the host have a name, from the next boot on, or from when somebody reads /etc/hostname.

    Args:
        wanted: What somebody calls it; None leaves a name that is one.
        root: Below which the node's files are.

    Returns: The new name; None if it has that already.

    Raises:
        OSError: It cannot be written.
        CommandError: The machine's number cannot be had.
    """
    path = root / _FILE
    known = name(root)
    if wanted is None:
        if known not in ("", *BY_DEFAULT):
            return None
        command = ["systemd-id128", "machine-id", f"--app-specific={_APPLICATION}"]
        wanted = f"ivy-{commands.run(command, timeout=_SECONDS).strip()[:_DIGITS]}"
    if wanted == known:
        return None
    _rename_in_hosts(root / "etc/hosts", known, wanted)
    files.write_atomically(path, f"{wanted}\n", mode=0o644)  # the last one: by this it is known to be done
    return wanted


def name(root: Path) -> str:
    """What the host is called, from the next boot on at the latest; empty if it has no name."""
    with contextlib.suppress(OSError):
        lines = (root / _FILE).read_text(encoding="utf-8", errors="replace").splitlines()
        return next((line.strip() for line in lines if line.strip() and not line.startswith("#")), "")
    return ""


def _rename_in_hosts(path: Path, known: str, wanted: str) -> None:
    if not os.path.isfile(path) or not known:
        return
    before = path.read_text(encoding="utf-8", errors="surrogateescape")
    word = re.compile(rf"(?<![\w.-]){re.escape(known)}(?![\w-])")
    lines = (
        word.sub(wanted, line) if line.split()[:1] == ["127.0.1.1"] else line for line in before.splitlines(True)
    )
    if (after := "".join(lines)) != before:
        files.write_atomically(path, after.encode(errors="surrogateescape"), mode=0o644)
