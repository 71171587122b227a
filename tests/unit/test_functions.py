"""`ivy.utils.functions` and `ivy.utils.host.locks`: what procedures and backends share."""

import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ivy import constants
from ivy.types.config import LogLevel
from ivy.utils.functions import get_time_to_next_datapoint, log_level_is_visible, with_automation_lock
from ivy.utils.host.locks import file_lock
from tests.support.helpers import Node

LEVELS: tuple[LogLevel, ...] = get_args(LogLevel)


def test_levels_are_visible_from_the_least_on() -> None:
    for number, least in enumerate(LEVELS):
        visible = [level for level in LEVELS if log_level_is_visible(least, level)]
        assert visible == list(LEVELS[number:])


def test_without_a_least_level_nothing_is_visible() -> None:
    assert not any(log_level_is_visible(None, level) for level in LEVELS)


@given(st.floats(0, 2**32), st.integers(1, 7200))
@example(86399.9999999, 7)
@example(86400.0, 10)
def test_sampling_times_are_counted_from_midnight(now: float, interval: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: now)
        wait = get_time_to_next_datapoint(interval)
    assert 0 < wait <= interval
    second_of_day = (now % 86400) + wait
    is_midnight = abs(second_of_day - 86400) < 1e-6
    assert is_midnight or abs(second_of_day / interval - round(second_of_day / interval)) < 1e-6


def test_the_example_of_the_specification(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 12 * 3600 + 3.0)
    assert get_time_to_next_datapoint(10) == 7


HOLD = "import sys; from {} import *\nwith {}: print('held', flush=True); sys.stdin.read()"


def test_the_installation_is_changed_by_one_at_a_time(node: Node) -> None:
    holder = node.start("-c", HOLD.format("ivy.utils.functions", "with_automation_lock()"))
    assert holder.stdout and holder.stdout.readline() == "held\n"
    said = rf"^process {holder.pid} \(.+\) is changing this installation"
    with pytest.raises(TimeoutError, match=said), with_automation_lock():
        pass
    holder.kill()
    holder.wait()
    with with_automation_lock():
        pass


def test_nobody_else_can_hold_the_lock_of_the_installation() -> None:
    """Whoever can open a file for reading can lock it."""
    lock = Path(constants.IVY_RUN_DIR, "automation.lock")
    lock.parent.mkdir()
    lock.touch(0o644)  # as earlier versions made it
    with with_automation_lock():
        assert stat.S_IMODE(lock.stat().st_mode) == 0o600


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/etc/passwd")])
def test_what_is_no_file_locks_nobody_out(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path / "lock")
    with file_lock(str(tmp_path / "lock"), 0):
        pass
    assert stat.S_ISREG((tmp_path / "lock").lstat().st_mode)


def test_a_lock_ends_with_its_holder(node: Node, tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    holder = node.start("-c", HOLD.format("ivy.utils.host.locks", f"file_lock({path!r}, 0)"))
    assert holder.stdout and holder.stdout.readline() == "held\n"
    said = f"{path} is locked by process {holder.pid} "
    with pytest.raises(TimeoutError, match=said), file_lock(path, timeout=0.05):
        pass
    holder.kill()
    with file_lock(path, timeout=20):
        pass
