"""`ivy.utils.clock`: whether anybody has set the clock."""

from pathlib import Path

import pytest

from ivy.utils import clock


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[bool | None]:
    """What the kernel answers, one after the other; there is no timesyncd."""
    answers: list[bool | None] = []
    monkeypatch.setattr(clock, "_was_synchronised", False)
    monkeypatch.setattr(clock, "_kernel_says", lambda: answers.pop(0))
    monkeypatch.setattr(clock, "_TIMESYNCD", str(tmp_path / "timesync"))
    return answers


def test_the_kernel_is_asked_until_it_is(kernel: list[bool | None]) -> None:
    kernel += [False, False, True]
    assert [clock.is_synchronised() for _ in range(5)] == [False, False, True, True, True]


def test_where_the_kernel_may_not_be_asked_timesyncd_tells(kernel: list[bool | None], tmp_path: Path) -> None:
    kernel += [None, None, None]
    assert clock.is_synchronised() is None  # somebody else keeps the clock, or nobody
    (tmp_path / "timesync").mkdir()
    assert clock.is_synchronised() is False
    (tmp_path / "timesync" / "synchronized").touch()
    assert clock.is_synchronised() is True and kernel == []


def test_the_kernel_answers() -> None:
    assert clock._kernel_says() in (True, False, None)
