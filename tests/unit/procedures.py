"""Procedures as their units run them, but for their patience, and what they put into the queue."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from ivy import constants
from ivy.types.messages import DataMessageBody, LogMessageBody
from ivy.utils.host import busy
from ivy.utils.host.locks import file_lock
from ivy.utils.messaging_agent import MessagingAgent
from ivy.utils.state_interface import STATE_FILE_LOCK
from tests.support.helpers import wait_until

_RUN = """
import importlib, random
from ivy import main
procedure = importlib.import_module("ivy.procedures.{module}")
procedure.get_time_to_next_datapoint = lambda seconds: 0.01
random.seed(7)
{patch}
main.run_service("{name}")
"""


def run_hastily(name: str, patch: str = "") -> str:
    """Code that runs a procedure, which samples all the time; `patch` may change the module `procedure` before."""
    return _RUN.format(name=name, module=name.replace("-", "_"), patch=patch)


CALENDAR = 1_700_000_000.0
"""The time of a pipe that was just made, and so nothing that a service has said."""


def pipe_of(name: str) -> Path:
    """The pipe by whose time a procedure says that it is busy, as ivy-owners.service makes it."""
    path = Path(constants.BUSY_DIR, f"ivy-{name}")
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(path)
        os.utime(path, (CALENDAR, CALENDAR))
    return path


def say_busy(name: str, seconds: float) -> None:
    """Let a procedure not want to be disturbed for so long, as `notify.undisturbed` does in its process."""
    os.utime(pipe_of(name), (CALENDAR, busy.now() + seconds))


def in_minutes(seconds: float) -> str:
    """Instead of `busy.clock_time`, which may be of the next minute a moment later."""
    return f"+{seconds / 60:.0f} min"


def samples(agent: MessagingAgent) -> list[DataMessageBody]:
    """The data in the queue."""
    bodies = [item.message_body for item in agent.get_n_latest_messages(10_000, [])]
    return [body for body in bodies if isinstance(body, DataMessageBody)]


def log_lines(agent: MessagingAgent) -> list[str]:
    """The subjects of the log messages in the queue."""
    bodies = [item.message_body for item in agent.get_n_latest_messages(10_000, [])]
    return [body.subject for body in bodies if isinstance(body, LogMessageBody)]


def check_that_a_state_held_elsewhere_stops_no_sampling(
    start: Callable[..., subprocess.Popen[str]], agent: MessagingAgent, name: str
) -> None:
    """Hold the state while a procedure that asks it runs; `start` is the fixture."""
    with file_lock(STATE_FILE_LOCK, timeout=1):
        start(name, "from ivy.utils import state_interface; state_interface.SECONDS_TO_WAIT = 0.01")
        wait_until(lambda: len(samples(agent)) >= 3)
    assert any("state.lock is locked by process " in line for line in log_lines(agent))
