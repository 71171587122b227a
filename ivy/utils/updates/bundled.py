"""Makes a release of what the package brought, and begins its trial; a pass of the updater goes on with that.

Not for releases that come over the air.
"""

import contextlib
import shutil
import socket
import sys
import time
from pathlib import Path

from ivy.files import write_atomically
from ivy.types import secrets_file
from ivy.types.config import ACCEPTED, Config, ConfigError, ForeignConfig, as_text
from ivy.types.updates import Offer
from ivy.utils.updates import activation, decisions, environment, history, manifest
from ivy.utils.updates.errors import Rejected, Trouble
from ivy.utils.updates.releases import BUNDLED, Releases, version_of
from ivy.utils.updates.source import FROM_PACKAGE, ORIGIN
from ivy.utils.updates.trial import Trials
from ivy.version import Version


class ReleaseError(RuntimeError):
    """A release that cannot be made; what ran before runs on."""


def install_bundled(
    bundled: Path = BUNDLED,
    releases: Releases | None = None,
    trials: Trials | None = None,
    *,
    is_older_wanted: bool = False,
) -> None:
    """Make a release of what the package brought, and let it be the current one unless a newer one is.

    It gets the config of the release that ran before, or a new one on a new node. Doing it again replaces the
    release and keeps its config.

    Args:
        trials: Puts it on trial, where another one runs: the next pass of the updater watches it, and undoes it if
            it is not well. None, where there is no systemd, lets it just be the current one.
        is_older_wanted: Whether it is to replace a newer one, too.

    Raises:
        ReleaseError: The config of the current release does not fit this version; or what it depends on cannot be
            installed from the package.
        OSError: A file cannot be read or written.
    """
    releases = releases or Releases()
    version = version_of(bundled)
    running = releases.current()
    if running is not None and running > version and not is_older_wanted:
        print(f"ivy {running} runs, which is newer than the {version} of this package, and goes on running.")
        return
    if trials is not None and running != version:
        trials.resume(f"a Debian package has brought version {version}")
        running = releases.current()
    try:
        old_config, text = _choose_config(bundled, version, releases)
        _put_in_place(bundled, releases, text, old_config, is_last_resort=running is None)
    except ReleaseError as error:
        if running not in (None, version):
            _reject(version, releases, str(error))
        raise
    is_carried_over = running is not None and old_config == releases.config_file(running).parent
    if trials is not None and is_carried_over and running != version:
        print(f"ivy {version} is on trial. What becomes of it: ivy releases --wait", flush=True)
        trials.begin(_offer(ForeignConfig.load_from_string(text)))
        activation.lead_to(releases, version)
        return
    if running is not None and running != version and releases.config_file(running).is_file():
        remember(releases.config_before() or releases.active_config())
    activation.lead_to(releases, version)
    releases.hide_secrets()
    releases.keep_accepted(is_new=True)


def _offer(config: ForeignConfig) -> Offer:
    return Offer(identifier=f"admin-{time.time_ns()}", config=config, source="admin", is_installed=True)


def _reject(version: Version, releases: Releases, reason: str) -> None:
    """For `ivy releases`; whoever installs tells everybody."""
    offer = _offer(ForeignConfig(general=releases.active_config().for_version(version).general))
    decisions.record(offer.model_copy(update={"reported": True}), reason)


def stand_in(releases: Releases, config: Config, bundled: Path = BUNDLED) -> None:
    """Let what the package brought be the current release with a config, for one that cannot run.

    Raises:
        ReleaseError, OSError: It cannot be done.
    """
    version, running = version_of(bundled), releases.current()
    text = as_text(config.to_foreign_config().for_version(version))
    old_config = releases.config_file(running).parent if running else None
    _put_in_place(bundled, releases, text, old_config, is_last_resort=True)
    remember(releases.active_config())
    activation.lead_to(releases, version)


def _put_in_place(
    bundled: Path, releases: Releases, text: str, old_config: Path | None, *, is_last_resort: bool = False
) -> None:
    version = version_of(bundled)
    releases.remove_unfinished()
    unfinished = releases.unfinished(version)
    copy_release(bundled, unfinished)
    environment.make(unfinished)
    try:
        environment.install_bundled_dependencies(unfinished)
    except (Rejected, Trouble) as error:
        if not is_last_resort:
            raise ReleaseError(str(error)) from None
        # Services that can do without their libraries are better than none.
        print(f"ivy {version} goes on without what it depends on: {error}", file=sys.stderr)
    unfinished.chmod(0o700)  # until the config has its owner
    _write_config(releases, version, text, old_config)
    unfinished.chmod(0o755)
    releases.put_in_place(version)


def new_config(release: Path, version: Version) -> str:
    """The text of the config that a new node begins with: without a backend, and with its host's name.

    Raises:
        OSError: The release has no template.
    """
    template = (release / "config" / "config.template.json").read_text(encoding="utf-8")
    content = ForeignConfig.load_from_string(template).for_version(version).model_dump(mode="json")
    content["general"]["system_identifier"] = socket.gethostname()
    return secrets_file.as_text(content)


def remember(config: ForeignConfig) -> None:
    """Let `ivy rollback` lead back to what ran before, and the updater keep its release."""
    with history.update() as past:
        past.last_good = config


def copy_release(bundled: Path, release: Path) -> None:
    """Copy all but what is the node's own. Bytecode is made here, because the services cannot write any.

    Raises:
        ReleaseError: It holds code that does not compile.
        OSError: A file cannot be read or written.
    """
    own = shutil.ignore_patterns("__pycache__", "config.json", ACCEPTED, "secrets*.json", ".env", ".venv")
    shutil.copytree(bundled, release, symlinks=True, ignore=own, dirs_exist_ok=True)
    (release / ORIGIN).write_text(FROM_PACKAGE, encoding="utf-8")
    if not manifest.compile_code(release):
        raise ReleaseError(f"the code in {bundled} does not compile")


def _choose_config(bundled: Path, version: Version, releases: Releases) -> tuple[Path | None, str]:
    """Choose the config of a release: that of the release that runs, its own from before, or a new one.

    Returns: The directory that it comes from, if any, and its text.
    """
    known = filter(None, (releases.current(), version))
    configs = [releases.config_in_use(release) for release in known]
    if (before := releases.kept_config()) is not None and releases.current() != version:
        # What is on trial has not proved itself yet.
        return before.parent, _carried_over(releases.read(before), before, version)
    in_use = next((config for config in configs if config.is_file()), None)
    if in_use is None:
        return None, new_config(bundled, version)
    old = in_use.parent
    if old.parent.name == version.as_identifier():
        return old, releases.read(in_use)  # its own: as it is, right or wrong
    return old, _carried_over(releases.read(in_use), in_use, version)


def _write_config(releases: Releases, version: Version, text: str, old: Path | None) -> None:
    """Write a release's config, readable for the services, and copy what belongs to it."""
    directory = releases.unfinished(version) / "config"
    releases.write(directory / "config.json", text)
    active = releases.config_file(version)
    if old == active.parent and releases.config_in_use(version) != active:
        _keep_mistake(releases, version)
    if old is not None and (old / ".env").exists():
        shutil.copy2(old / ".env", directory / ".env")
    kept = releases.kept_config()
    if kept is not None and kept.parent == releases.config_file(version).parent:  # it is replaced while on trial
        releases.write(directory / kept.name, releases.read(kept))


def _keep_mistake(releases: Releases, version: Version) -> None:
    """A file that cannot be used is the admin's to correct, also after the release was installed again."""
    directory = releases.unfinished(version) / "config"
    with contextlib.suppress(OSError):
        mistake = secrets_file.read(releases.config_file(version))
        (directory / "config.json").rename(directory / ACCEPTED)
        write_atomically(directory / "config.json", mistake, group_of=releases.root / "data")


def _carried_over(old_text: str, path: Path, version: Version) -> str:
    try:
        text = as_text(ForeignConfig.load_from_string(old_text).for_version(version))
        Config.load_from_string(text)
    except ConfigError as error:
        raise ReleaseError(
            f"ivy {version} cannot use the config of the release that runs, which goes on running.\n"
            f"{path}: {error}\nWrite a config for {version}, then run: ivy config apply FILE"
        ) from error
    return text
