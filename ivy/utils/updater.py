"""Takes an offer to its decision. What each step does stands in a module of its own.

Killed at any instant, the next pass goes on: what was begun is done again, and `trials` sees to what was activated.
"""

import contextlib
import errno
import re
import shutil
import sqlite3
import time
from pathlib import Path

from ivy import constants, overview
from ivy.files import sync
from ivy.types.config import ACCEPTED, Config, ConfigError, ForeignConfig, as_text, split_text
from ivy.types.secrets import UnknownSecretError
from ivy.types.updates import Offer
from ivy.utils.host import commands, package_manager, rights, waiting
from ivy.utils.logger import Logger
from ivy.utils.updates import (
    activation,
    bundled,
    changes,
    decisions,
    environment,
    history,
    manifest,
    needs,
    package_states,
    policy,
    releases,
    retry,
    sandbox,
)
from ivy.utils.updates.bundled import ReleaseError
from ivy.utils.updates.errors import (
    NetworkTrouble,
    NodeTrouble,
    OldRevision,
    Postponed,
    Refused,
    Rejected,
    Trouble,
)
from ivy.utils.updates.releases import BUNDLED, Releases
from ivy.utils.updates.source import Source
from ivy.utils.updates.trial import Trials
from ivy.version import Version

_FREE_BYTES = 100_000_000
_SECONDS_FOR_THE_ADMIN = 120.0
_SECONDS_OF_REFUSALS = 1800.0
_SECONDS_OF_A_BACKLOG = 60
_MARK = "version_change"
_HAS_MARK = re.compile(rf"^\s*(@pytest\.|pytestmark *=.*\bpytest\.)mark\.{_MARK}\b", re.MULTILINE)
_HAS_NO_PYTEST = re.compile(r"\S+: No module named pytest")
_LONGEST_OUTPUT = 1500
_SHOWN_CONFIG = ".config-for-tests.new"  # goes with all that is unfinished
# A release was tested by its maintainer on another Debian: its own `filterwarnings = error` would reject it for
# what this Python, pytest and libraries warn of. A summary would push failures out of what the operator reads.
_WARNINGS_ARE_NO_FAILURES = ("-W", "default", "--disable-warnings", "-o", "strict_config=false")


class Updater:
    """The update capabilities of ivy. To be used by whoever holds the automation lock.

    A step raises `Rejected` or `Trouble`, see `updates.errors`, or `OSError` where the disk takes nothing.
    """

    make_logger: type[Logger] = Logger
    """What is told of the progress."""

    def __init__(self, config: Config) -> None:
        """Touches nothing. The section `updater` of the active config says where versions come from."""
        self._config = config
        self._settings = config.updater or policy.UPDATER_DEFAULTS
        self._updater = config.updater
        self._logger = self.make_logger(config, "updater")
        self._releases = Releases()
        self._source = Source(self._settings, self._releases.root)
        self._progress: package_states.Progress | None = None
        self.trials = Trials(  # of what was activated; to be resumed before anything else is decided
            self._releases, self._settings, self._logger
        )

    def perform_update(self, foreign_config: ForeignConfig) -> None:
        """Take a config that the backend offered to its decision, see `perform`."""
        self.perform(Offer.of_backend(foreign_config))

    def perform(
        self, offer: Offer, *, is_urgent: bool = False, is_sure: bool = False, files: Path | None = None
    ) -> str | None:
        """Take an offer to its decision, which is reported.

        Any error is trouble of the node. The next pass goes on.

        Args:
            is_urgent: Whether to restart what is not to be disturbed now, too.
            is_sure: Whether what waits under another name of the node may be sent under the new one.
            files: A directory with files of /etc/ivy that belong to the config, and go back with it.

        Returns: Why it was rejected; None if it was accepted, or makes way for another one.
        """
        self._logger.info(f"Deciding about {offer.what}")
        self._progress = package_states.Progress(offer, self._logger)
        try:
            active = self._releases.active_config()
            if offer.package is not None:
                if offer.version == active.general.software_version:
                    decisions.record(offer, None)
                    decisions.report(self._logger)
                    return None
                offer = self._with_active_config(offer)
            policy.check_revision(offer, history.load().revision_to_exceed(active.general.config_revision))
            offer = self._filled(offer, active)
            brought = releases.bundled_version()
            is_version_change = policy.decide(active, offer, self._updater, constants.VERSION, brought)
            if not is_sure:
                policy.check_name(active, offer, self._backlog)
            if is_version_change:
                self._prepare(offer)
            if not is_urgent:
                self._wait(active, offer)
        except (Rejected, ReleaseError) as error:
            return self._reject(offer, str(error), is_old=isinstance(error, OldRevision))
        except Postponed:
            self._logger.info("A config was offered meanwhile, which is decided about first")
            return None
        self._reach("UPDATING")
        trial = self.trials.begin(offer, files)
        self._logger.info("Activating it; what ran before is kept until all is well")
        if is_version_change:
            activation.stop_lacking(self._releases.directory(offer.version))
            self.update_cli_pointer(offer.version)
        else:
            self._releases.write_config(offer.version, as_text(offer.config))
        return self.trials.watch(trial)

    def _with_active_config(self, offer: Offer) -> Offer:
        """What a package offers."""
        try:
            config = ForeignConfig.load_from_string(self._releases.active_text())
        except ConfigError as error:
            raise Rejected(f"the active config, with which it would run, cannot be read: {error}") from None
        return offer.model_copy(update={"config": config.for_version(offer.version)})

    def _reach(self, step: package_states.Step) -> None:
        if self._progress is not None:
            self._progress.reach(step)

    def _wait(self, active: ForeignConfig, offer: Offer) -> None:
        """Until no procedure that starts again is in the middle of something; unless a newer offer comes."""
        services, backend = activation.services(), activation.backend_unit(active)
        again = changes.services_to_restart(active, offer.config, services, backend)

        def say(words: str) -> None:
            if offer.source == "backend":  # the operator may wonder
                self._logger.warning(f"{offer.what[0].upper()}{offer.what[1:]} is {words}")
            else:
                self._logger.info(f"W{words[1:]}; --now does not wait")

        def look() -> None:
            if offer.source == "backend":
                self._check_newest(offer, "it waited for a procedure")

        late = waiting.wait({*services, *waiting.everybody()} if again is None else again, say, look)
        if late:
            self._logger.warning(f"Not waiting any longer for {', '.join(late)}: it has been two hours")

    def _filled(self, offer: Offer, active: ForeignConfig) -> Offer:
        """With the node's own secrets, where an offer says `***`."""
        if offer.source == "rollback":
            return offer
        try:
            config, paths = self._releases.fill(offer.config)
        except UnknownSecretError as error:
            raise Rejected(str(error)) from None
        filled = offer.model_copy(update={"config": config})
        policy.check_ways(active, filled, paths)
        return filled

    def _backlog(self) -> int:
        """How many messages wait that the backend is not going to send before it ends; 0 where nobody can tell."""
        try:
            queue = overview.queue()
        except (OSError, sqlite3.Error):
            return 0
        backend, is_sending = self._config.backend, False
        with contextlib.suppress(commands.CommandError):
            is_sending = backend is not None and overview.link(backend, overview.services()).connected
        # What it has on its way is a second old or two; it sends that, before it ends.
        is_short = is_sending and (queue.oldest_seconds or 0) < _SECONDS_OF_A_BACKLOG
        return 0 if is_short else queue.length

    def _reject(self, offer: Offer, reason: str, *, is_old: bool = False) -> str:
        decisions.record(offer, reason, is_old=is_old)
        decisions.report(self._logger)
        return reason

    def _prepare(self, offer: Offer) -> None:
        """Have the offered version in its place, however long network or room are away; unless a newer offer comes.

        A "no" of the server counts if it is still the answer half an hour after the first one. The admin learns of
        all that soon: nothing else is decided while a command waits, and who gave it may be gone.
        """
        deadline = time.monotonic() + _SECONDS_FOR_THE_ADMIN
        first_refusal: float | None = None

        def make() -> None:
            nonlocal first_refusal
            try:
                self._make(offer)
            except Refused as refusal:
                first_refusal = first_refusal or time.monotonic()
                if offer.source != "backend" or time.monotonic() - first_refusal >= _SECONDS_OF_REFUSALS:
                    raise
                raise NetworkTrouble(str(refusal)) from None
            except NodeTrouble as trouble:
                if offer.source != "backend":
                    raise Rejected(str(trouble)) from None
                raise

        def give_up(trouble: Trouble) -> None:
            if offer.source == "backend":
                self._check_newest(offer, "its source could not be fetched")
            elif time.monotonic() > deadline:
                raise Rejected(str(trouble))

        retry.fetch(f"the source of version {offer.version}", make, give_up, self._logger)

    def _make(self, offer: Offer) -> None:
        """Have the offered version in its place, with the offered config, tested; nothing of it runs yet."""
        version = offer.version
        self._reach("DOWNLOADING")
        try:
            self._check_space()
            release = self._releases.directory(version)
            is_made = bool(
                self._settings.source_conflict_strategy == "overwrite"
                or not environment.fits(release)
                or manifest.damaged(release)
                # The admin's way back is always open.
                or not (offer.source == "rollback" or self._source.vouches_for(version, release))
            )
            if is_made:
                self._make_release(version)
            else:
                self._logger.info(f"Version {version} is on disk already")
                if offer.source != "rollback":
                    needs.check(release)
            self._reach("DOWNLOADED")
            self._reach("VERIFIED")
            self._write_config(offer, self._releases.unfinished(version) if is_made else release)
            self.run_pytests(version)
            if is_made:
                self._releases.put_in_place(version)
            environment.check(release)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise NodeTrouble(f"no space left for a version: {error}") from None
        finally:
            self._releases.remove_unfinished()  # before anything is written or waited for: it may fill the disk

    def _check_newest(self, offer: Offer, why_late: str) -> None:
        newest = []
        with contextlib.suppress(rights.NoAnswer):
            newest = decisions.undecided(self._releases.active_config().general.config_revision)[-1:]
        if not newest or newest[0].identifier == offer.identifier:
            return
        if offer.package is not None and newest[0].package is None:
            raise Postponed
        by = f"version {newest[0].version}" if newest[0].package else f"revision {newest[0].revision}"
        raise Rejected(f"superseded by {by}, while {why_late}")

    def _make_release(self, version: Version) -> None:
        self._releases.remove_unfinished()
        self.download_source_code(version)
        self.install_dependencies(version)
        unfinished = self._releases.unfinished(version)
        sandbox.take_back(unfinished)
        self._check_version(version, unfinished)

    def download_source_code(self, version: Version) -> None:
        """Put the source code of a version, signed by somebody who may, beside the releases.

        That of the package is on disk already.
        """
        unfinished = self._releases.unfinished(version)
        if releases.bundled_version() == version and not package_manager.damaged_files():
            return bundled.copy_release(BUNDLED, unfinished)
        self._logger.info(f"Fetching version {version}")
        self._source.fetch(version)
        self._reach("DOWNLOADED")
        self._source.check_signature(version)
        self._reach("VERIFIED")
        self._source.unpack(version, unfinished)

    def install_dependencies(self, version: Version) -> None:
        """Make the virtual environment of an unfinished version, with what its lock file names.

        What it needs of Debian must be there already.
        """
        unfinished = self._releases.unfinished(version)
        needs.check(unfinished)
        environment.make(unfinished)
        environment.install_dependencies(unfinished)
        environment.compile_code(unfinished)

    def run_pytests(self, version: Version) -> None:
        """Run the tests of a version that carry the mark `version_change`: with its environment, and no rights.

        Those of the unfinished one, if there is one.

        Raises:
            Rejected: A test failed, or there is none.
            NodeTrouble: This node cannot test.
        """
        release = self._releases.unfinished(version)
        release = release if release.is_dir() else self._releases.directory(version)
        marked = [path for path in sorted(release.glob("tests/**/test_*.py")) if _HAS_MARK.search(_text(path))]
        if not marked:
            raise Rejected(f"version {version} has no tests with the mark {_MARK}")
        self._logger.info(f"Testing version {version}")
        pytest = [environment.python_of(release), "-m", "pytest", "-q", "-m", _MARK, "-p", "no:cacheprovider"]
        # The operator reads the last lines only.
        pytest += ["--tb=short", "--no-header", *_WARNINGS_ARE_NO_FAILURES]
        config = release / "config" / "config.json"
        shown = self._releases.root / _SHOWN_CONFIG
        is_given = config.is_file()
        if is_given:
            shown.write_text(split_text(self._releases.read(config))[0], encoding="utf-8")
            shown.chmod(0o644)
        try:
            said = sandbox.run(
                "test",
                [*pytest, *map(str, marked)],
                environment=["PYTHONDONTWRITEBYTECODE=1", "IVY_VERSION_CHANGE=1"],
                directory=release,
                shown=[str(release), f"{shown}:{config}"] if is_given else [str(release)],
                is_foreign=True,
            )
        except commands.CommandError as error:
            if _HAS_NO_PYTEST.fullmatch(error.output):
                raise NodeTrouble(error.output) from None
            said = error.output[-_LONGEST_OUTPUT:]
            raise Rejected(f"the tests of version {version} failed:\n{said}") from None
        if " passed" not in said:  # systemd takes tests that somebody stopped for a success
            raise Rejected(f"the tests of version {version} were stopped:\n{said[-_LONGEST_OUTPUT:]}")

    def update_cli_pointer(self, version: Version) -> None:
        """Let a version be the one that /usr/bin/ivy and all services run, once they are started again."""
        self._releases.activate(version)

    def remove_old_venvs(self) -> None:
        """Remove releases, with their virtual environments, that nobody will go back to.

        The current and the previous one stay, the package's, and the last that was good.
        """
        kept = self._needed()
        superfluous = [version for version in self._releases.installed() if version not in kept]
        is_unknown = BUNDLED.is_dir() and releases.bundled_version() is None  # damaged
        if not superfluous or is_unknown or self._releases.current() is None:
            return
        for version in superfluous:
            self._logger.info(f"Removing version {version}, which is not needed any more")
            self._releases.remove(version)

    def _needed(self) -> set[Version]:
        last_good = history.load().last_good
        needed = (
            self._releases.current(),
            self._releases.previous(),
            releases.bundled_version(),
            last_good.general.software_version if last_good else None,
        )
        return {version for version in needed if version}

    def _check_space(self) -> None:
        free = shutil.disk_usage(self._releases.root).free
        if free < _FREE_BYTES:
            raise NodeTrouble(
                f"no space left for a version: {free // 10**6} MB are free, {_FREE_BYTES // 10**6} are needed"
            )

    def _check_version(self, version: Version, release: Path) -> None:
        """What the code says that it is must be what was offered."""
        found = re.search(r'^VERSION\b[^"\n]*"([^"\n]*)"', _text(release / "ivy" / "constants.py"), re.MULTILINE)
        said = found[1] if found else "nothing"
        try:
            packaged = str(releases.version_of(release))
        except (OSError, ValueError, LookupError) as error:
            raise Rejected(f"its pyproject.toml names no version: {error}") from None
        if {said, packaged} != {version.as_identifier()}:
            raise Rejected(f"the tag says {version}, ivy/constants.py {said}, and pyproject.toml {packaged}")

    def _write_config(self, offer: Offer, release: Path) -> None:
        config = release / "config" / "config.json"
        config.with_name(ACCEPTED).unlink(missing_ok=True)  # on trial, what is wrong with its own must show
        self._releases.write(config, as_text(offer.config))
        current = self._releases.current()
        settings = self._releases.config_file(current).with_name(".env") if current else None
        if settings is not None and settings.is_file() and not config.with_name(".env").exists():
            shutil.copy2(settings, config.with_name(".env"))
            sync(config.with_name(".env"))  # the release may be in its place already


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
