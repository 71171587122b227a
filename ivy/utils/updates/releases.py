"""Releases on disk: where they are, and which one runs.

A release is a directory `<root>/<version>/` with all that runs. The symbolic link `<root>/current` names the one
that does; `<root>/previous` the one before it, while that one is on probation. All change by single renames, so
whoever looks, and whatever boots after a power cut, finds the old or the new one, whole. Not for making releases.
"""

import contextlib
import ctypes
import errno
import json
import os
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pydantic

from ivy import constants
from ivy.files import remove_stale, sync, write_atomically
from ivy.types import secrets, secrets_file
from ivy.types.config import ACCEPTED, Config, ConfigError, ForeignConfig, ForeignGeneralConfig, split_text
from ivy.utils.updates import manifest
from ivy.utils.updates.admin_files import AdminFiles
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
        self.files = AdminFiles(root)

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

    def has_lost_link(self) -> bool:
        """Whether there is no current one although there was, because the link or its release was lost."""
        return (
            self.current() is None
            and self.root.is_dir()
            and ((self.root / _CURRENT).is_symlink() or bool(self.installed()))
        )

    def activate(self, version: Version) -> None:
        """Let a version be the current one. Nothing is restarted by that."""
        self._link(_CURRENT, version)

    def begin_probation(self, files: Path | None = None) -> None:
        """Keep what runs now: the release by a link, its config by a copy.

        Args:
            files: A directory with files of /etc/ivy that are to be on trial, too; they are used by `files.use`.
        """
        version = self.current()
        if version is None:
            raise OSError(f"{self.root / _CURRENT} names no release")
        self.write(self._kept_config(version), self.active_text())
        self._link(_PREVIOUS, version)
        self.files.begin(files)

    def go_back(self) -> None:
        """Let release, config and files be those from before the probation. May be done twice."""
        version, kept = self.previous(), self.kept_config()
        if version is None:
            return
        if kept is not None:
            self.write_config(version, self.read(kept))
        self.files.put_back()
        self.activate(version)

    def config_before(self) -> ForeignConfig | None:
        """The config from before the probation; None where there is none that can be read."""
        kept = self.kept_config()
        try:
            return ForeignConfig.load_from_string(self.read(kept)) if kept else None
        except (OSError, ValueError):
            return None

    def end_probation(self) -> None:
        """Keep what was before no longer."""
        self.files.end()
        # The link first: without the copy, going back to it would be no way back. Of all releases, because after a
        # power cut in between nothing tells whose it is.
        (self.root / _PREVIOUS).unlink(missing_ok=True)
        sync(self.root)
        for version in self.installed():
            self._kept_config(version).unlink(missing_ok=True)
        self.keep_accepted(is_new=True)
        for version in self.installed():
            secrets_file.tidy(self.config_file(version), [self.accepted_file(version)])

    def config_file(self, version: Version) -> Path:
        """The config of a version."""
        return self.directory(version) / "config" / _CONFIG

    def accepted_file(self, version: Version) -> Path:
        """The copy of the config of a version that was accepted last, see `ivy.types.accepted_config`."""
        return self.config_file(version).with_name(ACCEPTED)

    def keep_accepted(self, *, is_new: bool = False) -> None:
        """Let the active config be the one that was accepted last, if it can be used, and nothing is on trial.

        Also where an admin has changed the file by hand: it is what this node works with. A release that keeps its
        secrets inside knows of no such copy.

        Args:
            is_new: Whether it was just accepted. Else a copy stays, where the schema is another version's.
        """
        version = self.current()
        if version is None or self.previous() is not None or not secrets_file.is_known_to(self.directory(version)):
            return
        active, accepted = self.config_file(version), self.accepted_file(version)
        is_judged_here = version == constants.VERSION or is_new or not accepted.exists()
        if why_unusable(active, version) is not None or not is_judged_here:
            return
        text = secrets_file.read(active)
        if any(value != secrets.HIDDEN for _, value in secrets.values(split_text(text)[1])):
            return  # as just written by somebody; the next pass takes them out
        with contextlib.suppress(OSError):
            if secrets_file.read(accepted) == text:
                return
        with contextlib.suppress(OSError):  # a full disk must not keep a pass from more than this
            write_atomically(accepted, text, group_of=self.root / "data")

    def config_in_use(self, version: Version) -> Path:
        """The file with the config that the services of a version run with, as these decide it themselves."""
        active, accepted = self.config_file(version), self.accepted_file(version)
        is_replaced = why_unusable(active, version) is not None and why_unusable(accepted, version) is None
        return accepted if is_replaced else active

    def read_config(self, version: Version) -> str:
        """The text of a version's config; empty where there is none that can be read: it must be replaceable.

        With its secrets, for who may read them; they are hidden from all others.
        """
        return self._readable(self.config_file(version))

    def _readable(self, path: Path) -> str:
        try:
            return self.read(path)
        except OSError:
            return ""

    def read(self, path: Path) -> str:
        """The same of any file with a config."""
        return secrets_file.whole(secrets_file.read(path), secrets_file.load(path.with_name(secrets_file.NAME)))

    def known(self) -> Any:
        """What this node has, for whom says `***`: the active config, or its secrets where that is no JSON."""
        text = self.active_text()
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            version = self.current()
            sets = secrets_file.load(self.config_file(version).with_name(secrets_file.NAME)) if version else {}
            return next(iter(sets.values()), {})

    def fill(self, config: ForeignConfig) -> tuple[ForeignConfig, list[str]]:
        """A config that says `***` with what this node has; and the paths of that.

        Raises:
            UnknownSecretError: It has nothing there.
        """
        content, filled = secrets.fill(config.model_dump(mode="json"), self.known(), Config)
        return ForeignConfig.model_validate(content), filled

    def active_text(self) -> str:
        """The text of the config that the current release runs with; empty where there is none that can be read."""
        version = self.current()
        return "" if version is None else self._readable(self.config_in_use(version))

    def shown_text(self) -> str:
        """The same without its secrets, for the eye."""
        return split_text(self.active_text())[0]

    def active_config(self) -> ForeignConfig:
        """The config that the current release runs with; only its version, where none can be read: it must be
        replaceable.

        The version is what the link says, whatever somebody wrote into the file.

        Raises:
            OSError: There is no current release.
        """
        version = self.current()
        if version is None:
            raise OSError(f"{self.root} has no current release; install the package again")
        try:
            config = ForeignConfig.load_from_string(self.active_text())
        except ValueError:
            return ForeignConfig(general=ForeignGeneralConfig(config_revision=-1, software_version=version))
        return config.for_version(version)

    def active_content(self) -> dict[str, Any]:
        """What is in the active config, to be changed; that of the template where it cannot be read."""
        try:
            return ForeignConfig.load_from_string(self.active_text()).model_dump(mode="json")
        except ConfigError:
            return Config.load_template().model_dump(mode="json")

    def write_config(self, version: Version, text: str) -> None:
        """Replace a version's config, and its secrets in the same instant."""
        self.write(self.config_file(version), text)

    def write(self, path: Path, text: str) -> None:
        """The same for any of the configs of a release, wherever that is.

        It is root's, and for the services to read. Where a release knows no other place, its secrets are inside.
        """
        if not secrets_file.is_known_to(path.parent.parent):
            return write_atomically(path, text, group_of=self.root / "data")
        running = self.current()
        kept = [path.with_name(name) for name in (_CONFIG, _CONFIG_BEFORE, ACCEPTED)]
        # The services compare the config on trial with what may run instead.
        kept += [self.config_file(running), self.accepted_file(running)] if running else []
        shown, taken = split_text(text)
        secrets_file.write(path, shown, taken, kept, self.root / "data")

    def hide_secrets(self) -> None:
        """Take out of all configs what was written into them: by version 1.0, or by an admin with an editor.

        Not while one is on trial, which may be judged by what knows nothing of it. A release that needs its secrets
        inside keeps them, and gets its config again before it runs: until then nobody else may read that.
        """
        if self.previous() is not None:
            return
        for version in self.installed():
            path = self.config_file(version)
            if not path.is_file():
                continue
            try:
                text = secrets_file.read(path)
            except OSError:  # a sector that cannot be read: of the current release, that is seen to elsewhere
                continue
            if split_text(text)[0] != text and secrets_file.is_known_to(self.directory(version)):
                if split_text(text)[0] != secrets_file.as_text(json.loads(text)):
                    self.write_config(version, self.read(path))
            elif version != self.current() and not secrets_file.is_known_to(self.directory(version)):
                path.chmod(0o600)
            secrets_file.tidy(path, [self.accepted_file(version)])

    def put_in_place(self, version: Version) -> None:
        """Rename an unfinished release to its place; one that is there is exchanged in the same instant."""
        unfinished, release = self.unfinished(version), self.directory(version)
        manifest.write(unfinished)
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
            config = self.config_file(version)
            beside = (config.with_name(name) for name in (secrets_file.NAME, secrets_file.COPY))
            for path in (config, self._kept_config(version), self.accepted_file(version), *beside):
                remove_stale(path)

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


def why_unusable(config: Path, version: Version) -> str | None:
    """Why a version cannot use the config in a file, by line or field; None if it can.

    Of another version's schema only little is known here.
    """
    schema = Config if version == constants.VERSION else ForeignConfig
    try:
        schema.load_from_string(config.read_text(encoding=secrets_file.ENCODING))
    except FileNotFoundError:
        return "does not exist"
    except (OSError, UnicodeDecodeError) as error:
        return f"cannot be read: {error}"
    except ConfigError as error:
        return str(error)
    return None


def version_of(release: Path) -> Version:
    """What a release says that it is.

    Raises:
        OSError, ValueError, LookupError: It says nothing that can be understood.
    """
    project = tomllib.loads((release / "pyproject.toml").read_text(encoding="utf-8"))
    return Version(project["project"]["version"])


def bundled_version() -> Version | None:
    """What the package brought; None where there is none, or what it says cannot be read."""
    try:
        return version_of(BUNDLED)
    except (OSError, ValueError, LookupError):
        return None


def digest(config: str) -> str:
    """What a config file is known by, however many empty lines it ends with."""
    return secrets_file.digest(config.rstrip("\n") + "\n")


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
