"""The trial of an offer: from just before its activation until the decision is carried out. Prepares nothing.

Killed at any instant, the next pass goes on: what is on trial is watched again, and what failed is undone. The
release that is known to work does all of that, not the one on trial.
"""

from typing import Any

from ivy.types.config import UpdaterConfig, as_text
from ivy.types.link_report import LinkReport
from ivy.types.updates import Offer
from ivy.utils import notify
from ivy.utils.host import commands
from ivy.utils.logger import Logger
from ivy.utils.updates import activation, decisions, environment, history, probation, releases
from ivy.utils.updates.releases import Releases

_SECONDS_TO_START = 60
_SECONDS_TO_RESTART = 10
_MOST_INTERRUPTIONS = 3


class Trials:
    """All that happens on trial. To be used by whoever holds the automation lock.

    Any error is trouble of the node, after which `resume` goes on.
    """

    def __init__(self, releases: Releases, settings: UpdaterConfig, logger: Logger) -> None:
        self._releases = releases
        self._settings = settings
        self._logger = logger

    def begin(self, offer: Offer) -> Offer:
        """Keep what runs now, and remember what is about to be activated, which is returned."""
        report = LinkReport.load()
        trial = offer.model_copy(
            update={
                "digest": releases.digest(as_text(offer.config)),
                "link_was_down": report is not None and not report.connected and self._backend() is not None,
                "seconds_of_probation": self._settings.seconds_of_probation,
                "max_seconds_of_probation": self._settings.max_seconds_of_probation,
            }
        )
        self._releases.begin_probation()
        return self._remember(trial)

    def watch(self, trial: Offer) -> str | None:
        """Let the services be those on trial, see how they are, and keep or undo what was activated.

        Returns: Why it was undone; None if it was kept.
        """
        notify.status("watching what was activated")
        services = activation.switch(self._backend())
        watch = probation.Watch(
            services=services,
            backend=self._backend(),
            seconds=trial.seconds_of_probation,
            # Otherwise nothing could be accepted any more, not even what corrects the two.
            most_seconds=max(trial.max_seconds_of_probation, 2 * trial.seconds_of_probation + _SECONDS_TO_RESTART),
            # A node whose power fails every night must not wait for ever, again each day.
            link_was_down=trial.link_was_down and trial.interruptions < _MOST_INTERRUPTIONS,
            say=self._logger.info,
        )
        failure = self._updater_failure() or watch.run()
        return self._undo(trial, failure) if failure is not None else self._conclude(trial, None)

    def resume(self, reason_to_undo: str | None = None) -> None:
        """Go on with a trial that was interrupted, if there is one.

        Args:
            reason_to_undo: Why what is still on trial is undone instead of watched; None watches it.
        """
        past = history.load()
        trial = past.trial
        if trial is None:
            if self._releases.previous() is not None:
                self._put_back("What was on trial is not known any more")
                self._releases.end_probation()
        elif past.find(trial.identifier) is not None:
            self._forget()
            decisions.report(self._logger)
        elif trial.failure is not None:
            self._undo(trial, trial.failure)
        elif self._is_on_trial(trial) and reason_to_undo is not None:
            self._undo(trial, reason_to_undo)
        elif self._is_on_trial(trial):
            self._logger.warning("The trial was interrupted, it begins again")
            self.watch(self._remember(trial, interruptions=trial.interruptions + 1))
        elif self._releases.previous() is None:
            self._conclude(trial, "the updater itself failed during the trial, so it was undone")
        elif self._releases.previous() == self._releases.current():
            self._forget()  # nothing was activated: the offer is still pending
        else:
            self._conclude(trial, "another release was installed meanwhile")

    def _updater_failure(self) -> str | None:
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

    def _undo(self, trial: Offer, failure: str) -> str | None:
        self._remember(trial, failure=failure)
        self._put_back(failure)
        return self._conclude(trial, failure)

    def _put_back(self, reason: str) -> None:
        self._logger.warning(f"Going back to what ran before: {reason.splitlines()[0]}")
        self._releases.go_back()
        activation.switch(self._backend())

    def _conclude(self, trial: Offer, failure: str | None) -> str | None:
        decisions.record(trial, failure, self._releases.config_before())
        self._forget()
        decisions.report(self._logger)
        return failure

    def _remember(self, trial: Offer, **changed: Any) -> Offer:
        with history.update() as past:
            past.trial = trial.model_copy(update=changed)
        return past.trial

    def _forget(self) -> None:
        self._releases.end_probation()
        with history.update() as past:
            past.trial = None

    def _is_on_trial(self, trial: Offer) -> bool:
        version = self._releases.current()
        if version is None or self._releases.previous() is None:
            return False
        is_its_version = version == trial.version
        return is_its_version and releases.digest(self._releases.read_config(version)) == trial.digest

    def _backend(self) -> str | None:
        return activation.backend_unit(self._releases.active_config())
