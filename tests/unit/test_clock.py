"""`ivy.utils.clock`: whether anybody has set the clock."""

import pytest

from ivy.utils import clock
from tests.unit.helpers import Node

ASK = """
from ivy.utils import clock
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


@pytest.mark.parametrize(
    ("answer", "meaning"), [("echo yes", "True"), ("echo no", "False"), ("echo what", "None"), ("exit 1", "None")]
)
def test_timedated_is_asked_where_nobody_else_may_be(node: Node, answer: str, meaning: str) -> None:
    node.fake("timedatectl", {"*": answer})
    assert node.python("-c", ASK).strip() == meaning
    assert node.calls() == ["timedatectl show --property=NTPSynchronized --value"]


def test_the_kernel_answers() -> None:
    assert clock._kernel_says() in (True, False, None)
