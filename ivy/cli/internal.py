"""What units and package scripts call; not for people."""

import argparse
import sqlite3
import sys

from ivy import constants
from ivy.types import accepted_config
from ivy.types.config import Config, ConfigError
from ivy.utils import notify
from ivy.utils.functions import duration
from ivy.utils.host import endings, hold, units
from ivy.utils.host.commands import CommandError
from ivy.utils.logger import Logger

_SECONDS_BETWEEN_TRIES = 30.0
_LONGEST_DETAILS = 10_000
_TOLD_EACH = 3
"""As in `units/ivy-report-end`."""


def report_exit(arguments: argparse.Namespace) -> None:
    """Tell the operator that a service ended unexpectedly: cause, count and last words; or that this is over.

    The argument is `UNIT:RESULT:CODE:STATUS:COUNT:SECONDS:INVOCATION`, for which see `$SERVICE_RESULT` in
    systemd.exec(5), the count being one of so many seconds; or `UNIT:over`.
    """
    unit, result, code, status, count, seconds, invocation = [*arguments.end.split(":"), *[""] * 6][:7]
    try:
        config, _ = accepted_config.load()
    except ConfigError:  # the service itself has said so, and without a config there is no backend to tell
        return
    logger = Logger(config, "supervision")
    if result == "over":
        return _tell_that_it_is_over(unit, logger)
    text = f"{unit} ended unexpectedly: {endings.describe(result, code, status)}"
    if count.isdecimal():
        text += f", time {count}" + (
            f" in {duration(int(seconds))}" if seconds.isdecimal() and count != "1" else ""
        )
    if said := endings.last_line(invocation):
        text += f"; it said last: {said}"
    is_one_of_many = count.isdecimal() and int(count) >= _TOLD_EACH
    more = "If it goes on so, that is told once an hour, and when it is over" if is_one_of_many else None
    logger.error(text, details=more)


def _tell_that_it_is_over(unit: str, logger: Logger) -> None:
    counted = endings.record(unit)
    if counted is None:
        return
    try:
        state = units.show(unit, "ActiveState").get("ActiveState") or "in no known state"
    except CommandError as error:
        state = f"in an unknown state ({error})"
    ended = f"before, it had ended {counted.count} times in {duration(counted.seconds - counted.age)}"
    logger.warning(f"{unit} has not ended for {duration(counted.age)}, it is {state}; {ended}: {counted.ending}")


def install(arguments: argparse.Namespace) -> None:
    """Make a release of what the package brought, and try it if it is newer than what runs."""
    from ivy import update_pass
    from ivy.cli.update import TalkingUpdater
    from ivy.utils.updates import bundled, environment
    from ivy.utils.updates.releases import Releases

    if Releases().current() is not None and (held := hold.look()) is not None:
        again = f"when that has ended, sudo dpkg-reconfigure {constants.NAME} does"
        return _tell_everybody(f"The package's version was not activated, as this node is {held.words()}; {again}")
    try:
        with update_pass.automation_lock():
            is_watched = environment.SYSTEMD.is_dir()
            trials = TalkingUpdater(update_pass.running_config()).trials if is_watched else None
            bundled.install_bundled(trials=trials, is_older_wanted=arguments.older)
            if (version := Releases().current()) is not None:
                environment.fits(Releases().directory(version))  # its services ask next, and cannot keep the answer
    except (bundled.ReleaseError, CommandError, TimeoutError) as error:
        # A package that cannot be configured would keep the node from all other upgrades, too.
        _tell_everybody(f"The package's version was not activated: {error}")
    except OSError as error:  # the disk of the releases takes nothing, which may be another one than dpkg's
        if Releases().current() is None:
            raise
        again = f"when that disk is well again, sudo dpkg-reconfigure {constants.NAME} does"
        _tell_everybody(f"The package's version was not activated: {error}; {again}")


def check_updater(_arguments: argparse.Namespace) -> None:
    """See whether this version could make the next update; by exceptions if not."""
    from ivy import update_pass

    update_pass.check()


def salvage(_arguments: argparse.Namespace) -> None:
    """Queue again what can be read of a queue that was damaged, however long that takes."""
    from ivy.utils.messaging_agent import ACTIVE_QUEUE_FILE, MessagingAgent
    from ivy.utils.storage import salvage

    agent = MessagingAgent()
    while True:
        try:
            return salvage.work(ACTIVE_QUEUE_FILE, agent.store)
        except (OSError, sqlite3.Error) as error:
            print(f"not all could be queued yet: {error}", flush=True)
            notify.sleep(_SECONDS_BETWEEN_TRIES)


def link(_arguments: argparse.Namespace) -> None:
    """Print for `ivy-lost` of the package ivy-node: how the link is, seconds until repair, seconds until reboot.

    The link is `away`, `there`, or `none`: where the config has no backend, or somebody has stopped the services. A
    limit that the config has not is `never`.
    """
    config = _config()
    limits = (config.node.hours_until_repair, config.node.hours_until_reboot)
    print(_link_of(config), *("never" if hours is None else round(hours * 3600) for hours in limits))


def _link_of(config: Config) -> str:
    from ivy import overview  # not at the top: a report about a crash has no use for it

    if config.backend is None or units.show(units.TARGET, "ActiveState").get("ActiveState") != "active":
        return "none"
    return "there" if overview.link(config.backend, overview.services()).connected else "away"


def tell(arguments: argparse.Namespace) -> None:
    """Queue a warning; what is read from standard input stands below it."""
    Logger(_config(), "node").warning(arguments.subject, details=sys.stdin.read(_LONGEST_DETAILS))


def _config() -> Config:
    from ivy.cli.main import refuse_config

    try:
        return accepted_config.load()[0]
    except ConfigError as error:
        refuse_config(error)


def _tell_everybody(text: str) -> None:
    """The admin at the terminal or by the journal, and the operator, by the config that runs."""
    from ivy import update_pass
    from ivy.cli.update import Progress
    from ivy.utils.host import journal

    subject, _, details = text.partition("\n")
    journal.record("ERROR", subject, details, "updater")
    Progress(update_pass.running_config(), "updater").error(subject, details=details)
