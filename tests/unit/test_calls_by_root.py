"""What root makes of a remote call, which a backend that was taken over may have written; see ivy.cli.call."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ivy import constants
from ivy.types import calls
from ivy.utils import notify
from ivy.utils.host import busy, hold, waiting
from tests.support.helpers import BACKEND, CONFIG, Node, make_release
from tests.unit.archives import Ivy
from tests.unit.procedures import in_minutes, say_busy

TOKEN = "0123456789abcdef"


@pytest.fixture(autouse=True)
def programs(node: Node, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Replaces what root runs: by what it prints, or a line of shell."""
    monkeypatch.setenv("PATH", node.environment["PATH"])
    for directory in (constants.BACKEND_RUN_DIR, constants.ANSWERS_DIR):
        Path(directory).mkdir(parents=True)

    def be(**actions: str) -> None:
        for program in ("ivy", "journalctl", "systemctl"):
            node.fake(
                program,
                {
                    "*": actions.get(
                        program,
                        "echo said by",
                    )
                },
            )

    be()
    return be


@pytest.fixture
def ask(node: Node, ivy: Ivy) -> Callable[..., dict[str, Any]]:
    """Leaves word of a call, and returns the answer. Without parameters nothing is left but what is there."""

    def ask(method: str, params: Any = None) -> dict[str, Any]:
        flag = Path(f"{constants.CALL_FLAG}{method}")
        flag.write_text(json.dumps({"token": TOKEN, "params": {} if params is None else params}))
        assert ivy("call", method)[0] == 0
        assert not os.path.lexists(flag), "it would be done again and again"
        found = json.loads(Path(constants.ANSWERS_DIR, method).read_text())
        assert found["token"] == TOKEN
        answer: dict[str, Any] = found["answer"]
        return answer

    return ask


def _let_pass(method: str, seconds: int) -> None:
    note = Path(constants.ANSWERS_DIR, f"{method}.began")
    note.write_text(str(float(note.read_text()) - seconds))


def test_logs(ask: Callable[..., dict[str, Any]], node: Node, programs: Callable[..., None]) -> None:
    programs(journalctl="printf 'first\\nsecond\\n'")
    said = {"success": True, "result": {"lines": ["first", "second"]}}
    assert ask("logs", {"name": "system-checks", "lines": 200}) == said
    assert ask("logs") == said
    form = "journalctl --unit={} --lines={} --utc --output=short-iso --no-hostname --no-pager --quiet"
    assert node.calls() == [form.format("ivy-system-checks.service", 200), form.format("ivy-*.service", 50)]


@pytest.mark.parametrize(
    ("method", "params", "complaint"),
    [
        ("logs", {"name": "ssh"}, '"name": there is no service "ssh"'),
        ("logs", {"name": "system-check"}, "(did you mean system-checks"),
        ("logs", {"name": "../x"}, '"name" must be'),
        ("logs", {"name": "--file=/etc/shadow"}, '"name" must be'),
        ("logs", {"lines": 201}, '"lines" must be an integer from 1 to 200'),
        ("logs", {"lines": "1; reboot"}, '"lines" must be'),
        ("logs", {"unit": "ssh"}, 'there is no parameter "unit"'),
        ("resend", {}, '"since" is missing'),
        ("resend", {"since": "nonsense"}, '"since" must look like'),
        ("resend", {"since": "-2h", "until": "$(reboot)"}, '"until" must be a time'),
        ("resend", {"since": "-2h", "key": ["--cancel"]}, 'there is no parameter "key"'),
        ("rollback", {"version": "0.9"}, "rollback takes no parameters"),
        ("reboot", {"force": True}, "reboot takes no parameters"),
    ],
)
def test_root_checks_again(
    ask: Callable[..., dict[str, Any]], node: Node, method: str, params: Any, complaint: str
) -> None:
    answer = ask(method, params)
    assert answer["success"] is False
    assert complaint in answer["error"]
    assert node.calls() == []


def _directory(flag: Path) -> None:
    (flag / "inner").mkdir(parents=True)
    (flag / "inner" / "file").touch()


def _link_to_a_secret(flag: Path) -> None:
    secret = flag.with_name("secret")
    secret.write_text(json.dumps({"token": TOKEN, "params": {}}))
    flag.symlink_to(secret)


@pytest.mark.parametrize(
    "leave",
    [
        _directory,
        _link_to_a_secret,
        os.mkfifo,
        lambda flag: flag.write_bytes(b"\xff" * 100),
        lambda flag: flag.write_text("x" * (calls.LARGEST_REQUEST + 1)),
        lambda flag: flag.write_text("[" * 4000),
        lambda flag: flag.write_text("{}"),
        lambda flag: flag.write_text('{"token":"../../etc/x","params":{}}'),
        lambda flag: flag.write_text(f'{{"token":"{TOKEN}","params":[]}}'),
        lambda flag: flag.write_text(f'{{"token":"{TOKEN}","params":{{}},"x":NaN}}'),
    ],
    ids=["directory", "link", "pipe", "bytes", "large", "deep", "empty", "token", "list", "more"],
)
@pytest.mark.parametrize("method", ["logs", "reboot"])
def test_what_is_no_call_is_removed_and_nothing_done(
    ivy: Ivy, node: Node, method: str, leave: Callable[[Path], object]
) -> None:
    flag = Path(f"{constants.CALL_FLAG}{method}")
    leave(flag)
    assert ivy("call", method)[0] == 0
    assert not os.path.lexists(flag)
    assert node.calls() == []
    assert os.listdir(constants.ANSWERS_DIR) == []


@pytest.mark.parametrize("method", ["run", "ping", "../x", ""])
def test_root_does_nothing_else(ivy: Ivy, node: Node, method: str) -> None:
    assert ivy("call", method)[0] == 2
    assert node.calls() == []


def test_doctor_names_first_what_is_not_well(
    ask: Callable[..., dict[str, Any]], programs: Callable[..., None], node: Node
) -> None:
    findings = [{"check": str(number), "text": "", "remedy": "", "ok": number != 3} for number in range(5)]
    programs(ivy=f"echo '{json.dumps(findings)}'; exit 1")
    result = ask("doctor")["result"]
    assert (result["well"], result["checks"], result["bad"]) == (False, 5, 1)
    assert [finding["check"] for finding in result["findings"]] == ["3", "0", "1", "2", "4"]
    assert node.calls() == ["ivy doctor --json"]


@pytest.mark.parametrize("said", ["echo nonsense", "exit 3", "echo it is broken >&2; exit 3", "kill $$"])
def test_a_command_that_fails_is_told(
    ask: Callable[..., dict[str, Any]], programs: Callable[..., None], said: str
) -> None:
    programs(ivy=said)
    answer = ask("doctor")
    assert answer["success"] is False
    assert answer["error"]


def test_resend(ask: Callable[..., dict[str, Any]], node: Node, programs: Callable[..., None]) -> None:
    programs(ivy="echo 3 messages are sent again")
    answer = ask("resend", {"since": "-2h", "until": "2026-11-20T14:30"})
    assert answer == {"success": True, "result": "3 messages are sent again"}
    programs(ivy="echo 'ivy: others are sent again' >&2; exit 1")
    _let_pass("resend", 60)
    assert ask("resend", {"since": 1_700_000_000}) == {"success": False, "error": "others are sent again"}
    times = ["--since=-2h --until=2026-11-20T14:30", "--since=2023-11-14T22:13:20+00:00"]
    assert node.calls() == [f"ivy resend {given}" for given in times]


@pytest.mark.parametrize(("method", "is_refused"), [("rollback", 1), ("reboot", 1), ("update_now", 1), ("logs", 0)])
def test_what_somebody_holds_no_operator_changes(
    ask: Callable[..., dict[str, Any]], node: Node, method: str, is_refused: bool
) -> None:
    hold.write("paint", 600, stop=False)
    answer = ask(method)
    assert answer["success"] is not bool(is_refused)
    if is_refused:
        assert answer["error"].startswith("this node is held until ") and node.calls() == []


def test_rollback(ask: Callable[..., dict[str, Any]], node: Node, programs: Callable[..., None]) -> None:
    programs(ivy="echo 'ivy: there is nothing to go back to' >&2; exit 2")
    assert ask("rollback") == {"success": False, "error": "there is nothing to go back to"}
    assert node.calls() == ["ivy rollback"]


@pytest.mark.parametrize(
    ("state", "status", "done"),
    [
        ("inactive", "", "start"),
        ("failed", "", "start"),
        ("activating", "", None),
        ("active", "waiting, because the admin holds the lock", None),
        ("active", "waiting for version 1.2.3", "restart"),
    ],
)
def test_update_now(
    ask: Callable[..., dict[str, Any]],
    node: Node,
    programs: Callable[..., None],
    state: str,
    status: str,
    done: str | None,
) -> None:
    programs(systemctl=f"printf 'ActiveState={state}\\nStatusText={status}\\n'")
    answer = ask("update_now")
    assert answer["success"] and answer["result"].startswith("begun" if done else "a pass is under way")
    asked = [call for call in node.calls() if " show " not in call]
    assert asked == ([f"systemctl --no-block {done} -- ivy-updater.service"] if done else [])


@pytest.mark.parametrize("method", [name for name, method in calls.METHODS.items() if method.pause])
def test_root_keeps_the_pauses(
    ask: Callable[..., dict[str, Any]], method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    _boot(monkeypatch, 100_000)
    params = {"since": "-2h"} if method == "resend" else {}
    ask(method, params)
    second = ask(method, params)
    assert second["success"] is False and second["error"].startswith("too soon")
    _let_pass(method, calls.METHODS[method].pause)
    assert not ask(method, params).get("error", "").startswith("too soon")


def _boot(monkeypatch: pytest.MonkeyPatch, seconds_ago: float) -> None:
    """As if systemd were started then."""
    ticks = (time.clock_gettime(time.CLOCK_BOOTTIME) - seconds_ago) * os.sysconf("SC_CLK_TCK")
    fields = ["1", "(a ) b)", "S", *["0"] * 18, f"{ticks:.0f}", *["0"] * 30]
    whole = Path.read_text

    def read_text(path: Path, *arguments: Any, **options: Any) -> str:
        return " ".join(fields) if path == Path("/proc/1/stat") else whole(path, *arguments, **options)

    monkeypatch.setattr(Path, "read_text", read_text)


@pytest.mark.parametrize("is_active", [True, False])
def test_a_reboot_waits_for_who_is_not_to_be_disturbed(
    ask: Callable[..., dict[str, Any]], node: Node, monkeypatch: pytest.MonkeyPatch, is_active: bool
) -> None:
    Path(constants.UPDATER_RUN_DIR).mkdir(parents=True)
    _boot(monkeypatch, 100_000)
    said: list[str | None] = []

    def sleep(_seconds: float) -> None:
        wait = waiting.look()
        assert wait and "systemctl reboot" not in node.calls()
        said.append(f"{wait.what} waits for {wait.procedures}")
        say_busy("co2", 0)

    monkeypatch.setattr(time, "sleep", lambda _: None)
    monkeypatch.setattr(notify, "sleep", sleep)
    monkeypatch.setattr(busy, "clock_time", in_minutes)
    say_busy("co2", 600)
    state = "active" if is_active else "inactive"
    node.fake("systemctl", {"show*co2*": f"echo Id=ivy-co2.service; echo ActiveState={state}"})
    answer = ask("reboot")
    assert answer["success"] and node.calls()[-1] == "systemctl reboot"
    assert said == (["reboot waits for ['co2']"] if is_active else [])
    assert ("when it may disturb co2 until +10 min, or in two hours" in answer["result"]) is is_active
    assert waiting.look() is None


def test_a_reboot_waits_for_nobody_for_longer_than_two_hours(
    ask: Callable[..., dict[str, Any]], node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor where systemd does not say how a procedure is."""
    Path(constants.UPDATER_RUN_DIR).mkdir(parents=True)
    _boot(monkeypatch, 100_000)
    began = now = float(int(busy.now()))  # sums of whole seconds are exact

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        say_busy("co2", 600)

    monkeypatch.setattr(time, "sleep", lambda _: None)
    monkeypatch.setattr(notify, "sleep", sleep)
    monkeypatch.setattr(busy, "now", lambda: now)
    say_busy("co2", 600)
    node.fake("systemctl", {"show*co2*": "echo Id=ivy-co2.service; echo ActiveState=active"})
    assert ask("reboot")["success"] and node.calls()[-1] == "systemctl reboot"
    assert busy.MOST_SECONDS <= now - began < busy.MOST_SECONDS + 60
    _let_pass("reboot", 600)
    node.fake("systemctl", {"show*co2*": "exit 1"})
    assert ask("reboot")["success"] and node.calls()[-1] == "systemctl reboot"


@pytest.mark.parametrize(("seconds", "is_done"), [(30, False), (590, False), (601, True)])
def test_a_machine_is_rebooted_once_in_ten_minutes(
    ask: Callable[..., dict[str, Any]], node: Node, monkeypatch: pytest.MonkeyPatch, seconds: int, is_done: bool
) -> None:
    """Whatever its clock says, and whoever rebooted it last."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    _boot(monkeypatch, seconds)
    answer = ask("reboot")
    assert answer["success"] is is_done
    assert node.calls() == (["systemctl reboot"] if is_done else [])
    assert (max(slept, default=0) >= 1) is is_done, "the answer is to be sent before"
    if not is_done:
        assert "too soon: there are at least 10 minutes between two" in answer["error"]


def test_secrets_are_hidden_in_all_spellings(
    ask: Callable[..., dict[str, Any]], programs: Callable[..., None], root_dir: Path
) -> None:
    make_release(root_dir / "1.0.0")
    (root_dir / "current").symlink_to("1.0.0")
    config = root_dir / "1.0.0" / "config"
    mqtt = {**BACKEND["mqtt_connection"], "username": "***", "password": "a-literal-one"}
    backend = {**BACKEND, "mqtt_connection": mqtt}
    (config / "config.json").write_text(json.dumps({**CONFIG, "backend": backend}))
    kept = {"backend": {"mqtt_connection": {"username": 'pa"ss /word', "password": "ab"}}}
    (config / "secrets.json").write_text(json.dumps({"0" * 64: kept}))
    (root_dir / ".env").write_text("export GIT_TOKEN='of-the-environment'\nLANG=C.UTF-8\n")
    lines = [
        'pa"ss /word',
        "of pa%22ss%20%2Fword and a-literal-one",
        "ab, but not about",
        "of-the-environment C.UTF-8",
        "https://user:who@example.org/x",
    ]
    output = root_dir / "output"
    output.write_text("\n".join([*lines, json.dumps(lines[0])]))
    programs(journalctl=f"cat {output}")
    assert ask("logs")["result"]["lines"] == [
        "***",
        "of *** and ***",
        "***, but not about",
        "*** C.UTF-8",
        "https://***@example.org/x",
        '"***"',
    ]


def test_many_long_lines_are_cut(ask: Callable[..., dict[str, Any]], programs: Callable[..., None]) -> None:
    programs(journalctl="yes é | head -c 40000 | tr -d '\\n' | sed 's/$/\\n/'; seq 1 30000")
    answer = ask("logs", {"lines": 200})
    assert answer["result"]["lines"] == [str(number) for number in range(29_801, 30_001)]
    programs(journalctl="yes $(seq 1 2000) | head -n 200")
    answer = ask("logs", {"lines": 200})
    assert len(calls.encoded(answer)) <= calls.LARGEST_ANSWER
    assert answer["result"]["left_out"] > 100
    assert {len(line) for line in answer["result"]["lines"]} == {2000}
