"""Repairs what a card, a kernel or a power cut has damaged of the releases on disk. Needs no network.

A file that differs from its checksum comes from wherever the same one still is: the package, another release, or
what was fetched last. Where that is nowhere, the last good release becomes the current one, or else the package's.
Until then /usr/bin/ivy lets the package's code make the pass: this code. Environments are the work of `repair`.
"""

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from ivy import constants, files
from ivy.types.config import Config, as_text
from ivy.utils.host import package_manager, units
from ivy.utils.host.commands import CommandError
from ivy.utils.logger import Logger
from ivy.utils.updates import activation, bundled, environment, history, manifest, policy
from ivy.utils.updates.errors import Rejected, Trouble
from ivy.utils.updates.releases import BUNDLED, Releases, bundled_version
from ivy.utils.updates.source import Source
from ivy.version import Version

FLAG = os.path.join(constants.UPDATER_RUN_DIR, "damage-found")
"""There from when damage is found until the services run on what was repaired, whatever ends the pass in between.

units/ivy-repair makes it, too, when it starts a pass for damage, so that it does not end that pass by another one.
"""

_SHOWN = 5
_NO_HARM = "tests"


def repair(releases: Releases, config: Config, logger: Logger) -> bool:
    """Let the current release be one that is whole, and all others, too.

    Args:
        config: As much of the active config as this code can read.

    Returns: Whether the services were restarted.

    Raises:
        OSError, CommandError: It could not be done. The next pass goes on.
    """
    was_interrupted = os.path.lexists(FLAG)
    has_switched = releases.current() is None and _point_again(releases, logger)
    source = Source(config.updater or policy.UPDATER_DEFAULTS, releases.root)
    current = releases.current()
    for version in releases.installed():
        if version != current and (left := _restore(releases, version, source, logger)[1]):
            logger.warning(f"Version {version} cannot be repaired, and is of no use: {_listed(left)}")
            if version != releases.previous():
                releases.remove(version)
    found, left = _restore(releases, current, source, logger) if current else ([], [])
    if current and left and releases.previous() is None:  # else the trial ends by going back
        has_switched = _replace(releases, current, config, logger) or has_switched
    if has_switched:
        activation.switch(activation.backend_unit(releases.active_config()), is_undone=True)
    else:
        repaired = [name for name in found if name not in left]
        has_switched = was_interrupted or _matters(repaired)
        _restart(releases, repaired, was_interrupted=was_interrupted)
    if left and current and releases.current() != current:
        releases.remove(current)
    files.remove(FLAG)
    return has_switched


def _point_again(releases: Releases, logger: Logger) -> bool:
    """Let `current` lead somewhere again: to what ran, as far as that is known."""
    installed = releases.installed()
    if not installed:
        bundled.install_bundled(BUNDLED, releases)
    else:
        accepted = [offer.version for offer in history.load().decisions if offer.accepted]
        # A newer package would have replaced what was accepted before it.
        newest = max([*accepted[-1:], *filter(None, [bundled_version()])], default=None)
        likely = [releases.previous(), newest, *reversed(installed)]
        releases.activate(next(version for version in likely if version in installed))
    logger.error(f"It was lost which version runs: version {releases.current()} does")
    return True


def _restore(releases: Releases, version: Version, source: Source, logger: Logger) -> tuple[list[str], list[str]]:
    """Make a release whole again. Returns the files that were damaged, and those that still are."""
    release = releases.directory(version)
    found = manifest.damaged(release)
    if not found:
        _remember(release)
        return [], []
    logger.warning(f"Version {version} has damaged files: {_listed(found)}", details="\n".join(found))
    with contextlib.suppress(OSError):  # /run may be full
        os.makedirs(FLAG, exist_ok=True)
    if manifest.FILE in found and not _write_manifest(releases, version, source):
        return found, [manifest.FILE]
    for tree in _trees(releases, version, source):
        for name in _left(release):
            _copy(tree / name, release / name, (manifest.read(release) or {}).get(name, ""))
        if not _left(release):
            break
    left = _left(release)
    if left and not _matters(left):  # to do without them is better than to do without the release
        sums = manifest.read(release) or {}
        manifest.write_for(release, {name: expected for name, expected in sums.items() if name not in left})
        logger.error(f"Version {version} goes on without {_listed(left)}")
        left = []
    if not left:
        _make_bytecode(release)
        logger.info(f"Version {version} is whole again")
    return found, left


def _remember(release: Path) -> None:
    """Write the manifest of a release that has none: version 1.0 made it, or somebody has edited it."""
    is_known = (release / manifest.FILE).exists() or not (release / "ivy").is_dir()
    if not is_known and manifest.compile_code(release, force=True):
        manifest.write(release)


def _write_manifest(releases: Releases, version: Version, source: Source) -> bool:
    """Write a manifest that is damaged itself. Returns whether it is known what should be in it."""
    release = releases.directory(version)
    if bundled_version() == version and not package_manager.damaged_files():
        manifest.write_for(release, manifest.checksums(BUNDLED))
        return True
    with _unpacked(releases, version, source, is_signed=True) as tree:
        if tree is not None:
            manifest.write_for(release, manifest.checksums(tree))
            return True
    if not manifest.compile_code(release, force=True):
        return False
    manifest.write_for(release, manifest.checksums(release))
    return True


def _trees(releases: Releases, version: Version, source: Source) -> Iterator[Path]:
    """Where a file may be that is as it should be: the nearest first."""
    yield BUNDLED
    yield from (releases.directory(other) for other in releases.installed() if other != version)
    with _unpacked(releases, version, source) as tree:
        if tree is not None:
            yield tree


@contextlib.contextmanager
def _unpacked(
    releases: Releases, version: Version, source: Source, *, is_signed: bool = False
) -> Iterator[Path | None]:
    """The files of a version that was fetched last; None if it was another one, or is damaged, too."""
    directory = releases.unfinished(version)
    tree: Path | None = directory
    try:
        source.unpack_kept(version, directory, is_signed=is_signed)
    except (Rejected, Trouble, CommandError, OSError, ValueError):
        tree = None
    try:
        yield tree
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _left(release: Path) -> list[str]:
    return [name for name in manifest.damaged(release) if name != manifest.BYTECODE and not name.endswith(".pyc")]


def _copy(source: Path, target: Path, expected: str) -> None:
    if not manifest.has(source, expected):
        return
    for parent in reversed(target.parents):
        if not parent.is_dir():
            files.remove(str(parent))  # whatever has its name now
            parent.mkdir()
    if target.is_dir():
        files.remove(str(target))
    mode = 0o755 if source.stat().st_mode & stat.S_IXUSR else 0o644
    files.write_atomically(target, source.read_bytes(), mode=mode, follow=False)


def _make_bytecode(release: Path) -> None:
    """Make again what is damaged. Python itself looks at the first bytes only, and fails at those that follow."""
    found = manifest.damaged(release)
    for name in found:
        files.remove(str(release / name))
    manifest.compile_code(release, force=manifest.BYTECODE in found)
    manifest.write_bytecode(release)


def _replace(releases: Releases, damaged: Version, config: Config, logger: Logger) -> bool:
    """Let the last good release be the current one, or else the package's. Returns whether one of them is."""
    last_good = history.load().last_good
    good = last_good.general.software_version if last_good else None
    if last_good and good and good != damaged and _is_whole(releases.directory(good)):
        bundled.remember(releases.active_config())
        releases.write_config(good, as_text(last_good))
        activation.lead_to(releases, good)
    else:
        try:
            bundled.stand_in(releases, config, BUNDLED)
        except (bundled.ReleaseError, OSError, ValueError, LookupError) as error:
            logger.error(f"Version {damaged} is damaged beyond repair, and runs on as it is: {error}")
            return False
    logger.error(f"Version {damaged} is damaged beyond repair: version {releases.current()} runs")
    return True


def _is_whole(release: Path) -> bool:
    return release.is_dir() and not manifest.damaged(release) and environment.fits(release)


def _restart(releases: Releases, repaired: Sequence[str], *, was_interrupted: bool) -> None:
    """Let the services run on it, but for those that somebody has stopped."""
    backend = activation.backend_unit(releases.active_config())
    has_units = was_interrupted or any(name.startswith("units/") for name in repaired)
    if not has_units and not _matters(repaired):
        return
    if not has_units:
        activation.renew(backend)
    elif units.show(units.TARGET, "ActiveState").get("ActiveState") == "inactive":
        with contextlib.suppress(units.NoRoomError):  # whoever starts the services lets systemd look
            units.reload()
    else:
        activation.switch(backend, is_undone=True)


def _matters(names: Sequence[str]) -> bool:
    """Whether services may use one of these files."""
    needed = [name for name in names if name not in (manifest.FILE, manifest.BYTECODE)]
    return any(not name.startswith(f"{_NO_HARM}/") for name in needed)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
