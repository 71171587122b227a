"""One pass of the updater: what a node does at each boot, and whenever there is an offer."""

import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, NoReturn

from ivy import constants, files, service
from ivy.types.config import Config, ConfigError, ForeignConfig
from ivy.types.messages import ConfigMessageBody
from ivy.types.updates import Offer
from ivy.utils import notify
from ivy.utils.functions import procedure_names, with_automation_lock
from ivy.utils.host import clock, hold, package_manager, rights, units, waiting
from ivy.utils.logger import Logger
from ivy.utils.messaging_agent import MessagingAgent
from ivy.utils.state_interface import BACKEND_STATE, BACKEND_STATE_FILE, STATE_FILE, StateInterface
from ivy.utils.updater import Updater
from ivy.utils.updates import (
    activation,
    damage,
    damaged_config,
    decisions,
    history,
    holding,
    last_decision,
    lost_secrets,
    repair,
    sandbox,
    signers,
)
from ivy.utils.updates.releases import Releases, digest

_ANNOUNCED = os.path.join(constants.IVY_ROOT_DIR, "announced")
_SECONDS_BETWEEN_TRIES = 1.0

SECONDS_FOR_THE_LOCK = 600.0
"""How long to wait for somebody who changes the installation: nobody may hold up all others for ever."""


def run() -> None:
    """Tell the operator what runs, repair it, go on with what was interrupted, and decide about offers.

    What the services own may be in any state, through their fault or somebody's will. It stops none of that: what
    could not be read or told is left to another pass.

    Raises:
        SystemExit: With status 75, if another pass is needed soon.
        OSError, CommandError: The node is in trouble; systemd tries again later.
    """
    releases = Releases()
    if releases.current() is None and not releases.has_lost_link():
        # A checkout, or a package that is not configured yet.
        return _announce(service.load_config("updater").to_foreign_config())
    # Before the lock, for which the package's own script may be waiting.
    if package_manager.were_changed() and package_manager.wait_for_end():
        # This one is one of the Python and the libraries of before.
        return package_manager.leave_to_next_pass()
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(automation_lock())
        except TimeoutError as error:
            _try_again([str(error)])
        troubles, pause = _work(releases)
    if pause > 0:  # not while the lock is held: the admin needs no pause
        _rest(pause)
        if not os.path.exists(constants.PENDING_CONFIG_FLAG):  # by which systemd would start the next one
            troubles.append("there are offers to decide about")
    if activation.awaits_reload():
        troubles.append("systemd refuses to reload, for want of room in /run")
    if troubles:
        _try_again(troubles)


def _rest(seconds: float) -> None:
    said = f"after many decisions there is a pause of {seconds:.0f} s before the next one"
    print(said, flush=True)
    notify.status(said)
    notify.sleep(seconds)


def _work(releases: Releases) -> tuple[list[str], float]:
    """Do what a pass does.

    Returns: What it could not do because of what the services own; and for how many seconds nothing more is to be
        decided, if there is something.
    """
    pause = 0.0
    troubles: list[str] = []
    are_new: list[bool] = []

    def attempt(work: Callable[[], object]) -> None:
        try:
            work()
        except (OSError, sqlite3.Error) as error:
            troubles.append(str(error))

    def repair_code() -> None:
        config = running_config()
        are_new.append(damage.repair(releases, config, Logger(config, "updater")))

    sandbox.stop_all()
    releases.remove_unfinished()
    config_damage = damaged_config.restore(releases)
    attempt(repair_code)
    restored = lost_secrets.restore(releases)  # before anything asks whether a config is the one on trial
    releases.hide_secrets()
    releases.keep_accepted()
    begun_again = [history.HISTORY_FILE] if history.tidy() else []
    last_decision.note(history.load())
    files.remove_stale(Path(_ANNOUNCED))
    attempt(lambda: begun_again.extend([STATE_FILE] if rights.ask(StateInterface.tidy) else []))
    at_backend = constants.BACKEND_DIR
    attempt(lambda: begun_again.extend([BACKEND_STATE_FILE] if rights.ask(BACKEND_STATE.tidy, at_backend) else []))
    config = running_config()
    logger = Logger(config, "updater")
    if (said := holding.tidy()) is not None:
        logger.warning(said)
    held = hold.look()
    if config_damage is not None:
        logger.error("The config was damaged, and is there again", details=config_damage)
    damaged_config.look(releases, logger)
    for path in begun_again:
        logger.error(f"{path} was damaged: what it knew is lost, and kept in {path}.damaged as it was found")
    if restored:
        logger.warning(f"Secrets of the config were lost, and are there again: {', '.join(restored)}")
        _start_those_that_lacked(restored, activation.backend_unit(releases.active_config()))
    signers.restore(logger)
    if held is None:
        activation.catch_up(activation.backend_unit(releases.active_config()))
        _renew(releases, config, logger, are_new=any(are_new))
    updater = Updater(running_config())
    attempt(announce)
    updater.remove_old_venvs()
    was_on_trial = releases.previous() is not None
    updater.trials.resume()
    if held is not None:
        told = set[str]()
        holding.wait(lambda: _tell_what_waits(logger, told))
        return [*troubles, "the hold of this node has ended"], 0.0
    is_foreign = was_on_trial and releases.current() != constants.VERSION
    try:
        # After a trial this may be the release from before: systemd starts the new one's updater for what waits.
        while not is_foreign and (offers := decisions.undecided(releases.active_config().general.config_revision)):
            pause = decisions.seconds_to_pause()
            if pause > 0:
                break
            _decide_about_newest(offers)
            attempt(announce)
            if releases.current() != constants.VERSION:
                return troubles, 0.0  # what is pending now is for the updater of that version, which systemd starts
    except rights.NoAnswer as error:
        troubles.append(str(error))
    if not decisions.report(logger):
        troubles.append("not all about the decisions could be told")
    Updater(running_config()).remove_old_venvs()
    return troubles, pause


def _tell_what_waits(logger: Logger, told: set[str]) -> None:
    """Of an offer that comes while somebody holds the node; once for each."""
    if (held := hold.look()) is None or not os.path.exists(constants.PENDING_CONFIG_FLAG):
        return
    with contextlib.suppress(rights.NoAnswer):
        for offer in decisions.undecided(Releases().active_config().general.config_revision)[-1:]:
            if offer.identifier not in told:
                told.add(offer.identifier)
                logger.warning(f"{offer.what[0].upper()}{offer.what[1:]} is waiting: this node is {held.words()}")


def _try_again(troubles: list[str]) -> NoReturn:
    said = f"another pass is needed: {'; '.join(dict.fromkeys(troubles))}"
    print(said, flush=True)
    notify.status(said)
    raise SystemExit(constants.EXIT_TRY_AGAIN)


def check() -> None:
    """Do all that a pass needs before it can decide about an offer, and change nothing.

    Raises:
        Exception: This version could not make the next update.
    """
    Updater(Config.load())
    with contextlib.suppress(OSError, sqlite3.Error):  # a service may see to that, and would undo each update by it
        decisions.undecided()


@contextlib.contextmanager
def automation_lock(seconds: float = SECONDS_FOR_THE_LOCK) -> Generator[None, None, None]:
    """Hold the lock, and wait for that while somebody else does: the admin, or the package manager.

    Args:
        seconds: How long to wait.

    Raises:
        TimeoutError: Somebody held it all the time; the text names the process.
    """
    began = time.monotonic()
    minutes = -1
    with contextlib.ExitStack() as held:
        while True:
            try:
                held.enter_context(with_automation_lock())
                break
            except TimeoutError as error:
                waited = time.monotonic() - began
                if waited >= seconds:
                    raise
                if minutes < waited // 60:
                    minutes = int(waited // 60)
                    said = f"waiting{f' for {minutes} min' if minutes else ''}, because {error}"
                    print(said, flush=True)
                    notify.status(said)
                notify.sleep(_SECONDS_BETWEEN_TRIES)
        yield


def running_config() -> Config:
    """The active config; where this version cannot read it, as much of it as an updater needs.

    That is so when the package's own updater stands in for a release whose own one fails.
    """
    text = Releases().active_text()
    try:
        return Config.load_from_string(text)
    except ConfigError:
        template = Config.load_template().model_dump(mode="json")
        return _with_sections_of(text, template)


def announce() -> None:
    """Tell the operator which config runs: once for each, and after each boot.

    Raises:
        OSError, sqlite3.Error: The message could not be queued.
    """
    text = Releases().shown_text()
    known = f"{digest(text)} {clock.boot_id()}"
    with contextlib.suppress(OSError):
        if files.read(_ANNOUNCED) == known.encode():
            return
    try:
        config = ForeignConfig.load_from_string(text)
    except ConfigError as error:
        print(f"the active config cannot be read: {error}")
    else:
        rights.ask(lambda: _announce(config))
    files.remove(_ANNOUNCED)
    files.write_atomically(Path(_ANNOUNCED), known)


def _announce(config: ForeignConfig) -> None:
    print(f"config revision {config.general.config_revision} for version {config.general.software_version} runs")
    messaging_agent = MessagingAgent()
    messaging_agent.add_message(ConfigMessageBody(status="startup", config=config))
    messaging_agent.teardown()


def _start_those_that_lacked(restored: list[str], backend: str | None) -> None:
    sections = {path.partition(".")[0] for path in restored}
    units_of = [units.name_of(name) for name in procedure_names() if name.replace("-", "_") in sections]
    for unit in [*units_of, *([backend] if backend and "backend" in sections else [])]:
        activation.start_again(unit)


def _renew(releases: Releases, config: Config, logger: Logger, *, are_new: bool) -> None:
    """Let the services run on what is installed. Before a trial goes on, which would count restarts against it."""
    are_new = repair.repair(releases, config, logger) or are_new
    if package_manager.were_changed():
        trial = history.load().trial
        if trial is not None and trial.is_installed and trial.interruptions == 0:
            # All run what was before, as the package's script disturbs nobody; the trial restarts them.
            late = waiting.wait(waiting.everybody(), lambda words: logger.warning(f"The {trial.what} is {words}"))
            if late:
                logger.warning(f"Not waiting any longer for {', '.join(late)}: it has been two hours")
        elif not are_new:
            print("packages that ivy runs on were changed: restarting the services", flush=True)
            activation.renew(activation.backend_unit(releases.active_config()))
        package_manager.dealt_with()


def _decide_about_newest(offers: list[Offer]) -> None:
    """Deal with the newest of the pending offers, and those that it replaces."""
    *replaced, newest = offers
    decisions.supersede(replaced, newest)
    Updater(running_config()).perform(newest)


def _with_sections_of(text: str, template: dict[str, Any]) -> Config:
    """The template, with each section of a config that fits into it."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    for name, section in content.items() if isinstance(content, dict) else ():
        with contextlib.suppress(ConfigError):
            template = Config.load_from_string(json.dumps({**template, name: section})).model_dump(mode="json")
    return Config.load_from_string(json.dumps(template))
