"""`ivy.procedures.system_checks`: what it samples, and what it tells other procedures through the state."""

import datetime
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from ivy.procedures import system_checks
from ivy.procedures._housekeeping import Housekeeper
from ivy.types.messages import DataMessageBody
from ivy.utils import notify
from ivy.utils.host import vitals
from ivy.utils.logger import Logger
from ivy.utils.messaging_agent import MessagingAgent
from ivy.utils.state_interface import StateInterface
from ivy.utils.storage import ballast, contents
from tests.support.helpers import BACKEND, Node, make_config, wait_until
from tests.unit.procedures import (
    check_that_a_state_held_elsewhere_stops_no_sampling,
    log_lines,
    run_hastily,
    samples,
)


def test_a_state_that_another_process_holds_stops_no_sampling(
    start: Callable[..., subprocess.Popen[str]], agent: MessagingAgent
) -> None:
    check_that_a_state_held_elsewhere_stops_no_sampling(start, agent, "system-checks")


def test_system_checks_write_state_and_data(
    start: Callable[..., subprocess.Popen[str]], agent: MessagingAgent
) -> None:
    start("system-checks")
    wait_until(lambda: len(samples(agent)) >= 2)
    state = StateInterface.load()
    boot_time = datetime.datetime.fromtimestamp(psutil.boot_time(), datetime.UTC)
    assert state.system.last_boot_time and abs(state.system.last_boot_time - boot_time).total_seconds() < 5
    assert state.system.last_5_min_load is not None and state.system.last_5_min_load >= 0
    data = samples(agent)[-1].data
    data.pop("temperature_celsius", None)  # where there is a sensor
    assert data.keys() == {
        "last_5_min_load_percent",
        "memory_usage_percent",
        "disk_usage_percent",
        "disk_free_megabytes",
        "seconds_since_boot",
        "clock_synchronised",
    }
    assert all(isinstance(value, (int, float)) and value >= 0 for value in data.values())
    assert data["clock_synchronised"] in (0, 1)
    assert data["last_5_min_load_percent"] == state.system.last_5_min_load


def test_load_is_in_per_cent_of_all_cores(
    start: Callable[..., subprocess.Popen[str]], agent: MessagingAgent
) -> None:
    before = os.getloadavg()[1]
    start("system-checks", "import os; os.cpu_count = lambda: 50")
    wait_until(lambda: samples(agent))
    load = StateInterface.load().system.last_5_min_load
    low, high = sorted((before, os.getloadavg()[1]))  # it may rise or fall meanwhile
    assert load is not None and 0.7 * low * 100 / 50 - 0.5 <= load <= 1.3 * high * 100 / 50 + 0.5


def test_system_checks_keep_what_others_wrote_into_the_state(
    start: Callable[..., subprocess.Popen[str]], agent: MessagingAgent
) -> None:
    with StateInterface.update() as state:
        state.other = "kept"  # type: ignore[attr-defined]
    start("system-checks")
    wait_until(lambda: samples(agent))
    assert StateInterface.load().model_dump()["other"] == "kept"


@pytest.mark.parametrize(("disk", "warned"), [(90, 0), (91, 1)])
def test_a_full_disk_is_told_once(
    start: Callable[..., subprocess.Popen[str]], agent: MessagingAgent, disk: int, warned: int
) -> None:
    disk_is = f"mounts.disk = lambda *_: mounts.Disk({disk}, 10**6, 1, None, False)"
    start("system-checks", f"from ivy.utils.host import mounts; {disk_is}")
    wait_until(lambda: len(samples(agent)) >= 5)
    assert log_lines(agent) == ["system-checks - WARNING - The disk is 91 % full"] * warned


@pytest.mark.parametrize(("files", "warned"), [("None", 0), ("1000", 0), ("999", 1)])
def test_that_no_more_files_are_possible_is_told_once(
    start: Callable[..., subprocess.Popen[str]], agent: MessagingAgent, files: str, warned: int
) -> None:
    disk_is = f"mounts.disk = lambda *_: mounts.Disk(1, 10**12, 10**6, {files}, False)"
    start("system-checks", f"from ivy.utils.host import mounts; {disk_is}")
    wait_until(lambda: len(samples(agent)) >= 5)
    told = "system-checks - WARNING - The disk can take only 999 files more, whatever room there is"
    assert log_lines(agent) == [told] * warned


def test_that_a_boot_loses_the_data_is_told_once_between_two_boots(
    start: Callable[..., subprocess.Popen[str]], agent: MessagingAgent
) -> None:
    on_tmpfs = "from ivy.utils.host import mounts; mounts.lost_places = lambda: ['/data (tmpfs)']"
    for _ in range(2):
        seen = len(samples(agent))
        process = start("system-checks", on_tmpfs)
        wait_until(lambda seen=seen: len(samples(agent)) > seen)  # type: ignore[misc]
        process.terminate()
        process.communicate(timeout=80)
    [line] = log_lines(agent)
    assert line.startswith("system-checks - ERROR - What is stored here is lost at the next boot: /data (tmpfs)")


def test_where_nobody_was_told_that_a_boot_loses_the_data_it_is_told_later(
    node: Node, agent: MessagingAgent
) -> None:
    on_tmpfs = "from ivy.utils.host import mounts; mounts.lost_places = lambda: ['/data (tmpfs)']"
    for sections in ({}, {"backend": BACKEND}):
        node.write_config(**sections)
        seen = len(samples(agent))
        process = node.start("-c", run_hastily("system-checks", on_tmpfs))
        wait_until(lambda seen=seen: len(samples(agent)) > seen)  # type: ignore[misc]
        process.terminate()
        process.communicate(timeout=80)
    assert len(log_lines(agent)) == 1


class Ended(Exception):
    """Of a procedure that would go on for ever."""


def check(agent: MessagingAgent, rest: Callable[[float], None]) -> None:
    """Let the system checks work until they are `Ended` while they rest."""
    with pytest.MonkeyPatch.context() as patched, pytest.raises(Ended):
        patched.setattr(notify, "sleep", rest)
        patched.setattr(system_checks, "MessagingAgent", lambda: agent)
        system_checks.run(make_config(), Logger(make_config(), "system-checks"))


def end(_: float) -> None:
    raise Ended


def test_a_boot_time_that_jitters_is_not_written_again(agent: MessagingAgent) -> None:
    """A card bears only so many writes."""
    boot_time = vitals.boot_time()
    with StateInterface.update() as state:
        state.system.last_boot_time = boot_time - datetime.timedelta(seconds=1)
    check(agent, end)
    assert StateInterface.load().system.last_boot_time == boot_time - datetime.timedelta(seconds=1)
    with StateInterface.update() as state:
        state.system.last_boot_time = boot_time - datetime.timedelta(days=1)
    check(agent, end)
    found = StateInterface.load().system.last_boot_time
    assert found and abs(found - boot_time).total_seconds() < 5


@pytest.mark.parametrize("readings", [{}, {"cpu": []}])
def test_without_a_sensor_there_is_no_temperature(
    monkeypatch: pytest.MonkeyPatch, readings: dict[str, list[object]]
) -> None:
    monkeypatch.setattr(psutil, "sensors_temperatures", lambda: readings)
    assert vitals.temperature() is None


def test_system_checks_keep_house(start: Callable[..., subprocess.Popen[str]], agent: MessagingAgent) -> None:
    agent.add_message(DataMessageBody(data={"number": 1}))
    assert agent.database.run(contents.archived) == 0
    start("system-checks")
    wait_until(lambda: agent.database.run(contents.archived) > 0)  # although there is no backend
    wait_until(lambda: Path(ballast.BALLAST_FILE).exists())


def test_house_is_kept_between_checks_that_are_far_apart(
    agent: MessagingAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[float] = []
    now = 0.0

    def rest(seconds: float) -> None:
        nonlocal now
        now += seconds
        if now == 300:
            raise Ended

    monkeypatch.setattr("time.monotonic", lambda: now)
    monkeypatch.setattr(Housekeeper, "work", lambda _: done.append(now))
    monkeypatch.setattr(system_checks, "get_time_to_next_datapoint", lambda _: 150)
    check(agent, rest)
    assert done == [0, 60, 120, 150, 210, 270]
