"""Takes an offer from its decision to its verdict. What each step does stands in a module of its own.

Killed at any instant, the next pass goes on: what was begun is done again, what is on trial is watched again, and
what failed is undone. The release that is known to work does all of that, not the one on trial.
"""

import errno
import re
import shutil
from pathlib import Path
from typing import Optional

from ivy import constants
from ivy.types.config import Config, ForeignConfig, as_text
from ivy.types.updates import Trial
from ivy.utils import (
    commands,
    confined,
    environment,
    golden,
    history,
    notify,
    ownership,
    probation,
    releases,
    switching,
    units,
    update_plan,
    verdicts,
)
from ivy.utils.golden import ReleaseError
from ivy.utils.link_report import LinkReport
from ivy.utils.logger import Logger
from ivy.utils.releases import GOLDEN, Releases
from ivy.utils.source import Source
from ivy.utils.state_interface import StateInterface
from ivy.utils.update_errors import NetworkTrouble, Rejected
from ivy.utils.update_plan import Offer, Plan
from ivy.version import Version

_FREE_BYTES = 100_000_000
_SECONDS_TO_TEST = 300
_SECONDS_TO_START = 60
_FIRST_WAIT, _LONGEST_WAIT = 5.0, 600.0
_MARK = "version_change"
_HAS_MARK = re.compile(rf"^\s*(@pytest\.|pytestmark *=.*\bpytest\.)mark\.{_MARK}\b", re.MULTILINE)
_LONGEST_OUTPUT = 1500


class Updater:
    """The update capabilities of ivy. To be used by whoever holds the automation lock."""

    def __init__(self, config: Config, logger: Optional[Logger] = None) -> None:
        """Initialise an updater. Touches nothing.

        Args:
            config: The active config: its section `updater` says where versions come from.
            logger: What to tell of the progress to; default: journal and operator, as the config says.
        """
        self._settings = config.updater or update_plan.UPDATER_DEFAULTS
        self._updater = config.updater
        self._logger = logger or Logger(config, "updater")
        self._releases = Releases()
        self._source = Source(self._settings, self._releases.root)

    def perform_update(self, foreign_config: ForeignConfig) -> None:
        """Take a config that the backend offered to its verdict, which is reported; see `perform`.

        Args:
            foreign_config: The offered config.

        Raises:
            OSError, CommandError, sqlite3.Error: The node is in trouble. The next pass goes on.
        """
        self.perform(update_plan.of_backend(foreign_config))

    def perform(self, offer: Offer) -> Optional[str]:
        """Take an offer to its verdict, which is reported.

        Returns: Why it was rejected; None if it was accepted.

        Raises:
            As `perform_update`.
        """
        self._logger.info(f"Deciding about config revision {offer.revision} for version {offer.version}")
        try:
            plan = update_plan.decide(self._current_config(), offer, self._updater, constants.VERSION)
            if plan.is_version_change:
                self._prepare(offer)
        except (Rejected, ReleaseError) as error:
            return self._conclude(offer, str(error))
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            return self._conclude(offer, f"no space left for a version: {error}")
        finally:
            self._releases.remove_unfinished()
        return self._try_out(plan)

    # The steps of a change of version. Each may be done again.

    def _prepare(self, offer: Offer) -> None:
        """Have the offered version in its place, with the offered config, tested; nothing of it runs yet."""
        version = offer.version
        self._check_space()
        if not self._releases.directory(version).is_dir() or self._settings.source_conflict_strategy == "overwrite":
            self._await_release(offer)
            self._write_config(offer, self._releases.unfinished(version))
            self.run_pytests(version)
            self._releases.put_in_place(version)
        else:
            self._logger.info(f"Version {version} is on disk already")
            self._write_config(offer, self._releases.directory(version))
            self.run_pytests(version)

    def _await_release(self, offer: Offer) -> None:
        """Make the release, however long the network is away; unless a newer offer comes meanwhile."""
        wait, logger = _FIRST_WAIT, self._logger
        while True:
            try:
                return self._make_release(offer.version)
            except NetworkTrouble as trouble:
                logger.warning(f"The source cannot be fetched; trying again in {wait:.0f} s", details=str(trouble))
            logger = self._logger.without_messages()  # once is enough for the operator
            notify.status(f"waiting for the source of version {offer.version}")
            notify.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT)
            self._check_newest(offer)

    def _check_newest(self, offer: Offer) -> None:
        newest, _ = update_plan.choose(StateInterface.load().pending_configs, offer.revision)
        if offer.source == "backend" and newest is not None:
            raise Rejected(f"superseded by revision {newest.revision}, while its source could not be fetched")

    def _make_release(self, version: Version) -> None:
        self._releases.remove_unfinished()
        self.download_source_code(version)
        self.install_dependencies(version)
        unfinished = self._releases.unfinished(version)
        ownership.take_back(unfinished)
        self._check_version(version, unfinished)

    def download_source_code(self, version: Version) -> None:
        """Put the source code of a version, signed by somebody who may, beside the releases.

        That of the package is on disk already.

        Args:
            version: Which.

        Raises:
            Rejected: It does not exist, is not signed, or holds what a release cannot have.
            NetworkTrouble: It cannot be fetched now.
            OSError: It cannot be written.
        """
        unfinished = self._releases.unfinished(version)
        if _is_golden(version):
            return golden.copy_release(GOLDEN, unfinished)
        self._logger.info(f"Fetching version {version}")
        self._source.fetch(version)
        self._source.check_signature(version)
        self._source.unpack(version, unfinished)

    def install_dependencies(self, version: Version) -> None:
        """Make the virtual environment of an unfinished version, with what its lock file names.

        Args:
            version: Which.

        Raises:
            Rejected: Something cannot be installed.
            NetworkTrouble: Something cannot be fetched now.
            OSError: It cannot be written.
        """
        unfinished = self._releases.unfinished(version)
        environment.make(unfinished)
        ownership.give_to_user(unfinished)
        environment.install_dependencies(unfinished)
        environment.compile_code(unfinished)

    def run_pytests(self, version: Version) -> None:
        """Run the tests of a version that carry the mark `version_change`: with its environment, and no rights.

        Args:
            version: Which; the unfinished one, if there is one.

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
        pytest += ["--tb=short", "--no-header"]  # the operator reads the last lines only
        try:
            confined.run(
                "test",
                [*pytest, *map(str, marked)],
                timeout=_SECONDS_TO_TEST,
                groups=[constants.NAME],
                environment=["PYTHONDONTWRITEBYTECODE=1", "IVY_VERSION_CHANGE=1"],
                directory=release,
            )
        except commands.CommandError as error:
            said = error.said[-_LONGEST_OUTPUT:]
            raise Rejected(f"the tests of version {version} failed:\n{said}") from None

    def update_cli_pointer(self, version: Version) -> None:
        """Let a version be the one that /usr/bin/ivy and all services run, once they are started anew.

        Args:
            version: Which.

        Raises:
            OSError: The link could not be replaced.
        """
        self._releases.activate(version)

    def repair(self) -> None:
        """Make the current release's environment anew if Python was upgraded. Until then, the package's serves.

        Raises:
            OSError, CommandError: It could not be done.
        """
        version = self._releases.current()
        if version is None or environment.fits(self._releases.directory(version)):
            return
        self._logger.warning(f"The environment of version {version} is none for this Python: making it anew")
        release = self._releases.directory(version)
        try:
            environment.make_anew(release)
        except (Rejected, NetworkTrouble) as error:
            self._logger.error(f"Version {version} cannot run with this Python", details=str(error))
            return
        switching.switch(self._backend())

    def remove_old_venvs(self) -> None:
        """Remove releases, with their virtual environments, that nobody will go back to.

        The current and the previous one stay, the package's, and the last that was good.
        """
        last_good = history.load().last_good
        kept = {
            self._releases.current(),
            self._releases.previous(),
            releases.version_of(GOLDEN) if GOLDEN.is_dir() else None,
            last_good.general.software_version if last_good else None,
        }
        superfluous = [version for version in self._releases.installed() if version not in kept]
        if not superfluous or self._releases.current() is None:
            return
        for version in superfluous:
            self._logger.info(f"Removing version {version}, which is not needed any more")
            self._releases.remove(version)
        try:
            self._source.forget_others([version for version in kept if version])
        except commands.CommandError as error:
            self._logger.warning("The fetched sources could not be tidied up", details=str(error))

    # The trial

    def _try_out(self, plan: Plan) -> Optional[str]:
        """Activate what was offered, watch it, and keep or undo it."""
        offer, text = plan.offer, as_text(plan.offer.config)
        report = LinkReport.load()
        trial = Trial(
            identifier=offer.identifier,
            offer=offer.config,
            source=offer.source,
            digest=releases.digest(text),
            link_was_down=report is not None and not report.connected and self._backend() is not None,
        )
        self._releases.begin_probation()
        with history.update() as past:
            past.trial = trial
        if plan.is_version_change:
            self.update_cli_pointer(offer.version)
        else:
            self._releases.write_config(offer.version, text)
        self._logger.info("Activating it; what ran before is kept until all is well")
        return self._watch(trial)

    def resume(self) -> None:
        """Go on with a trial that was interrupted.

        Raises:
            As `perform_update`.
        """
        trial = history.load().trial
        if trial is None:
            if self._releases.previous() is not None:
                self._put_back("What was on trial is not known any more")
                self._releases.end_probation()
            return
        offer = Offer(trial.offer, trial.source, trial.identifier)
        if history.load().find(trial.identifier) is not None:
            self._end_trial(offer)
        elif trial.failure is not None:
            self._undo(trial, trial.failure)
        elif self._is_on_trial(trial):
            self._logger.warning("The trial was interrupted, it begins anew")
            self._watch(trial)
        elif self._releases.previous() is None:
            self._conclude(offer, "the updater itself failed during the trial, so it was undone")
        elif self._releases.previous() == self._releases.current():
            self._forget_trial()  # nothing was activated: the offer is still pending
        else:
            self._conclude(offer, "another release was installed meanwhile")

    def abandon(self, reason: str) -> None:
        """Undo what is on trial, if anything is.

        Raises:
            As `perform_update`.
        """
        trial = history.load().trial
        if trial is not None and trial.failure is None and self._is_on_trial(trial):
            self._undo(trial, reason)
        else:
            self.resume()

    def _watch(self, trial: Trial) -> Optional[str]:
        """Let the services be those on trial, and see how they are."""
        notify.status("watching what was activated")
        services = switching.switch(self._backend())
        offer = Offer(trial.offer, trial.source, trial.identifier)
        terms = probation.Terms(
            services=services,
            backend=self._backend(),
            seconds=self._settings.seconds_of_probation,
            most_seconds=self._settings.max_seconds_of_probation,
            link_was_down=trial.link_was_down,
        )
        failure = self._updater_failure() or probation.Watch(terms, self._logger.info).run()
        if failure is not None:
            return self._undo(trial, failure)
        return self._conclude(offer, None)

    def _updater_failure(self) -> Optional[str]:
        """Whether the next update could still be done."""
        version = self._releases.current()
        if version is None:
            return "the current release is gone"
        check = [environment.python_of(self._releases.directory(version)), "-P", "-m", "ivy", "check-updater"]
        try:
            commands.run(check, timeout=_SECONDS_TO_START)
        except commands.CommandError as error:
            return f"its updater cannot start: {error}"
        return None

    def _undo(self, trial: Trial, failure: str) -> str:
        with history.update() as past:
            past.trial = trial.model_copy(update={"failure": failure})
        self._put_back(failure)
        self._conclude(Offer(trial.offer, trial.source, trial.identifier), failure)
        return failure

    def _put_back(self, reason: str) -> None:
        self._logger.warning(f"Going back to what ran before: {reason.splitlines()[0]}")
        self._releases.go_back()
        switching.switch(self._backend())

    def _conclude(self, offer: Offer, failure: Optional[str]) -> Optional[str]:
        """Say what became of an offer, and put away what was needed until then."""
        if failure is None:
            self._remember_good()
        verdicts.record(offer, failure)
        self._end_trial(offer)
        return failure

    def _remember_good(self) -> None:
        before = self._releases.config_before()
        with history.update() as past:
            past.last_good = before or past.last_good

    def _end_trial(self, offer: Offer) -> None:
        self._releases.end_probation()
        self._forget_trial()
        verdicts.report()
        decision = history.load().find(offer.identifier)
        if decision is not None and decision.accepted:
            self._logger.info(f"Accepted config revision {offer.revision} for version {offer.version}")
        elif decision is not None:
            text = f"Rejected config revision {offer.revision} for version {offer.version}"
            self._logger.without_messages().error(text, details=decision.reason)

    def _forget_trial(self) -> None:
        self._releases.end_probation()
        with history.update() as past:
            past.trial = None

    # What the steps need to know

    def _is_on_trial(self, trial: Trial) -> bool:
        version = self._releases.current()
        if version is None or self._releases.previous() is None:
            return False
        is_its_version = version == trial.offer.general.software_version
        return is_its_version and releases.digest(self._releases.read_config(version)) == trial.digest

    def _current_config(self) -> ForeignConfig:
        version = self._releases.current()
        if version is None:
            raise OSError(f"{self._releases.root} has no current release; install the package again")
        return ForeignConfig.load_from_string(self._releases.read_config(version))

    def _backend(self) -> Optional[str]:
        """The unit of the backend that the active config names."""
        section = (self._current_config().model_extra or {}).get("backend")
        provider = section.get("provider") if isinstance(section, dict) else None
        return units.name_of(provider) if isinstance(provider, str) else None

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


def _is_golden(version: Version) -> bool:
    return GOLDEN.is_dir() and releases.version_of(GOLDEN) == version


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
