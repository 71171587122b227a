"""`ivy.utils.host.clock`: whether anybody has set the clock."""

import importlib
import time
from pathlib import Path
from types import ModuleType

import pytest

from ivy import constants
from ivy.utils.host import clock, commands
from tests.support.helpers import Node

ASK = """
import sys
from ivy.utils.host import clock
sys.executable = "false"  # which asks the kernel
print(clock.is_synchronised())
"""
YES, NO = "0\n", "5\n"
"""What adjtimex(2) returns."""
NOTE = Path(constants.BACKEND_RUN_DIR, "clock-synchronised")


def started() -> ModuleType:
    """The clock, as a process that has just started knows it."""
    return importlib.reload(clock)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the kernel answers, one after the other."""
    answers: list[str] = []

    def run(command: list[str], **_: float) -> str:
        if command[0] == "timedatectl":
            raise commands.CommandError("timedatectl", 1, "")
        return answers.pop(0)

    monkeypatch.setattr(commands, "run", run)
    return answers


def test_the_kernel_is_asked_until_it_is(kernel: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    kernel += [NO, NO, YES]
    clock = started()
    answers = []
    for minute in range(5):
        now[0] = 60.0 * minute
        answers.append(clock.is_synchronised())
    assert answers == [False, False, True, True, True]


def test_who_hangs_is_asked_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever adds a message waits for it."""
    now, hung = [0.0], list[float]()

    def hang(command: list[str], *, timeout: float) -> str:
        now[0] += timeout
        hung.append(timeout)
        raise commands.CommandError(command[0], None, "")

    monkeypatch.setattr(commands, "run", hang)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    clock = started()
    for second in range(0, 86_400, 10):
        now[0] = max(now[0], float(second))
        assert clock.is_synchronised() is None
    assert 0 < sum(hung) < 0.01 * 86_400


def test_it_is_asked_once_a_minute(kernel: list[str]) -> None:
    kernel += [NO, YES]
    clock = started()
    assert [clock.is_synchronised() for _ in range(5)] == [False] * 5
    assert kernel == [YES]


def test_once_it_is_it_stays_so_until_the_next_boot(kernel: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "NOTES_DIR", constants.BACKEND_RUN_DIR)
    NOTE.parent.mkdir(parents=True)
    kernel += [YES]
    assert [started().is_synchronised() for _ in range(3)] == [True] * 3
    NOTE.write_text("another boot")
    kernel += [NO, YES]
    assert [started().is_synchronised() for _ in range(3)] == [False, True, True]


def test_a_procedure_leaves_no_note_for_the_others_and_believes_none(kernel: list[str]) -> None:
    """Whoever was taken over could else unmark the samples of all."""
    NOTE.parent.mkdir(parents=True)
    Path(constants.IVY_RUN_DIR).mkdir(exist_ok=True)
    kernel += [YES, NO]
    assert started().is_synchronised() is True
    assert not NOTE.exists() and not Path(constants.IVY_RUN_DIR, NOTE.name).exists()
    Path(constants.IVY_RUN_DIR, NOTE.name).write_text(clock.boot_id())
    assert started().is_synchronised() is False


def test_who_keeps_the_clock_is_believed(kernel: list[str]) -> None:
    Path(constants.IVY_RUN_DIR).mkdir(exist_ok=True)
    Path(constants.TIMESYNC_FLAG).touch()
    assert started().is_synchronised() is True


def test_that_it_was_set_is_noticed_at_once(kernel: list[str]) -> None:
    kernel += [NO]
    clock = started()
    assert clock.is_synchronised() is False
    Path(constants.IVY_RUN_DIR).mkdir(exist_ok=True)
    Path(constants.TIMESYNC_FLAG).touch()
    assert clock.is_synchronised() is True


def test_a_step_is_noticed_once_and_a_clock_that_is_moved_slowly_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    times = {"is": 100.0, "since boot": 10.0}
    monkeypatch.setattr(time, "time", lambda: times["is"])
    monkeypatch.setattr(time, "clock_gettime", lambda _: times["since boot"])
    monkeypatch.setattr(clock, "is_synchronised", lambda: None)
    watch = clock.Watch()
    watch.has_changed()
    seen = []
    for step in (0.0, 0.5, 1e6, 0.0, -30.0, 0.0):
        times["is"] += 5 + step
        times["since boot"] += 5
        seen.append(watch.has_changed())
    assert seen == [False, False, True, False, True, False]


def test_that_it_becomes_synchronised_is_noticed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [None, False, True, True]
    monkeypatch.setattr(clock, "is_synchronised", lambda: answers.pop(0))
    watch = clock.Watch()
    assert [watch.has_changed() for _ in range(4)][1:] == [False, True, False]


def test_without_a_place_for_the_note_it_is_asked_again(kernel: list[str]) -> None:
    kernel += [YES]
    assert started().is_synchronised() is True and not NOTE.parent.exists()


@pytest.mark.parametrize(
    ("answer", "meaning"), [("echo yes", "True"), ("echo no", "False"), ("echo what", "None"), ("exit 1", "None")]
)
def test_timedated_is_asked_where_nobody_else_may_be(node: Node, answer: str, meaning: str) -> None:
    node.fake("timedatectl", {"*": answer})
    assert node.python("-c", ASK).strip() == meaning
    assert node.calls() == ["timedatectl show --property=NTPSynchronized --value"]


def test_the_kernel_answers(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.fake("timedatectl", {"*": "exit 1"})
    monkeypatch.setenv("PATH", node.environment["PATH"])
    assert started().is_synchronised() in (True, False, None)


def test_no_library_is_loaded_late_to_ask_the_kernel(node: Node) -> None:
    """While Debian is upgraded under a service, it is another's than the Python's that runs: that crashes."""
    node.fake("timedatectl", {"*": "exit 1"})
    code = (
        "import sys\nfrom ivy.utils.host import clock, commands\nbefore = set(sys.modules)\nclock.is_synchronised()"
    )
    late = node.python("-c", f"{code}\nprint(*(str(sys.modules[name]) for name in set(sys.modules) - before))")
    assert ".so" not in late and "ctypes" not in late
