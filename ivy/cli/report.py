"""What the operator is told of services that end unexpectedly: called by `units/ivy-report@.service`.

When he is told decides `units/ivy-report-end`, which starts no Python where there is nothing to tell.
"""

import argparse

from ivy.types import accepted_config
from ivy.types.config import ConfigError
from ivy.utils.functions import duration
from ivy.utils.host import endings, units
from ivy.utils.host.commands import CommandError
from ivy.utils.logger import Logger

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
