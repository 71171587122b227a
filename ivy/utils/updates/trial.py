"""The trial of an offer: from just before its activation until the decision is carried out. Prepares nothing.

Killed at any instant, the next pass goes on: what is on trial is watched again, and what failed is undone. The
release that is known to work does all of that, not the one on trial.
"""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ivy.types import secrets_file
from ivy.types.config import ForeignConfig, UpdaterConfig, as_text
from ivy.types.link_report import LinkReport
from ivy.types.messages import LogMessageBody
from ivy.types.updates import Offer
from ivy.utils import notify
from ivy.utils.host import commands, rights, units
from ivy.utils.logger import Logger
from ivy.utils.messaging_agent import MessagingAgent
from ivy.utils.updates import activation, changes, decisions, environment, history, probation, releases
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

    def begin(self, offer: Offer, files: Path | None = None) -> Offer:
        """Keep what runs now, and remember what is about to be activated, which is returned.

        Args:
            offer: What is going to be on trial.
            files: A directory with files of /etc/ivy that are on trial with it.
        """
        services = activation.services()
        sending, silent = probation.sending(services, self._releases.active_config())
        trial = offer.model_copy(
            update={
                "digest": releases.digest(as_text(offer.config)),
                "link_was_down": self.is_link_down(),
                "failing_before": [*probation.failing(services)],
                "sending_before": sending,
                "silent_before": silent,
                "seconds_of_probation": self._settings.seconds_of_probation,
                "max_seconds_of_probation": self._settings.max_seconds_of_probation,
            }
        )
        self._releases.begin_probation(files)
        return self._remember(trial)

    def watch(self, trial: Offer) -> str | None:
        """Let the services be those on trial, see how they are, and keep or undo what was activated.

        Returns: Why it was undone; None if it was kept.
        """
        notify.status("watching what was activated")
        self._releases.files.use()
        before, active = self._releases.config_before(), self._releases.active_config()
        try:
            services, untouched = self._switch(before, active)
        except units.NoRoomError as error:
            return self._undo(trial, str(error))
        backend, excused = self._backend(), set(trial.failing_before)
        if changes.concerns_link(before, active) or self._releases.files.are_on_trial():
            excused.discard(backend or "")  # it is judged by whether it delivers, whatever was before
            must_deliver = True
        else:
            must_deliver = not trial.link_was_down and backend not in excused
        # Otherwise nothing could be accepted any more, not even what corrects the two.
        most_seconds = max(trial.max_seconds_of_probation, 2 * trial.seconds_of_probation + _SECONDS_TO_RESTART)
        watch = probation.Watch(
            services=services,
            backend=backend if must_deliver else None,
            failing_before=excused,
            restarts_before=untouched,
            seconds=trial.seconds_of_probation,
            must_send=self._must_send(trial, before, active, most_seconds) - untouched.keys(),
            most_seconds=most_seconds,
            # A node whose power fails every night must not wait for ever, again each day.
            link_was_down=trial.link_was_down and trial.interruptions < _MOST_INTERRUPTIONS,
            say=self._logger.info,
            ask=self._send_a_message,
        )
        failure = self._updater_failure() or watch.run()
        if failure is not None:
            return self._undo(trial, failure)
        return self._conclude(trial, None, self._still_failing(trial, services))

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
            if trial.is_installed and trial.interruptions == 0:
                self._logger.info(f"A {trial.what} is on trial; what ran before is kept until all is well")
            else:
                self._logger.warning("The trial was interrupted, it begins again")
            self.watch(self._remember(trial, interruptions=trial.interruptions + 1))
        elif self._releases.previous() is None:
            self._give_up(trial, "the updater itself failed during the trial, so it was undone")
        elif self._releases.previous() == self._releases.current():
            self._releases.files.put_back()
            self._forget()  # nothing was activated: the offer is still pending
        elif self._is_damaged(trial):
            self._undo(trial, "its config was damaged during the trial")
        else:
            self._give_up(trial, "another release was installed meanwhile")

    def _updater_failure(self) -> str | None:
        """Whether the next update could still be done."""
        version = self._releases.current()
        if version is None:
            return "the current release is gone"
        check = [environment.python_of(self._releases.directory(version)), "-P", "-s", "-m", "ivy", "check-updater"]
        try:
            commands.run(check, timeout=_SECONDS_TO_START)
        except commands.CommandError as error:
            return f"its updater cannot start: {error}"
        return None

    def _undo(self, trial: Offer, failure: str) -> str | None:
        self._remember(trial, failure=failure)
        self._put_back(failure)
        return self._conclude(trial, failure)

    def _give_up(self, trial: Offer, failure: str) -> None:
        """Of what does not run any more."""
        if self._releases.files.put_back() and (backend := self._backend()) is not None:
            activation.start_again(backend)
        self._conclude(trial, failure)

    def _put_back(self, reason: str) -> None:
        self._logger.warning(f"Going back to what ran before: {reason.splitlines()[0]}")
        undone, before = self._releases.active_config(), self._releases.config_before()
        if (version := self._releases.previous()) is not None:
            activation.stop_lacking(self._releases.directory(version))
        self._releases.go_back()
        self._switch(undone if before is not None else None, self._releases.active_config(), is_undone=True)

    def _switch(
        self, before: ForeignConfig | None, active: ForeignConfig, *, is_undone: bool = False
    ) -> tuple[list[str], dict[str, int]]:
        """Let the services be those of the active config; what it changes for none of them runs on.

        Returns: All units that are wanted now; and of those that run on, how often they had been restarted.
        """
        backend = self._backend()
        untouched: dict[str, int] = {}

        def choose(wanted: list[str]) -> set[str] | None:
            again = changes.services_to_restart(before, active, wanted, backend)
            if again is not None:
                untouched.update(probation.restarts([unit for unit in wanted if unit not in again]))
            return again

        return activation.switch(backend, choose, is_undone=is_undone), untouched

    def _must_send(
        self, trial: Offer, before: ForeignConfig | None, active: ForeignConfig, most_seconds: float
    ) -> set[str]:
        version = self._releases.current()
        if version is None or not secrets_file.is_known_to(self._releases.directory(version)):
            return set()  # in releases of before, nobody notes a sample
        return changes.must_send(trial.sending_before, before, active, most_seconds)

    def _still_failing(self, trial: Offer, services: Sequence[str]) -> str:
        """What was not well before and is not now, in words; empty if there is nothing."""
        found = probation.failing([unit for unit in services if unit in trial.failing_before])
        said = [f"{unit} does not run well, and did not before: it {words}" for unit, words in found.items()]
        known = [unit for unit in services if unit in trial.silent_before and unit not in found]
        _, silent = probation.sending(known, self._releases.active_config())
        said += [f"{unit} sends no data, and did not before" for unit in silent]
        if trial.link_was_down and self.is_link_down():
            said.append("there is no connection, and was none before")
        return "; ".join(said)

    def _conclude(self, trial: Offer, failure: str | None, remark: str = "") -> str | None:
        decisions.record(trial, failure, self._releases.config_before(), remark=remark)
        self._forget()
        decisions.report(self._logger)
        return failure

    def _remember(self, trial: Offer, **changed: Any) -> Offer:
        with history.update() as past:
            past.trial = trial.model_copy(update=changed)
        return past.trial

    def _forget(self) -> None:
        self._releases.end_probation()
        self._releases.hide_secrets()
        with history.update() as past:
            past.trial = None

    def _is_on_trial(self, trial: Offer) -> bool:
        version = self._releases.current()
        if version is None or self._releases.previous() is None:
            return False
        is_its_version = version == trial.version
        return is_its_version and releases.digest(self._releases.read_config(version)) == trial.digest

    def _is_damaged(self, trial: Offer) -> bool:
        """Whether what is on trial has no config any more that it could run with."""
        version = trial.version
        config = self._releases.config_in_use(version)
        return version == self._releases.current() and releases.why_unusable(config, version) is not None

    def is_link_down(self) -> bool:
        """Whether the backend that runs now says that nothing gets through."""
        backend = self._backend()
        if backend is None:
            return False
        found = units.show(backend, "InvocationID", "User")
        report = LinkReport.load(found.get("User", ""))
        return report is not None and report.is_of(found.get("InvocationID", "")) and not report.is_well

    def _backend(self) -> str | None:
        return activation.backend_unit(self._releases.active_config())

    def _send_a_message(self) -> None:
        """Where procedures sample once an hour, nothing else would show whether the platform takes messages."""
        try:
            rights.ask(_add_message)
        except (OSError, sqlite3.Error) as error:
            self._logger.without_messages().warning(f"No message could be queued: {error}")


def _add_message() -> None:
    subject = "updater - INFO - A change is on trial; this message shows that others will be delivered"
    agent = MessagingAgent()
    try:
        agent.add_message(LogMessageBody(level="INFO", subject=subject, body=""))
    finally:
        agent.teardown()
