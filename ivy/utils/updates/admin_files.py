"""Files of /etc/ivy that an admin brings with a config, such as certificates: on trial with it, and back with it.

`<root>/files-on-trial` has those that are brought, in `new/`, and those that they replace, in `before/`. Each step
may be done twice, so that whoever goes on after a power cut only does it again.
"""

import os
import re
import shutil
import stat
from pathlib import Path

from ivy import constants
from ivy.files import open_regular, read, sync, write_atomically

PLACE = Path(constants.CONFIG_LINK).parent
"""What the admin writes for ivy."""

_NEW, _BEFORE = "new", "before"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_OTHERS = ("config.json", "provision.json", "allowed_signers")
_MOST_BYTES = 1_000_000
_FOR_ALL, _FOR_IVY = 0o644, 0o640


def check(brought: Path) -> None:
    """See whether all files of a directory can be put on trial.

    Raises:
        OSError: It cannot be read.
        ValueError: They cannot; the text says which, and why.
    """
    for source in sorted(brought.iterdir()):
        if not _NAME.fullmatch(source.name):
            raise ValueError(f"{source}: letters, digits, . _ and - are allowed in the name")
        if source.name in _OTHERS:
            raise ValueError(f"{source}: only certificates, keys and the like can be put on trial with a config")
        os.close(open_regular(str(source), most_bytes=_MOST_BYTES))
        target = PLACE / source.name
        if target.is_symlink() or (target.exists() and not target.is_file()):
            raise ValueError(f"{target} is not a regular file, so it is not replaced; remove it first")


class AdminFiles:
    """The files on trial, if there are some. What cannot be done raises `OSError`.

    Args:
        root: Where releases are.
    """

    def __init__(self, root: Path) -> None:
        self._trial = root / "files-on-trial"
        self._data = root / "data"

    def are_on_trial(self) -> bool:
        """Whether some are."""
        return self._trial.is_dir()

    def begin(self, brought: Path | None) -> None:
        """Keep what is brought and what it replaces; nothing is replaced yet.

        Args:
            brought: The directory with the files; None if there are none.
        """
        self.end()
        if brought is None:
            return
        unfinished = self._unfinished()
        for name in (_NEW, _BEFORE):
            (unfinished / name).mkdir(parents=True, mode=0o700)
        for source in sorted(brought.iterdir()):
            self._copy(source, unfinished / _NEW)
            if (PLACE / source.name).exists():
                self._copy(PLACE / source.name, unfinished / _BEFORE)
        unfinished.rename(self._trial)
        sync(self._trial.parent)

    def use(self) -> None:
        """Let those that were brought be in their place."""
        for source in self._names():
            self._copy(source, PLACE)

    def put_back(self) -> bool:
        """Let those that were replaced be in their place again. Returns whether there were some on trial."""
        for source in self._names():
            before = self._trial / _BEFORE / source.name
            if before.exists():
                self._copy(before, PLACE)
            else:
                (PLACE / source.name).unlink(missing_ok=True)
                sync(PLACE)
        return self.are_on_trial()

    def end(self) -> None:
        """Keep neither any longer."""
        unfinished = self._unfinished()
        if unfinished.exists():
            shutil.rmtree(unfinished)
        if self.are_on_trial():
            self._trial.rename(unfinished)
            sync(self._trial.parent)
            shutil.rmtree(unfinished)

    def _unfinished(self) -> Path:
        return self._trial.with_name(f".{self._trial.name}.new")  # which a pass removes, see `Releases`

    def _names(self) -> list[Path]:
        return sorted((self._trial / _NEW).iterdir()) if self.are_on_trial() else []

    def _copy(self, source: Path, directory: Path) -> None:
        """Root's, whoever brings it. What not all may read, those of the group of the data may."""
        is_for_all = bool(source.stat().st_mode & stat.S_IROTH)
        content = read(str(source), _MOST_BYTES)
        group_of, mode = (None, _FOR_ALL) if is_for_all else (self._data, _FOR_IVY)
        target = directory / source.name
        if (
            target.exists()
        ):  # of somebody else's, as an admin's who has copied it there, that one would stay the owner
            os.chown(target, os.geteuid(), os.getegid())
        write_atomically(target, content, mode=mode, group_of=group_of)
