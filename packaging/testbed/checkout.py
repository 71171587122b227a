"""Copies this checkout into a root: what is built and tested there depends on nothing else of this machine."""

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path

import locking

from testbed.roots import BUILDER_ID, PROJECT
from testbed.run import BedError, run

NOT_SOURCE = {".git", "dist"}
WHEELS = "wheels"


@dataclass(frozen=True)
class Release:
    """What the topmost entry of debian/changelog says; the version without its epoch, as in the names of files."""

    package: str
    version: str
    date: int  # Unix seconds, for SOURCE_DATE_EPOCH

    @property
    def tree(self) -> str:
        return f"{self.package}-{self.version}"

    @classmethod
    def read(cls, changelog: Path) -> "Release":
        text = changelog.read_text() if changelog.exists() else ""
        title = re.match(r"(\S+) \(([^)]+)\)", text)
        trailer = re.search(r"(?m)^ -- .*>  (.+)$", text)
        if not title or not trailer:
            raise BedError(f"{changelog} does not begin with a release", "See man deb-changelog.")
        date = int(parsedate_to_datetime(trailer.group(1)).timestamp())
        return cls(title.group(1), title.group(2).split(":")[-1], date)


def copy_source(target: Path, epoch: int, wheels: Iterable[Path] = ()) -> None:
    """With modes and times that depend on nothing but the source: umasks and checkouts differ.

    Args:
        target: Where to.
        epoch: The time of all files, Unix seconds.
        wheels: What requirements.lock names; they are in a directory of that name then.
    """
    target.mkdir(parents=True)
    for name in _source_files():
        copy = target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(PROJECT / name, copy, follow_symlinks=False)
        if not copy.is_symlink():
            copy.chmod(0o755 if copy.stat().st_mode & 0o100 else 0o644)
    for wheel in wheels:
        (target / WHEELS).mkdir(exist_ok=True)
        shutil.copyfile(wheel, target / WHEELS / wheel.name)
        (target / WHEELS / wheel.name).chmod(0o644)
    for path in [target.parent, target, *target.rglob("*")]:
        os.chown(path, BUILDER_ID, BUILDER_ID, follow_symlinks=False)
        os.utime(path, (epoch, epoch), follow_symlinks=False)


@contextlib.contextmanager
def fetched_wheels() -> Iterator[list[Path]]:
    """What requirements.lock names, for all kinds of nodes; the network is needed only if it names something.

    Raises:
        BedError: They cannot be had, or the lock is older than requirements.in.
    """
    if forgotten := locking.not_locked():
        raise BedError(
            f"{locking.LOCK} lacks {', '.join(forgotten)}", "Run packaging/lock, and commit what it writes."
        )
    with tempfile.TemporaryDirectory(prefix="wheels-") as directory:
        try:
            yield locking.fetch(Path(directory))
        except locking.NotLocked as error:
            raise BedError(
                f"the wheels of {locking.LOCK} cannot be fetched: {error}", "Is there a network?"
            ) from None


def _source_files() -> list[Path]:
    """What git tracks or would track; all there is, if this is no git checkout (or git is not installed)."""
    if (PROJECT / ".git").exists() and shutil.which("git"):
        # Root may look at a checkout that is another user's.
        git = ["git", "-c", f"safe.directory={PROJECT}", "-C", str(PROJECT)]
        listing = run([*git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]).stdout
        names = [Path(name) for name in sorted(listing.split("\0")) if name]
    else:
        names = sorted(path.relative_to(PROJECT) for path in PROJECT.rglob("*"))
    return [name for name in names if name.parts[0] not in NOT_SOURCE and _is_file(PROJECT / name)]


def _is_file(path: Path) -> bool:
    """Also false for what git tracks and somebody has deleted."""
    return path.is_symlink() or path.is_file()
