"""Makes a release of what the package brought. Not for releases that come over the air."""

import compileall
import py_compile
import shutil
import socket
from pathlib import Path

from ivy.types.config import Config, ConfigError, ForeignConfig, as_text
from ivy.utils.updates import environment, history
from ivy.utils.updates.releases import BUNDLED, Releases, version_of
from ivy.version import Version


class ReleaseError(RuntimeError):
    """A release that cannot be made; what ran before runs on."""


def install_bundled(bundled: Path = BUNDLED, releases: Releases | None = None) -> None:
    """Make a release of what the package brought, and let it be the current one unless a newer one is.

    It gets the config of the release that ran before, or a new one on a new node. Doing it again replaces the
    release and keeps its config.

    Raises:
        ReleaseError: The config of the current release is none for this version.
        OSError: A file cannot be read or written.
    """
    releases = releases or Releases()
    version = version_of(bundled)
    running = releases.current()
    if running is not None and running > version:
        print(f"ivy {running} runs, which is newer than the {version} of this package, and goes on running.")
        return
    old_config, text = _choose_config(bundled, version, releases)
    _put_in_place(bundled, releases, text, old_config)
    if running is not None and running != version and releases.config_file(running).is_file():
        _remember(releases.config_before() or releases.active_config())
    releases.activate(version)


def stand_in(releases: Releases, config: Config, bundled: Path = BUNDLED) -> None:
    """Let what the package brought be the current release with a config, for one that cannot run.

    Raises:
        ReleaseError, OSError: It cannot be done.
    """
    version, running = version_of(bundled), releases.current()
    text = _with(config.to_foreign_config(), {"software_version": str(version)})
    _put_in_place(bundled, releases, text, releases.config_file(running).parent if running else None)
    _remember(releases.active_config())
    releases.activate(version)


def _put_in_place(bundled: Path, releases: Releases, text: str, old_config: Path | None) -> None:
    version = version_of(bundled)
    releases.remove_unfinished()
    unfinished = releases.unfinished(version)
    copy_release(bundled, unfinished)
    unfinished.chmod(0o700)  # until the config has its owner
    environment.make(unfinished)
    _write_config(releases, version, text, old_config)
    unfinished.chmod(0o755)
    releases.put_in_place(version)


def _remember(config: ForeignConfig) -> None:
    """Let `ivy rollback` lead back to what ran before the package, and the updater keep its release."""
    with history.update() as past:
        past.last_good = config


def copy_release(bundled: Path, release: Path) -> None:
    """Copy all but what is the node's own. Bytecode is made here, because the services cannot write any.

    Raises:
        ReleaseError: It holds code that does not compile.
        OSError: A file cannot be read or written.
    """
    own = shutil.ignore_patterns("__pycache__", "config.json", ".env", ".venv")
    shutil.copytree(bundled, release, symlinks=True, ignore=own, dirs_exist_ok=True)
    # Said, because the default follows SOURCE_DATE_EPOCH. Whoever edits a release to find a fault sees the effect.
    by_time = py_compile.PycInvalidationMode.TIMESTAMP
    if not compileall.compile_dir(release / "ivy", quiet=1, invalidation_mode=by_time):
        raise ReleaseError(f"the code in {bundled} does not compile")


def _choose_config(bundled: Path, version: Version, releases: Releases) -> tuple[Path | None, str]:
    """Choose the config of a release: that of the release that runs, its own from before, or a new one.

    Returns: The directory that it comes from, if any, and its text.
    """
    known = filter(None, (releases.current(), version))
    configs = [releases.config_file(release).parent for release in known]
    if (before := releases.kept_config()) is not None and releases.current() != version:
        return before.parent, _carried_over(before, version)  # what is on trial has not proved itself yet
    old = next((config for config in configs if (config / "config.json").is_file()), None)
    if old is None:
        template = (bundled / "config" / "config.template.json").read_text(encoding="utf-8")
        own_name = {"system_identifier": socket.gethostname()}
        return old, _with(ForeignConfig.load_from_string(template), {**own_name, "software_version": str(version)})
    if old.parent.name == version.as_identifier():
        return old, (old / "config.json").read_text(encoding="utf-8")  # its own: as it is, right or wrong
    return old, _carried_over(old / "config.json", version)


def _write_config(releases: Releases, version: Version, text: str, old: Path | None) -> None:
    """Write a release's config, readable for the services, and copy what belongs to it."""
    directory = releases.unfinished(version) / "config"
    releases.write_private(directory / "config.json", text)
    if old is not None and (old / ".env").exists():
        shutil.copy2(old / ".env", directory / ".env")
    kept = releases.kept_config()
    if kept is not None and kept.parent == releases.config_file(version).parent:  # it is replaced while on trial
        releases.write_private(directory / kept.name, kept.read_text(encoding="utf-8", errors="replace"))


def _carried_over(path: Path, version: Version) -> str:
    try:
        old = ForeignConfig.load_from_string(path.read_text(encoding="utf-8"))
        text = _with(old, {"software_version": str(version)})
        Config.load_from_string(text)
    except (ConfigError, UnicodeDecodeError) as error:
        raise ReleaseError(
            f"ivy {version} cannot use the config of the release that runs, which goes on running.\n"
            f"{path}: {error}\nWrite a config for {version}, then run: ivy config apply FILE"
        ) from error
    return text


def _with(config: ForeignConfig, general: dict[str, str]) -> str:
    content = config.model_dump(mode="json")
    content["general"] |= general
    return as_text(ForeignConfig.model_validate(content))
