"""Whose a tree of files is: the unprivileged user's while it is being made, root's before anything of it runs."""

import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

from ivy.utils.updates import sandbox
from ivy.utils.updates.errors import Rejected


def give_to_user(directory: Path) -> None:
    """Let `sandbox.USER` write in a tree. Nothing of that user's may run meanwhile.

    Raises:
        OSError, LookupError: It cannot be done.
    """
    user = pwd.getpwnam(sandbox.USER)
    for path in _tree(directory):
        os.chown(path, user.pw_uid, user.pw_gid, follow_symlinks=False)


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
            raise Rejected(f"{path.relative_to(directory)} is no file")


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
