"""Takes an offer to its decision. What each step does stands in a module of its own.

Killed at any instant, the next pass goes on: what was begun is done again, and `trials` sees to what was activated.
"""

import errno
import re
import shutil
import time
from pathlib import Path

from ivy import constants
from ivy.files import sync
from ivy.types.config import Config, ForeignConfig, as_text
from ivy.types.updates import Offer
from ivy.utils.host import commands
from ivy.utils.logger import Logger
from ivy.utils.updates import bundled, decisions, environment, history, policy, releases, retry, sandbox
from ivy.utils.updates.bundled import ReleaseError
from ivy.utils.updates.errors import NetworkTrouble, Rejected
from ivy.utils.updates.releases import BUNDLED, Releases
from ivy.utils.updates.source import Source
from ivy.utils.updates.trial import Trials
from ivy.version import Version

_FREE_BYTES = 100_000_000
_SECONDS_FOR_THE_ADMIN = 120.0
_MARK = "version_change"
_HAS_MARK = re.compile(rf"^\s*(@pytest\.|pytestmark *=.*\bpytest\.)mark\.{_MARK}\b", re.MULTILINE)
_LONGEST_OUTPUT = 1500
# A release was tested by its maintainer on another Debian: its own `filterwarnings = error` would reject it for
# what this Python, pytest and libraries warn of. A summary would push failures out of what the operator reads.
_WARNINGS_ARE_NO_FAILURES = ("-W", "default", "--disable-warnings", "-o", "strict_config=false")


class Updater:
    """The update capabilities of ivy. To be used by whoever holds the automation lock.

    A step raises `Rejected` or `NetworkTrouble`, see `updates.errors`, or `OSError` where the disk takes nothing.
    """

    make_logger: type[Logger] = Logger
    """What is told of the progress."""

    def __init__(self, config: Config) -> None:
        """Touches nothing. The section `updater` of the active config says where versions come from."""
        self._settings = config.updater or policy.UPDATER_DEFAULTS
        self._updater = config.updater
        self._logger = self.make_logger(config, "updater")
        self._releases = Releases()
        self._source = Source(self._settings, self._releases.root)
        self.trials = Trials(  # of what was activated; to be resumed before anything else is decided
            self._releases, self._settings, self._logger
        )

    def perform_update(self, foreign_config: ForeignConfig) -> None:
        """Take a config that the backend offered to its decision, see `perform`."""
        self.perform(Offer.of_backend(foreign_config))

    def perform(self, offer: Offer) -> str | None:
        """Take an offer to its decision, which is reported.

        Any error is trouble of the node. The next pass goes on.

        Returns: Why it was rejected; None if it was accepted.
        """
        self._logger.info(f"Deciding about config revision {offer.revision} for version {offer.version}")
        try:
            is_version_change = policy.decide(
                self._releases.active_config(), offer, self._updater, constants.VERSION
            )
            try:
                if is_version_change:
                    self._prepare(offer)
            finally:
                self._releases.remove_unfinished()  # before the decision is written: it may be what fills the disk
        except (Rejected, ReleaseError) as error:
            return self._reject(offer, str(error))
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            return self._reject(offer, f"no space left for a version: {error}")
        trial = self.trials.begin(offer)
        self._logger.info("Activating it; what ran before is kept until all is well")
        if is_version_change:
            self.update_cli_pointer(offer.version)
        else:
            self._releases.write_config(offer.version, as_text(offer.config))
        return self.trials.watch(trial)

    def _reject(self, offer: Offer, reason: str) -> str:
        decisions.record(offer, reason)
        decisions.report(self._logger)
        return reason

    def _prepare(self, offer: Offer) -> None:
        """Have the offered version in its place, with the offered config, tested; nothing of it runs yet."""
        version = offer.version
        self._check_space()
        release = self._releases.directory(version)
        is_made = self._settings.source_conflict_strategy == "overwrite" or not environment.fits(release)
        if is_made:
            self._await_release(offer)
        else:
            self._logger.info(f"Version {version} is on disk already")
        self._write_config(offer, self._releases.unfinished(version) if is_made else release)
        self.run_pytests(version)
        if is_made:
            self._releases.put_in_place(version)
        environment.check(release)

    def _await_release(self, offer: Offer) -> None:
        """Make the release, however long the network is away; unless a newer offer comes meanwhile.

        The admin learns of it soon: nothing else is decided while a command waits, and who gave it may be gone.
        """
        deadline = time.monotonic() + _SECONDS_FOR_THE_ADMIN

        def give_up(trouble: NetworkTrouble) -> None:
            if offer.source == "backend":
                _check_newest(offer)
            elif time.monotonic() > deadline:
                raise Rejected(str(trouble))

        what = f"the source of version {offer.version}"
        retry.fetch(what, lambda: self._make_release(offer.version), give_up, self._logger)

    def _make_release(self, version: Version) -> None:
        self._releases.remove_unfinished()
        try:
            self.download_source_code(version)
            self.install_dependencies(version)
        except Rejected:
            self._forget_sources()  # it may have been anything, of any size
            raise
        unfinished = self._releases.unfinished(version)
        sandbox.take_back(unfinished)
        self._check_version(version, unfinished)

    def download_source_code(self, version: Version) -> None:
        """Put the source code of a version, signed by somebody who may, beside the releases.

        That of the package is on disk already.
        """
        unfinished = self._releases.unfinished(version)
        if _is_bundled(version):
            return bundled.copy_release(BUNDLED, unfinished)
        self._logger.info(f"Fetching version {version}")
        self._source.fetch(version)
        self._source.check_signature(version)
        self._source.unpack(version, unfinished)

    def install_dependencies(self, version: Version) -> None:
        """Make the virtual environment of an unfinished version, with what its lock file names."""
        unfinished = self._releases.unfinished(version)
        environment.make(unfinished)
        environment.install_dependencies(unfinished)
        environment.compile_code(unfinished)

    def run_pytests(self, version: Version) -> None:
        """Run the tests of a version that carry the mark `version_change`: with its environment, and no rights.

        Those of the unfinished one, if there is one.

        Raises:
            Rejected: A test failed, or there is none.
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
        try:
            said = sandbox.run(
                "test",
                [*pytest, *map(str, marked)],
                environment=["PYTHONDONTWRITEBYTECODE=1", "IVY_VERSION_CHANGE=1"],
                directory=release,
            )
        except commands.CommandError as error:
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
        if not superfluous or self._releases.current() is None:
            return
        for version in superfluous:
            self._logger.info(f"Removing version {version}, which is not needed any more")
            self._releases.remove(version)
        self._forget_sources()

    def _needed(self) -> set[Version]:
        last_good = history.load().last_good
        needed = (
            self._releases.current(),
            self._releases.previous(),
            releases.version_of(BUNDLED) if BUNDLED.is_dir() else None,
            last_good.general.software_version if last_good else None,
        )
        return {version for version in needed if version}

    def _forget_sources(self) -> None:
        try:
            self._source.forget_others(self._needed())
        except commands.CommandError as error:
            self._logger.warning("The fetched sources could not be tidied up", details=str(error))

    def _check_space(self) -> None:
        free = shutil.disk_usage(self._releases.root).free
        if free < _FREE_BYTES:
            raise Rejected(
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
        self._releases.write_private(config, as_text(offer.config))
        current = self._releases.current()
        settings = self._releases.config_file(current).with_name(".env") if current else None
        if settings is not None and settings.is_file() and not config.with_name(".env").exists():
            shutil.copy2(settings, config.with_name(".env"))
            sync(config.with_name(".env"))  # the release may be in its place already


def _check_newest(offer: Offer) -> None:
    newest = decisions.undecided()[-1:]
    if newest and newest[0].revision > offer.revision:
        raise Rejected(f"superseded by revision {newest[0].revision}, while its source could not be fetched")


def _is_bundled(version: Version) -> bool:
    return BUNDLED.is_dir() and releases.version_of(BUNDLED) == version


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
