"""Runs a procedure or a backend as a systemd service: signals, teardown, what becomes of an exception.

Supervision itself (restart, watchdog, time limits) is systemd's, see `units/`.
"""

import contextlib
import faulthandler
import os
import signal
import sys
import threading
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, cast

from ivy import constants
from ivy.types import accepted_config, secrets_file
from ivy.types.config import ACCEPTED, Config, ConfigError, ConfigWarning, LostSecretError, require_secrets
from ivy.utils import notify
from ivy.utils.host import busy, journal, signals
from ivy.utils.logger import Logger
from ivy.utils.messaging_agent import MessagingAgent
from ivy.utils.storage.doorbell import Doorbell

if TYPE_CHECKING:  # a service's own memory has no use for it
    import multiprocessing.synchronize

Procedure = Callable[[Config, Logger], None]
Backend = Callable[[Config, Logger, "multiprocessing.synchronize.Event"], None]


def load_config(origin: str, section: str | None = None) -> Config:
    """Load the config of this release, for a service; or the one that was accepted last, where it cannot be used.

    Args:
        origin: The service.
        section: The one whose secrets it needs.

    Raises:
        SystemExit: With status 78, where neither can be used, the reason being in the journal and in `systemctl
            status`: a restart would not help, so systemd does not try. With 75, if one helps: the config was
            replaced meanwhile.
    """
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", ConfigWarning)
        try:
            config, trouble = accepted_config.load()
            if trouble is not None:
                journal.send("ERROR", f"config error: {trouble}\n{accepted_config.IN_USE}", origin=origin)
            if section is not None:
                _look_for_newer_config(origin, "config.json" if trouble is None else ACCEPTED)
                require_secrets(config, section)
                if trouble is not None:
                    _ask_for_pass()
        except ConfigError as error:
            notify.status(f"Config error: {error}")
            journal.send("ERROR", f"config error, not starting: {error}", origin=origin)
            if isinstance(error, LostSecretError):
                _ask_for_pass()
            raise SystemExit(constants.EXIT_CONFIG_ERROR) from None
    for warning in said:
        journal.send("WARNING", str(warning.message), origin=origin)
    return config


def run_procedure(entrypoint: Procedure, origin: str) -> NoReturn:
    """Run a procedure until SIGTERM or SIGINT, which end it by an exception wherever it is.

    What ends a thread of it ends all of it in the same way: its main loop would go on without what the thread did.

    Raises:
        SystemExit: Always: with 0 after a signal, 78 after a config error, 1 after an exception or a return.
    """
    stop = _Stop()
    _handle_stops(stop.handle)
    MessagingAgent.procedure = origin
    busy.begin(origin)
    config, logger = _start(origin)
    MessagingAgent.archive_days = config.archive.max_days
    _end_with_threads(logger, lambda: stop.is_asked_for, lambda: stop.ask_for(1))
    try:
        _run(lambda: entrypoint(config, logger), logger)
    finally:
        stop.is_over()
    if not stop.is_asked_for:
        logger.error("The procedure ended although it should run for ever")
        raise SystemExit(1)
    raise SystemExit(stop.status)


def make_safe(entrypoint: Procedure, origin: str) -> NoReturn:
    """Leave a procedure's hardware safe, after its end; the operator is told where that fails.

    Raises:
        SystemExit: Always: with 0, 78 after a config error, or 1 after an exception.
    """
    notify.mute()  # systemd listens to the one that has ended
    config = load_config(origin)
    logger = Logger(config, origin)
    try:
        entrypoint(config, logger)
    except Exception as error:
        logger.exception(error, label="its hardware may not be safe")
        raise SystemExit(1) from None
    raise SystemExit(0)


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

    _handle_stops(tear_down)
    config, logger = _start(origin, "backend")
    # Nothing is lost by that; to drain the queue it may need what is gone.
    _end_with_threads(logger, indicator.is_set, lambda: os._exit(1))
    _run(lambda: entrypoint(config, logger, cast("multiprocessing.synchronize.Event", indicator)), logger)
    notify.status("ended")  # else `systemctl status` would have it connected for ever
    if not indicator.is_set():
        logger.error("The backend ended although it was not told to")
    raise SystemExit(0 if indicator.is_set() else 1)


def _handle_stops(handler: Callable[[int, types.FrameType | None], None]) -> None:
    signals.handle(handler)
    # /usr/bin/ivy lets them wait until somebody can hear them.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def _look_for_newer_config(origin: str, in_use: str) -> None:
    """The updater may have taken the secrets out of the file since systemd handed us those of the one before."""
    if secrets_file.are_stale(Path(constants.PROJECT_DIR, "config", in_use)):
        journal.send("INFO", "the config was replaced meanwhile: starting again", origin=origin)
        raise SystemExit(constants.EXIT_TRY_AGAIN)


def _ask_for_pass() -> None:
    """The updater may find again what was lost, and then starts us; and it tells the operator what it cannot."""
    from ivy.backend import flags  # not at the top: no procedure has a use for it

    with contextlib.suppress(OSError):
        flags.leave(constants.PENDING_CONFIG_FLAG)


def _start(origin: str, section: str | None = None) -> tuple[Config, Logger]:
    faulthandler.enable()  # the watchdog's SIGABRT then shows in the journal where the service hung
    config = load_config(origin, section)
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
        notify.status(f"Failed: {type(error).__name__}: {journal.in_words(error)}")
        raise SystemExit(1) from None


def _end_with_threads(logger: Logger, is_ending: Callable[[], bool], end: Callable[[], None]) -> None:
    """Log what ends a thread, and end the service."""

    def hook(what: threading.ExceptHookArgs) -> None:
        error = what.exc_value
        if is_ending() or not isinstance(error, Exception):  # sys.exit() ends a thread on purpose
            return
        try:
            logger.exception(error, label=f"the thread {what.thread.name if what.thread else ''!r} died")
            notify.status(f"Failed: a thread died: {type(error).__name__}: {journal.in_words(error)}")
        finally:  # also where that was not possible, as without a file descriptor
            end()

    threading.excepthook = hook


class _Stop:
    """The end of a procedure: an exception in its main thread, again and again where that is swallowed.

    A bare `except:` in its loop would make of each stop a kill, without what it does to leave its hardware safe.
    """

    def __init__(self) -> None:
        self.status = 0
        self.is_asked_for = False

    def ask_for(self, status: int) -> None:
        """End the procedure with this status. For any thread."""
        self.status = status
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)

    def handle(self, number: int, _frame: types.FrameType | None) -> None:
        """Raise SystemExit, if what was raised before is not on its way: being handled, as by a `finally`."""
        if not self.is_asked_for:
            self.is_asked_for = True
            # By SIGTERM, which `signals.deferred` lets wait. Not by a thread: one cannot be started in a handler.
            signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGTERM))
            signal.setitimer(signal.ITIMER_REAL, constants.SECONDS_PER_GRACEFUL_PROCEDURE_TEARDOWN / 2, 1)
            notify.stopping()  # last, as another signal may end it
        if number == signal.SIGINT or not _is_ending(sys.exception()):  # who presses Ctrl-C again wants no teardown
            raise SystemExit(self.status)

    def is_over(self) -> None:
        """The procedure has ended."""
        signal.setitimer(signal.ITIMER_REAL, 0)


def _is_ending(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, SystemExit):
        error = error.__context__
    return error is not None
