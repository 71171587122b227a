"""Runs a procedure or a backend as a systemd service: signals, teardown, what becomes of an exception.

Supervision itself (restart, watchdog, time limits) is systemd's, see `units/`.
"""

import faulthandler
import signal
import types
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn, cast

from ivy import constants
from ivy.types.config import Config, ConfigError, ConfigWarning
from ivy.utils import notify
from ivy.utils.host import journal, signals
from ivy.utils.logger import Logger
from ivy.utils.messaging_agent import MessagingAgent
from ivy.utils.storage.doorbell import Doorbell

if TYPE_CHECKING:  # a service's own memory has no use for it
    import multiprocessing.synchronize

Procedure = Callable[[Config, Logger], None]
Backend = Callable[[Config, Logger, "multiprocessing.synchronize.Event"], None]


def load_config(origin: str) -> Config:
    """Load the config of this release, for a service.

    Raises:
        SystemExit: With status 78, the reason being in the journal and in `systemctl status`: a restart would
            not help, so systemd does not try.
    """
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", ConfigWarning)
        try:
            config = Config.load()
        except ConfigError as error:
            notify.status(f"Config error: {error}")
            journal.send("ERROR", f"config error, not starting: {error}", origin=origin)
            raise SystemExit(constants.EXIT_CONFIG_ERROR) from None
    for warning in said:
        journal.send("WARNING", str(warning.message), origin=origin)
    return config


def run_procedure(entrypoint: Procedure, origin: str) -> NoReturn:
    """Run a procedure until SIGTERM or SIGINT, which end it by an exception wherever it is.

    Raises:
        SystemExit: Always: with 0 after a signal, 78 after a config error, 1 after an exception or a return.
    """
    signal.signal(signal.SIGTERM, _exit)
    signal.signal(signal.SIGINT, _exit)
    MessagingAgent.procedure = origin
    config, logger = _start(origin)
    _run(lambda: entrypoint(config, logger), logger)
    logger.error("The procedure ended although it should run for ever")
    raise SystemExit(1)


def run_backend(entrypoint: Backend, origin: str) -> NoReturn:
    """Run a backend until SIGTERM or SIGINT, which set its teardown indicator: it ends in its own time.

    Raises:
        SystemExit: Always: with 0 if the backend returned after the signal, 78 after a config error, else 1.
    """
    indicator = signals.SignalEvent()
    doorbell = Doorbell()

    def tear_down(_signal: int, _frame: types.FrameType | None) -> None:
        indicator.set()
        doorbell.ring()
        notify.stopping()

    signal.signal(signal.SIGTERM, tear_down)
    signal.signal(signal.SIGINT, tear_down)
    config, logger = _start(origin)
    _run(lambda: entrypoint(config, logger, cast("multiprocessing.synchronize.Event", indicator)), logger)
    if not indicator.is_set():
        logger.error("The backend ended although it was not told to")
    raise SystemExit(0 if indicator.is_set() else 1)


def _start(origin: str) -> tuple[Config, Logger]:
    faulthandler.enable()  # the watchdog's SIGABRT then shows in the journal where the service hung
    config = load_config(origin)
    notify.heartbeat()
    notify.ready()
    return config, Logger(config, origin)


def _run(work: Callable[[], None], logger: Logger) -> None:
    try:
        work()
    except ConfigError as error:
        notify.status(f"Config error: {error}")
        logger.error(f"config error, not running: {error}")
        raise SystemExit(constants.EXIT_CONFIG_ERROR) from None
    except Exception as error:
        logger.exception(error)
        notify.status(f"Failed: {type(error).__name__}: {error}")
        raise SystemExit(1) from None


def _exit(_signal: int, _frame: types.FrameType | None) -> None:
    notify.stopping()
    raise SystemExit(0)
