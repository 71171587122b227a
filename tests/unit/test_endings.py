"""How the end of a service is worded, and told to the operator; journal and systemd are fakes here."""

from pathlib import Path

import pytest

from ivy import constants
from ivy.types.messages import LogMessageBody
from ivy.utils.host import endings
from ivy.utils.messaging_agent import MessagingAgent
from tests.support.helpers import BACKEND, Node, record_end

UNIT = "ivy-wind.service"
TRACEBACK = r"""printf 'ValueError: no sensor\n  File "wind.py", line 3, in read\nValueError: no sensor\n'"""
HANG = r"""printf '%s\n' started '' 'Fatal Python error: Aborted' 'Current thread 0x1 (most recent call first):' \
    '  File "wind.py", line 7 in read' '  File "main.py", line 40 in run' '' \
    'Thread 0x2 (most recent call first):' '  File "other.py", line 1 in wait' '' 'Extension modules: x'"""
NAMES = {
    "*217": r"printf 'NAME STATUS CLASS\nUSER      217 systemd\n'",
    "*42": r"printf 'NAME STATUS CLASS\n-          42 -\n'",
    "*": "exit 1",
}


@pytest.fixture(autouse=True)
def named(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """What systemd calls exit statuses."""
    monkeypatch.setenv("PATH", node.environment["PATH"])
    node.fake("systemd-analyze", NAMES)
    node.fake("journalctl", {"*": ""})


@pytest.mark.parametrize(
    ("ending", "words"),
    [
        (("exit-code", "exited", "217"), "exit status 217 (USER)"),
        (("exit-code", "exited", "42"), "exit status 42"),
        (("exit-code", "exited", "5"), "exit status 5"),  # systemd does not answer
        (("success", "exited", "0"), "exit status 0"),
        (("signal", "killed", "KILL"), "signal KILL"),
        (("core-dump", "dumped", "SEGV"), "signal SEGV"),
        (("watchdog", "killed", "ABRT"), "watchdog, as it gave no sign of life, signal ABRT"),
        (("timeout", "", ""), "timeout, as it took too long to start or to stop"),
        (("oom-kill", "killed", "KILL"), "out of memory, signal KILL"),
        (("protocol", "exited", "217"), "protocol, exit status 217 (USER)"),
        (("", "", ""), "unknown"),
    ],
)
def test_an_ending_in_words(ending: tuple[str, str, str], words: str) -> None:
    assert endings.describe(*ending) == words


def test_an_ending_by_what_systemd_shows_of_a_unit() -> None:
    assert endings.of_properties({"Result": "signal", "ExecMainCode": "2", "ExecMainStatus": "11"}) == "signal SEGV"
    shown = {"Result": "exit-code", "ExecMainCode": "1", "ExecMainStatus": "217"}
    assert endings.of_properties(shown) == "exit status 217 (USER)"


@pytest.mark.parametrize(
    ("journal", "line"),
    [(TRACEBACK, "ValueError: no sensor"), (HANG, 'File "wind.py", line 7 in read'), ("exit 1", ""), ("true", "")],
)
def test_what_a_service_said_last(node: Node, journal: str, line: str) -> None:
    node.fake("journalctl", {"*_SYSTEMD_INVOCATION_ID=0a1b*": journal})
    assert endings.last_line("0a1b") == line


def test_nobody_is_asked_for_what_an_unknown_run_said(node: Node) -> None:
    node.fake("journalctl", {"*": "echo of another one"})
    assert endings.last_line("") == ""


def test_what_was_counted() -> None:
    record_end(UNIT, "exit-code:exited:217", seconds_ago=30, count=7, lasts=90)
    found = endings.record(UNIT)
    assert (
        found is not None and found.count == 7 and (found.ending, found.status) == ("exit status 217 (USER)", 217)
    )
    assert 30 <= found.age < 100 and found.seconds - found.age == 90


@pytest.mark.parametrize("content", ["", "1 2 3", "a b c d e:f:g", "1 2 3 4 exit-code"])
def test_what_was_not_counted(content: str) -> None:
    assert endings.record(UNIT) is None
    record_end(UNIT, "signal:killed:KILL")
    Path(constants.ENDS_DIR, UNIT).write_text(content)
    assert endings.record(UNIT) is None


def told() -> list[LogMessageBody]:
    agent = MessagingAgent()
    bodies = [item.message_body for item in agent.get_n_latest_messages(10, [])]
    agent.teardown()
    return [body for body in bodies if isinstance(body, LogMessageBody)]


@pytest.mark.parametrize(
    ("end", "words"),
    [
        ("exit-code:exited:217:1:0:0a1b", "exit status 217 (USER), time 1; it said last: ValueError: no sensor"),
        ("signal:killed:SEGV:57:10800:0a1b", "signal SEGV, time 57 in 3 h; it said last: ValueError: no sensor"),
        ("watchdog:killed:ABRT:2:61:", "watchdog, as it gave no sign of life, signal ABRT, time 2 in 61 s"),
        ("signal:killed:KILL", "signal KILL"),  # by units of an older release
        ("", "unknown"),
    ],
)
def test_the_end_of_a_service_reaches_the_operator(node: Node, end: str, words: str) -> None:
    node.write_config(backend=BACKEND)
    node.fake("journalctl", {"*_SYSTEMD_INVOCATION_ID=0a1b*": TRACEBACK})
    assert node.ivy("report-exit", f"{UNIT}:{end}")[0] == 0
    [message] = told()
    assert message.level == "ERROR"
    assert message.subject == f"supervision - ERROR - {UNIT} ended unexpectedly: {words}"


@pytest.mark.parametrize(("count", "is_last"), [(2, False), (3, True), (400, True)])
def test_the_operator_learns_that_not_every_end_will_be_told(node: Node, count: int, is_last: bool) -> None:
    node.write_config(backend=BACKEND)
    node.ivy("report-exit", f"{UNIT}:exit-code:exited:1:{count}:3:")
    [message] = told()
    assert ("once an hour" in message.body) is is_last


def test_the_end_of_a_loop_reaches_the_operator(node: Node) -> None:
    node.write_config(backend=BACKEND)
    node.fake("systemctl", {"show*": "echo ActiveState=active"})
    record_end(UNIT, "exit-code:exited:217", seconds_ago=900, count=57, lasts=10_800)
    assert node.ivy("report-exit", f"{UNIT}:over")[0] == 0
    [message] = told()
    assert (
        f"{UNIT} has not ended for 15 min, it is active; before, it had ended 57 times in 3 h: " in message.subject
    )
    assert message.subject.endswith("exit status 217 (USER)")


def test_of_what_was_not_counted_no_end_is_told(node: Node) -> None:
    node.write_config(backend=BACKEND)
    assert node.ivy("report-exit", f"{UNIT}:over") == (0, "", "")
    assert told() == []


def test_the_end_of_a_service_is_reported_without_systemd_too(node: Node) -> None:
    node.write_config(backend=BACKEND)
    node.environment["PATH"] = str(node.programs)
    for program in ("systemd-analyze", "journalctl"):
        (node.programs / program).unlink()
    status, output, _ = node.ivy("report-exit", f"{UNIT}:exit-code:exited:217:1:0:0a1b")
    assert status == 0 and "ended unexpectedly: exit status 217, time 1\n" in output


def test_without_a_config_there_is_nobody_to_report_to(node: Node, data_dir: Path) -> None:
    assert node.ivy("report-exit", UNIT) == (0, "", "")
    assert list(data_dir.iterdir()) == []
