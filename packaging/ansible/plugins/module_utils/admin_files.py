"""What a play brings to /etc/ivy of a node beside its config: certificates for all to read, and keys."""

from __future__ import annotations

import contextlib
import grp
import os
import stat
import tempfile
from collections.abc import Iterator
from typing import Any, NamedTuple

FOR_ALL, FOR_IVY = 0o644, 0o640
GROUP = "ivy"


class AdminFile(NamedTuple):
    """One of them, as it is to be."""

    name: str
    text: str
    is_secret: bool

    @property
    def mode(self) -> int:
        """Its permissions."""
        return FOR_IVY if self.is_secret else FOR_ALL

    def is_in(self, place: str) -> bool:
        """Whether a directory has it, as it is to be."""
        try:
            with open(os.path.join(place, self.name), "rb") as file:
                status = os.fstat(file.fileno())
                is_same = file.read() == self.text.encode()
        except OSError:
            return False
        is_ours = stat.S_IMODE(status.st_mode) == self.mode and status.st_uid == os.geteuid()
        return is_same and is_ours and (not self.is_secret or status.st_gid == group())


def wanted(files: dict[str, Any], secret_files: dict[str, Any]) -> list[AdminFile]:
    """All that a play wants."""
    some = [AdminFile(name, str(text), False) for name, text in sorted(files.items())]
    return some + [AdminFile(name, str(text), True) for name, text in sorted(secret_files.items())]


@contextlib.contextmanager
def laid_out(files: list[AdminFile]) -> Iterator[str]:
    """A directory with files, across the body of a `with`, for root only."""
    with tempfile.TemporaryDirectory(prefix="ivy-files-") as directory:
        for file in files:
            write(directory, file)
        yield directory


def write(directory: str, file: AdminFile) -> None:
    """Have a file in a directory, on the disk and whole, or as it was."""
    path = os.path.join(directory, file.name)
    descriptor, beside = tempfile.mkstemp(prefix=f".{os.path.basename(file.name)}.", dir=os.path.dirname(path))
    try:
        with os.fdopen(descriptor, "wb") as opened:
            if file.is_secret:
                os.fchown(descriptor, -1, group())
            os.fchmod(descriptor, file.mode)
            opened.write(file.text.encode())
            opened.flush()
            os.fsync(descriptor)
        os.replace(beside, path)
    except BaseException:
        os.unlink(beside)
        raise


def group() -> int:
    """The number of the group that may read keys; that of this process where there is none."""
    try:
        return grp.getgrnam(GROUP).gr_gid
    except KeyError:
        return os.getegid()
