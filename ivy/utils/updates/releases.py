"""Releases on disk: where they are, and which one runs.

A release is a directory `<root>/<version>/` with all that runs. The symbolic link `<root>/current` names the one
that does; `<root>/previous` the one before it, while that one is on probation. All change by single renames, so
whoever looks, and whatever boots after a power cut, finds the old or the new one, whole. Not for making releases.
"""

import ctypes
import errno
import hashlib
import os
import shutil
import tomllib
from pathlib import Path

import pydantic

from ivy import constants
from ivy.files import remove_stale, sync, write_atomically
from ivy.types.config import ForeignConfig, ForeignGeneralConfig
from ivy.version import Version

BUNDLED = Path("/usr/lib/ivy")
"""The release as the package brought it."""

_CURRENT, _PREVIOUS = "current", "previous"
_UNFINISHED = ".new"
_CONFIG, _CONFIG_BEFORE = "config.json", "config.previous.json"


class Releases:
    """All releases of a node. What cannot be done raises `OSError`; link and file are then as they were."""

    def __init__(self, root: Path = Path(constants.IVY_ROOT_DIR)) -> None:
        self.root = root

    def directory(self, version: Version) -> Path:
        """Where a version is, or would be."""
        return self.root / version.as_identifier()

    def unfinished(self, version: Version) -> Path:
        """Where a version is made, before it is renamed to its place."""
        return self.root / f".{version}{_UNFINISHED}"

    def installed(self) -> list[Version]:
        """The versions that are there, the oldest first."""
        return sorted(filter(None, (_as_version(path) for path in self.root.iterdir() if not path.is_symlink())))

    def current(self) -> Version | None:
        """The version that runs; None where there is none, or where `current` leads nowhere."""
        return self._linked(_CURRENT)

    def previous(self) -> Version | None:
        """The version that ran before the one on probation; None where there is none."""
        return self._linked(_PREVIOUS)

    def activate(self, version: Version) -> None:
        """Let a version be the current one. Nothing is restarted by that."""
        self._link(_CURRENT, version)

    def begin_probation(self) -> None:
        """Keep what runs now: the release by a link, its config by a copy."""
        version = self.current()
        if version is None:
            raise OSError(f"{self.root / _CURRENT} names no release")
        self.write_private(self._kept_config(version), self.read_config(version))
        self._link(_PREVIOUS, version)

    def go_back(self) -> None:
        """Let release and config be those from before the probation. May be done twice."""
        version, kept = self.previous(), self.kept_config()
        if version is None:
            return
        if kept is not None:
            self.write_config(version, kept.read_text(encoding="utf-8", errors="replace"))
        self.activate(version)

    def config_before(self) -> ForeignConfig | None:
        """The config from before the probation; None where there is none that can be read."""
        kept = self.kept_config()
        try:
            return ForeignConfig.load_from_string(kept.read_text(encoding="utf-8")) if kept else None
        except (OSError, ValueError):
            return None

    def end_probation(self) -> None:
        """Keep what was before no longer."""
        # The link first: without the copy, going back to it would be no way back. Of all releases, because after a
        # power cut in between nothing tells whose it is.
        (self.root / _PREVIOUS).unlink(missing_ok=True)
        sync(self.root)
        for version in self.installed():
            self._kept_config(version).unlink(missing_ok=True)

    def config_file(self, version: Version) -> Path:
        """The config of a version."""
        return self.directory(version) / "config" / _CONFIG

    def read_config(self, version: Version) -> str:
        """The text of a version's config; empty where there is none: it must be replaceable."""
        try:
            return self.config_file(version).read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""

    def active_text(self) -> str:
        """The text of the config of the current release; empty where there is none."""
        version = self.current()
        return self.read_config(version) if version else ""

    def active_config(self) -> ForeignConfig:
        """The config of the current release; only its version, where it cannot be read: it must be replaceable.

        The version is what the link says, whatever somebody wrote into the file.

        Raises:
            OSError: There is no current release, or its config cannot be read at all.
        """
        version = self.current()
        if version is None:
            raise OSError(f"{self.root} has no current release; install the package again")
        try:
            config = ForeignConfig.load_from_string(self.read_config(version))
        except ValueError:
            return ForeignConfig(general=ForeignGeneralConfig(config_revision=-1, software_version=version))
        general = config.general.model_copy(update={"software_version": version})
        return config.model_copy(update={"general": general})

    def write_config(self, version: Version, text: str) -> None:
        """Replace a version's config."""
        self.write_private(self.config_file(version), text)

    def write_private(self, path: Path, text: str) -> None:
        """Write a file that holds secrets: root's, and only the services may read it."""
        write_atomically(path, text, group_of=self.root / "data")

    def put_in_place(self, version: Version) -> None:
        """Rename an unfinished release to its place; one that is there is exchanged in the same instant."""
        unfinished, release = self.unfinished(version), self.directory(version)
        os.sync()
        if release.exists():
            self._replace(unfinished, release)
        else:
            unfinished.rename(release)
            sync(self.root)

    def _replace(self, unfinished: Path, release: Path) -> None:
        try:
            _exchange(unfinished, release)
            sync(self.root)
            shutil.rmtree(unfinished)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            # What an overlay has from its lower layer can be removed, but not renamed: there is no release for a
            # moment. A power cut then costs nothing where the overlay is in memory, for that is gone with it.
            shutil.rmtree(release)
            unfinished.rename(release)
            sync(self.root)

    def remove(self, version: Version) -> None:
        """Remove a release. It is gone at once, or it is there as a whole, but for an overlay: see `_replace`."""
        release, doomed = self.directory(version), self.unfinished(version)
        try:
            release.rename(doomed)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            doomed = release
        sync(self.root)
        shutil.rmtree(doomed)

    def remove_unfinished(self) -> None:
        """Remove what was begun and never ended."""
        for path in self.root.glob(f".*{_UNFINISHED}"):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        for version in self.installed():
            remove_stale(self.config_file(version))
            remove_stale(self._kept_config(version))

    def kept_config(self) -> Path | None:
        """The file with the config from before the probation; None where there is none."""
        version = self.previous()
        kept = self._kept_config(version) if version else None
        return kept if kept is not None and kept.is_file() else None

    def _kept_config(self, version: Version) -> Path:
        return self.config_file(version).with_name(_CONFIG_BEFORE)

    def _linked(self, name: str) -> Version | None:
        release = (self.root / name).resolve()
        return _as_version(release) if release.is_dir() else None

    def _link(self, name: str, version: Version) -> None:
        beside = self.root / f".{name}{_UNFINISHED}"
        beside.unlink(missing_ok=True)
        beside.symlink_to(version.as_identifier())
        beside.rename(self.root / name)
        sync(self.root)


def version_of(release: Path) -> Version:
    """What a release says that it is.

    Raises:
        OSError, ValueError, LookupError: It says nothing that can be understood.
    """
    project = tomllib.loads((release / "pyproject.toml").read_text(encoding="utf-8"))
    return Version(project["project"]["version"])


def digest(config: str) -> str:
    """What a config file is known by."""
    return hashlib.sha256(config.encode(errors="replace")).hexdigest()


def _as_version(release: Path) -> Version | None:
    try:
        return Version(release.name)
    except pydantic.ValidationError:
        return None


def _exchange(one: Path, other: Path) -> None:
    """Exchange two directories atomically, which the standard library has no function for."""
    relative_to_cwd, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(relative_to_cwd, bytes(one), relative_to_cwd, bytes(other), exchange) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(one), None, str(other))
