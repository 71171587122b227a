"""What units and package scripts call; not for people."""

import argparse

from ivy.types.config import Config, ConfigError
from ivy.utils.host import units
from ivy.utils.host.commands import CommandError
from ivy.utils.logger import Logger


def report_exit(arguments: argparse.Namespace) -> None:
    """Tell the operator that a service ended unexpectedly: unit, cause and count. See `$SERVICE_RESULT`."""
    unit, cause, code, status = [*arguments.end.split(":"), "", "", ""][:4]
    try:
        config = Config.load()
    except ConfigError:  # the service itself has said so, and without a config there is no backend to tell
        return
    Logger(config, "supervision").error(
        f"{unit} ended unexpectedly: {cause or 'unknown'} ({code or '?'} {status or '?'}), "
        f"{_count(unit)} since it was started"
    )


def _count(unit: str) -> str:
    try:
        # systemd counts a restart when it begins, which is after this.
        return f"time {int(units.show(unit, 'NRestarts')['NRestarts']) + 1}"
    except (CommandError, KeyError, ValueError) as error:
        return f"an unknown number of times ({error})"


def install(_arguments: argparse.Namespace) -> None:
    """Make a release of what the package brought, and switch to it if it is newer than what runs."""
    from ivy import update_pass
    from ivy.utils.updates import bundled, environment
    from ivy.utils.updates.releases import Releases

    with update_pass.automation_lock():
        try:
            bundled.install_bundled()
            if (version := Releases().current()) is not None:
                environment.fits(Releases().directory(version))  # its services ask next, and cannot keep the answer
        except bundled.ReleaseError as error:
            # A package that cannot be configured would keep the node from all other upgrades, too.
            _tell_everybody(f"The package's version was not activated: {error}")


def check_updater(_arguments: argparse.Namespace) -> None:
    """See whether this version could make the next update; by exceptions if not."""
    from ivy import update_pass

    update_pass.check()


def _tell_everybody(text: str) -> None:
    """The admin at the terminal or by the journal, and the operator, by the config that runs."""
    from ivy import update_pass
    from ivy.cli.update import Progress
    from ivy.utils.host import journal

    subject, _, details = text.partition("\n")
    journal.record("ERROR", subject, details, "updater")
    Progress(update_pass.running_config(), "updater").error(subject, details=details)
