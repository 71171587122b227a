"""`ivy.utils.host.clock`: whether anybody has set the clock."""

from pathlib import Path

import pytest

from ivy import constants
from ivy.utils.host import clock
from tests.support.helpers import Node

ASK = """
from ivy.utils.host import clock
clock._kernel_says = lambda: None
print(clock.is_synchronised())
"""


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> list[bool | None]:
    """What the kernel answers, one after the other."""
    answers: list[bool | None] = []
    monkeypatch.setattr(clock, "_last_answer", None)
    monkeypatch.setattr(clock, "_next_question", float("-inf"))
    monkeypatch.setattr(clock, "_timedated_says", lambda: None)
    monkeypatch.setattr(clock, "_kernel_says", lambda: answers.pop(0))
    return answers


def test_the_kernel_is_asked_until_it_is(kernel: list[bool | None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "_SECONDS_BETWEEN_QUESTIONS", 0.0)
    kernel += [False, False, True]
    assert [clock.is_synchronised() for _ in range(5)] == [False, False, True, True, True]


def test_it_is_asked_once_a_minute(kernel: list[bool | None]) -> None:
    kernel += [False, True]
    assert [clock.is_synchronised() for _ in range(5)] == [False] * 5
    assert kernel == [True]


def test_once_it_is_it_stays_so_until_the_next_boot(
    kernel: list[bool | None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    Path(constants.IVY_RUN_DIR).mkdir()

    def answer_after_a_restart() -> bool | None:
        monkeypatch.setattr(clock, "_last_answer", None)
        monkeypatch.setattr(clock, "_next_question", float("-inf"))
        return clock.is_synchronised()

    kernel += [True]
    assert [answer_after_a_restart() for _ in range(3)] == [True] * 3
    boot = tmp_path / "boot"
    boot.write_text("another")
    monkeypatch.setattr(clock, "_BOOT_ID", boot)
    kernel += [False, True]
    assert [answer_after_a_restart() for _ in range(3)] == [False, True, True]


def test_without_a_place_for_the_note_it_is_asked_again(
    kernel: list[bool | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel += [True]
    assert clock.is_synchronised() is True and not Path(constants.IVY_RUN_DIR).exists()


@pytest.mark.parametrize(
    ("answer", "meaning"), [("echo yes", "True"), ("echo no", "False"), ("echo what", "None"), ("exit 1", "None")]
)
def test_timedated_is_asked_where_nobody_else_may_be(node: Node, answer: str, meaning: str) -> None:
    node.fake("timedatectl", {"*": answer})
    assert node.python("-c", ASK).strip() == meaning
    assert node.calls() == ["timedatectl show --property=NTPSynchronized --value"]


def test_the_kernel_answers() -> None:
    assert clock._kernel_says() in (True, False, None)


def test_no_library_is_loaded_late_to_ask_the_kernel(node: Node) -> None:
    """While Debian is upgraded under a service, it is another's than the Python's that runs: that crashes."""
    node.fake("timedatectl", {"*": "exit 1"})
    code = (
        "import sys\nfrom ivy.utils.host import clock, commands\nbefore = set(sys.modules)\nclock.is_synchronised()"
    )
    late = node.python("-c", f"{code}\nprint(*(str(sys.modules[name]) for name in set(sys.modules) - before))")
    assert ".so" not in late and "ctypes" not in late
