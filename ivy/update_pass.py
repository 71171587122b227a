"""One pass of the updater: what a node does at each boot, and whenever there is an offer."""

import contextlib
import json
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

from ivy import constants, files, service
from ivy.types.config import Config, ConfigError, ForeignConfig
from ivy.types.messages import ConfigMessageBody
from ivy.utils import notify
from ivy.utils.functions import with_automation_lock
from ivy.utils.host import package_manager
from ivy.utils.logger import Logger
from ivy.utils.messaging_agent import MessagingAgent
from ivy.utils.state_interface import StateInterface
from ivy.utils.updater import Updater
from ivy.utils.updates import activation, decisions, history, repair, sandbox
from ivy.utils.updates.releases import Releases, digest

_ANNOUNCED = os.path.join(constants.IVY_RUN_DIR, "announced")
_SECONDS_BETWEEN_TRIES = 1.0


def run() -> None:
    """Tell the operator what runs, repair it, go on with what was interrupted, and decide about offers.

    Raises:
        OSError, CommandError, sqlite3.Error: The node is in trouble; systemd tries again later.
    """
    releases = Releases()
    if releases.current() is None:  # a checkout, or a package that is not configured yet
        return _announce(service.load_config("updater").to_foreign_config())
    # Before the lock, for which the package's own script may be waiting.
    if package_manager.were_changed() and package_manager.wait_for_end():
        return package_manager.leave_to_next_pass()  # it is one of the Python and the libraries of now
    with automation_lock():
        sandbox.stop_all()
        _tidy(releases)
        config = running_config()
        logger = Logger(config, "updater")
        _renew(releases, config, logger)
        updater = Updater(running_config())
        announce()
        updater.remove_old_venvs()
        updater.trials.resume()
        decisions.report(logger)
        while _decide_about_newest():
            announce()
            if releases.current() != constants.VERSION:
                return  # what is pending now is for the updater of that version, which systemd starts
        Updater(running_config()).remove_old_venvs()


def check() -> None:
    """Do all that a pass needs before it can decide about an offer, and change nothing.

    Raises:
        Exception: This version could not make the next update.
    """
    Updater(Config.load())
    decisions.undecided()


@contextlib.contextmanager
def automation_lock() -> Generator[None, None, None]:
    """Hold the lock, however long somebody else does: the admin, or the package manager."""
    with contextlib.ExitStack() as held:
        said = ""
        while True:
            try:
                held.enter_context(with_automation_lock())
                break
            except TimeoutError as error:
                if not said:
                    said = f"waiting, because {error}"
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
    text = Releases().active_text()
    with contextlib.suppress(OSError):
        if files.read(_ANNOUNCED) == digest(text).encode():
            return
    try:
        config = ForeignConfig.load_from_string(text)
    except ConfigError as error:
        print(f"the active config cannot be read: {error}")
    else:
        _announce(config)
    files.make_directory(constants.IVY_RUN_DIR)
    with files.as_owner_of(constants.IVY_RUN_DIR):
        files.remove(_ANNOUNCED)
        files.write_atomically(Path(_ANNOUNCED), digest(text), durable=False)


def _announce(config: ForeignConfig) -> None:
    print(f"config revision {config.general.config_revision} for version {config.general.software_version} runs")
    messaging_agent = MessagingAgent()
    messaging_agent.add_message(ConfigMessageBody(status="startup", config=config))
    messaging_agent.teardown()


def _renew(releases: Releases, config: Config, logger: Logger) -> None:
    """Let the services run on what is installed. Before a trial goes on, which would count restarts against it."""
    are_new = repair.repair(releases, config, logger)
    if package_manager.were_changed():
        if not are_new:
            print("packages that ivy runs on were changed: restarting the services", flush=True)
            activation.renew(activation.backend_unit(releases.active_config()))
        package_manager.dealt_with()


def _tidy(releases: Releases) -> None:
    """Remove what is left of a pass that was killed."""
    releases.remove_unfinished()
    history.tidy()
    StateInterface.tidy()


def _decide_about_newest() -> bool:
    """Deal with the newest pending offer, and those that it replaces. Returns whether there was one."""
    if not (offers := decisions.undecided()):
        return False
    *replaced, newest = offers
    for offer in replaced:
        decisions.record(offer, f"superseded by revision {newest.revision}")
    Updater(running_config()).perform(newest)
    return True


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
