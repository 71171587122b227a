"""Releases on disk: making one of what the package brought, and choosing which one runs.

A release is a directory `<root>/<version>/` with all that runs; the symbolic link `<root>/current` names the one
that does. Both change by a single rename, so whoever looks, and whatever boots after a power cut, finds the old or
the new one, whole. Not for fetching releases, nor for deciding about a config that somebody offers.
"""

import compileall
import ctypes
import json
import os
import py_compile
import shutil
import socket
import sys
import tomllib
from pathlib import Path
from typing import Optional

import pydantic

from ivy import constants
from ivy.files import sync
from ivy.types.config import Config, ConfigError, ForeignConfig
from ivy.version import Version

_CURRENT = "current"
_UNFINISHED = ".new"


class ReleaseError(RuntimeError):
    """A release that cannot be made; what ran before runs on."""


def install_golden(golden: Path = Path("/usr/lib/ivy"), root: Path = Path(constants.IVY_ROOT_DIR)) -> None:
    """Make a release of what the package brought, and let it be the current one unless a newer one is.

    It gets the config of the release that ran before, or a new one on a new node. Doing it again replaces the
    release and keeps its config.

    Args:
        golden: The release as the package brought it.
        root: Where the releases are.

    Raises:
        ReleaseError: The config of the current release is none for this version.
        OSError: A file cannot be read or written.
    """
    version = _version_of(golden)
    running = current_version(root)
    if running is not None and running > version:
        print(f"ivy {running} runs, which is newer than the {version} of this package, and goes on running.")
        return
    old_config, text = _choose_config(golden, version, root)
    _remove_unfinished(root)
    unfinished = root / f".{version}{_UNFINISHED}"
    _copy_release(golden, unfinished)
    unfinished.chmod(0o700)  # until the config has its owner
    _make_environment(unfinished)
    _write_config(unfinished / "config", text, old_config, group_of=root / "data")
    unfinished.chmod(0o755)
    os.sync()
    _put_in_place(unfinished, root / version.as_identifier())
    activate(version, root)


def activate(version: Version, root: Path = Path(constants.IVY_ROOT_DIR)) -> None:
    """Let a release be the current one. Nothing is restarted by that.

    Raises:
        OSError: The link cannot be replaced; it is as it was.
    """
    beside = root / f".{_CURRENT}{_UNFINISHED}"
    beside.unlink(missing_ok=True)
    beside.symlink_to(version.as_identifier())
    beside.rename(root / _CURRENT)
    sync(root)


def current_version(root: Path = Path(constants.IVY_ROOT_DIR)) -> Optional[Version]:
    """The version of the current release; None where there is none, or where `current` leads nowhere."""
    release = (root / _CURRENT).resolve()
    try:
        return Version(release.name) if release.is_dir() else None
    except pydantic.ValidationError:
        return None


def _version_of(golden: Path) -> Version:
    project = tomllib.loads((golden / "pyproject.toml").read_text(encoding="utf-8"))
    return Version(project["project"]["version"])


def _remove_unfinished(root: Path) -> None:
    for path in root.glob(f".*{_UNFINISHED}"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _copy_release(golden: Path, release: Path) -> None:
    """Copy all but what is the node's own. Bytecode is made here, because the services cannot write any."""
    own = shutil.ignore_patterns("__pycache__", "config.json", ".env", ".venv")
    shutil.copytree(golden, release, symlinks=True, ignore=own, dirs_exist_ok=True)
    # Said, because the default follows SOURCE_DATE_EPOCH. Whoever edits a release to find a fault sees the effect.
    by_time = py_compile.PycInvalidationMode.TIMESTAMP
    if not compileall.compile_dir(release / "ivy", quiet=1, invalidation_mode=by_time):
        raise ReleaseError(f"the code in {golden} does not compile")


def _make_environment(release: Path) -> None:
    """Make the release's virtual environment, on top of the distribution's libraries.

    As `python3 -m venv --system-site-packages --without-pip` does, but without the scripts that carry its path,
    because the release is renamed when it is done.
    """
    python = Path(sys.executable).resolve()
    minor = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = release / ".venv" / "lib" / minor / "site-packages"
    packages.mkdir(parents=True)
    (packages / "ivy.pth").write_text("../../../..\n", encoding="utf-8")
    commands = release / ".venv" / "bin"
    commands.mkdir()
    (commands / "python3").symlink_to(python)
    (commands / "python").symlink_to("python3")
    settings = f"home = {python.parent}\ninclude-system-site-packages = true\n"
    (release / ".venv" / "pyvenv.cfg").write_text(settings, encoding="utf-8")


def _choose_config(golden: Path, version: Version, root: Path) -> tuple[Optional[Path], str]:
    """Choose the config of a release: that of the release that runs, its own from before, or a new one.

    Returns: The directory that it comes from, if any, and its text.
    """
    configs = [(root / name / "config").resolve() for name in (_CURRENT, version.as_identifier())]
    old = next((config for config in configs if (config / "config.json").is_file()), None)
    if old is None:
        template = (golden / "config" / "config.template.json").read_text(encoding="utf-8")
        own_name = {"system_identifier": socket.gethostname()}
        return old, _with(ForeignConfig.load_from_string(template), {**own_name, "software_version": str(version)})
    if old.parent.name == version.as_identifier():
        return old, (old / "config.json").read_text(encoding="utf-8")  # its own: as it is, right or wrong
    return old, _carried_over(old / "config.json", version)


def _write_config(directory: Path, text: str, old: Optional[Path], *, group_of: Path) -> None:
    """Write a release's config, readable for the services, and copy the environment that belongs to it."""
    config = directory / "config.json"
    config.write_text(text, encoding="utf-8")
    config.chmod(0o640)
    os.chown(config, -1, group_of.stat().st_gid)
    if old is not None and (old / ".env").exists():
        shutil.copy2(old / ".env", directory / ".env")


def _carried_over(path: Path, version: Version) -> str:
    try:
        old = ForeignConfig.load_from_string(path.read_text(encoding="utf-8"))
        text = _with(old, {"software_version": str(version)})
        Config.load_from_string(text)
    except (ConfigError, UnicodeDecodeError) as error:
        raise ReleaseError(
            f"ivy {version} cannot use the config of the release that runs, which goes on running.\n"
            f"{path}: {error}\nCorrect it, then run: dpkg --configure ivy"
        ) from error
    return text


def _with(config: ForeignConfig, general: dict[str, str]) -> str:
    content = config.model_dump(mode="json")
    content["general"] |= general
    return json.dumps(content, indent=4, ensure_ascii=False) + "\n"


def _put_in_place(unfinished: Path, release: Path) -> None:
    """Rename a release to its place; one that is there is exchanged in the same instant, and then removed."""
    if release.exists():
        _exchange(unfinished, release)
        sync(release.parent)
        shutil.rmtree(unfinished)
    else:
        unfinished.rename(release)
        sync(release.parent)


def _exchange(one: Path, other: Path) -> None:
    """Exchange two directories atomically, which the standard library has no function for."""
    relative_to_cwd, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(relative_to_cwd, bytes(one), relative_to_cwd, bytes(other), exchange) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(one), None, str(other))
