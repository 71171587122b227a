"""What README and ivy-procedure(7) show: each example is run, with devices that are none."""

import datetime
import os
import re
import subprocess
import time
import tty
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from ivy import constants
from ivy.types.messages import DataMessageBody, LogMessageBody
from ivy.utils.logger import Logger
from ivy.utils.messaging_agent import MessagingAgent
from ivy.utils.state_interface import StateInterface
from tests.support.examples import PAGE, example
from tests.support.helpers import BACKEND, Node, make_config, wait_until

PROJECT = Path(constants.PROJECT_DIR)
BERLIN = ZoneInfo("Europe/Berlin")


def defined_by(code: str, **names: object) -> dict[str, Any]:
    """What an example defines."""
    namespace: dict[str, Any] = {
        "time": time,
        "datetime": datetime,
        "ZoneInfo": ZoneInfo,
        "Iterable": Iterable,
        **names,
    }
    exec(code, namespace)
    return namespace


@pytest.fixture
def line() -> Iterator[tuple[int, str]]:
    """A serial line: what a device writes to, and the name of its other end."""
    ours, theirs = os.openpty()
    tty.setraw(theirs)
    yield ours, os.ttyname(theirs)
    os.close(ours)
    os.close(theirs)


def test_only_whole_lines_and_only_numbers_are_stored(
    node: Node, agent: MessagingAgent, line: tuple[int, str]
) -> None:
    [code] = re.findall(r'```python\n("""ivy/procedures.*?)```', (PROJECT / "README.md").read_text(), re.S)
    device, port = line
    assert code.count('"/dev/ttyUSB0"') == 1
    quiet = {"file_archive": "DEBUG", "console_prints": "DEBUG", "message_sending": None}
    node.write_config(logging_verbosity=quiet)
    run = "from ivy import service\nservice.run_procedure(run, 'thermometer')\n"
    os.write(device, b"1.53\r\n21.5\r\n1_0\r\n2")  # the first line lacks its beginning
    process = node.start("-c", code.replace("/dev/ttyUSB0", port) + run)
    wait_until(lambda: agent.get_n_latest_messages(9))
    os.write(device, b"2.53\n\nnan\n1e3\n23.\n-4.0\n-5")  # and the last its end
    wait_until(lambda: len(agent.get_n_latest_messages(9)) == 3)
    process.terminate()
    assert process.wait(timeout=60) == 0
    bodies = [item.message_body for item in agent.get_n_latest_messages(9)]
    values = [body.data["temperature_celsius"] for body in bodies if isinstance(body, DataMessageBody)]
    assert values == [21.5, 22.53, -4.0]


def test_records_have_their_own_times(agent: MessagingAgent, make_logger: type[Logger]) -> None:
    code = example("def store(")
    names = {"MessagingAgent": MessagingAgent, "DataMessageBody": DataMessageBody, "Logger": Logger}
    now = time.time()
    records = [(now - 3600, 20.5), (now + 86_400, 99.0), (now - 1800, 21.0)]
    defined_by(code, **names)["store"](records, agent, make_logger(make_config(backend=BACKEND), "test"))
    found = [(item.timestamp, item.message_body) for item in agent.get_n_latest_messages(9)]
    data = [(when, body.data["recorded_celsius"]) for when, body in found if isinstance(body, DataMessageBody)]
    assert data == [records[0], records[2]]
    [told] = [body.subject for _, body in found if isinstance(body, LogMessageBody)]
    assert "Left out a record of 99.0 degrees" in told


def test_a_value_of_another_procedure_outlives_a_boot_and_gets_old(monkeypatch: pytest.MonkeyPatch) -> None:
    found = defined_by(example("def tell("), StateInterface=StateInterface)
    assert found["pressure"]() is None
    found["tell"](1013.2)
    assert found["pressure"]() == 1013.2
    assert StateInterface.load().procedures.keys() == {"barometer"}
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 601)
    assert found["pressure"]() is None


@pytest.mark.parametrize(
    ("day", "clock", "hours"),
    [
        ((2026, 7, 1), (6, 30), [24.0, 24.0]),
        ((2026, 3, 28), (6, 30), [23.0, 24.0]),  # the night in which 2:00 becomes 3:00
        ((2026, 10, 24), (6, 30), [25.0, 24.0]),  # and the one in which 3:00 becomes 2:00
        ((2026, 3, 28), (2, 30), [24.0, 23.0]),  # a time that the 29th does not have: 3:30
        ((2026, 10, 24), (2, 30), [24.0, 25.0]),  # and one that the 25th has twice: once
    ],
)
def test_local_times_follow_daylight_saving(
    day: tuple[int, int, int], clock: tuple[int, int], hours: list[float]
) -> None:
    seconds_until = defined_by(example("def seconds_until("))["seconds_until"]
    now = datetime.datetime(*day, *clock, tzinfo=BERLIN).timestamp()
    for each in hours:
        seconds = seconds_until(datetime.time(*clock), BERLIN, now)
        assert seconds == 3600 * each
        now += seconds


@pytest.mark.parametrize(("status", "is_off"), [("42", True), ("1", False), ("0", False), ("", False)])
def test_the_machine_is_switched_off_for_one_status_only(node: Node, status: str, is_off: bool) -> None:
    unit = dict(text.split("=", 1) for text in example("SuccessExitStatus=").splitlines() if "=" in text)
    assert unit["SuccessExitStatus"] == unit["RestartPreventExitStatus"] == "42"
    command = unit["ExecStopPost"].removeprefix("-+/bin/sh -c '").removesuffix("'")
    node.fake("systemctl", {"*": ":"})
    subprocess.run(["/bin/sh", "-c", command], env={**node.environment, "EXIT_STATUS": status}, check=False)
    assert node.calls() == (["systemctl poweroff"] if is_off else [])


def test_no_example_is_left_out() -> None:
    tried: tuple[str, ...] = (
        "def store(",
        "def tell(",
        "def seconds_until(",
        "PrivateDevices=no",
        "SuccessExitStatus=",
        "OnCalendar=",
        "ID_MM_DEVICE_IGNORE",
    )
    tried += ("on-failure", "ExecStopPost=-/usr/bin/ivy run NAME --make-safe", "packaging/new-procedure NAME [")
    assert len({example(containing) for containing in tried}) == PAGE.read_text().count(".EX\n")
