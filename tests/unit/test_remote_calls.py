"""What an operator may ask of a node over the backend, and what not; root is played by the tests."""

import json
import math
import os
import re
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ivy import constants, files
from ivy.backend.delays import Delays
from ivy.backend.dialect import Publication, Request
from ivy.backend.rpc import Calls
from ivy.types import calls
from ivy.utils.functions import procedure_names
from ivy.utils.host import busy, hold
from ivy.utils.messaging_agent import MessagingAgent
from tests.support.helpers import Node
from tests.unit.procedures import in_minutes, say_busy

METHODS_OF_ROOT: dict[str, Any] = {
    "logs": {"name": "system-checks", "lines": 7},
    "doctor": None,
    "resend": {"since": "-2h", "until": 1_700_000_000},
    "update_now": {},
    "rollback": "",
    "reboot": [],
}


@pytest.fixture(autouse=True)
def path_unit(node: Node, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Lets systemd say how the path units are."""
    monkeypatch.setenv("PATH", node.environment["PATH"])

    def be(state: str) -> None:
        node.fake("systemctl", {"show*ivy-*.path": f"echo ActiveState={state}"})

    be("active")
    return be


class Caller:
    """An operator, by the calls of one connection."""

    def __init__(self, agent: MessagingAgent, largest_packet: float = math.inf, **delays: float) -> None:
        self.calls = Calls(
            lambda: {"queued": 1},
            agent,
            "thingsboard",
            lambda: largest_packet,
            Delays(**{"between_calls": 0, "between_late_looks": 0.1, **delays}),
        )

    def ask(self, method: str, params: Any = None) -> dict[str, Any] | None:
        """What is answered at once, if anything is."""
        return _said(self.calls.take(Request("t", method, params)))

    def answer(self) -> dict[str, Any] | None:
        """What is answered later, once it is."""
        deadline = time.monotonic() + 20
        while (said := _said(self.calls.answers())) is None and self.calls.seconds_until_due() < math.inf:
            assert time.monotonic() < deadline
            time.sleep(self.calls.seconds_until_due())
        return said


def _said(publications: list[Publication]) -> dict[str, Any] | None:
    for publication in publications:
        assert (publication.topic, publication.message_ids) == ("t", ())
        answer: dict[str, Any] = json.loads(publication.payload)
        return answer
    return None


@pytest.fixture
def caller(agent: MessagingAgent) -> Caller:
    """An operator who waits for an answer for as long as platforms do."""
    return Caller(agent)


def _asked(method: str) -> calls.Asked:
    """What root finds; it takes the flag away."""
    flag = f"{constants.CALL_FLAG}{method}"
    asked = calls.Asked.model_validate_json(files.read(flag))
    os.unlink(flag)
    return asked


def _root_answers(method: str, answer: dict[str, Any]) -> None:
    path = Path(constants.ANSWERS_DIR, method)
    path.parent.mkdir(exist_ok=True)
    path.write_text(calls.Answered(token=_asked(method).token, answer=answer).model_dump_json())


def _restarted(seconds_ago: float) -> None:
    """As units/ivy-restart leaves it."""
    note = Path(constants.RESTARTED_DIR, "system-checks")
    note.parent.mkdir(parents=True)
    note.write_text(f"{time.clock_gettime(time.CLOCK_BOOTTIME) - seconds_ago:.0f}\n")


def _ask(method: str, params: Any = None) -> dict[str, Any]:
    agent = MessagingAgent()
    answer = Caller(agent).ask(method, params)
    agent.teardown()
    assert answer is not None
    return answer


def _flags() -> list[str]:
    return sorted(path.name for path in Path(constants.BACKEND_RUN_DIR).glob("*"))


def test_ping() -> None:
    assert _ask("ping") == {"success": True, "result": "pong"}


def test_status() -> None:
    assert _ask("status") == {"success": True, "result": {"queued": 1}}


@pytest.mark.parametrize("params", ["system-checks", {"name": "system-checks"}])
def test_restart_leaves_word(params: Any) -> None:
    assert _ask("restart", params) == {"success": True, "result": "system-checks is being restarted"}
    assert _flags() == ["restart-system-checks"]


def test_who_is_not_to_be_disturbed_is_restarted_later_and_the_answer_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(busy, "clock_time", in_minutes)
    say_busy("system-checks", 600)
    text = "system-checks is restarted later: it is not to be disturbed until +10 min"
    assert _ask("restart", "system-checks") == {"success": True, "result": text}
    assert _flags() == ["restart-system-checks"]


def test_nothing_is_restarted_while_somebody_holds_the_node() -> None:
    hold.write("paint", 600, stop=False)
    answer = _ask("restart", "system-checks")
    assert not answer["success"] and answer["error"].startswith("this node is held until ")
    assert _flags() == []


def test_restarts_of_a_procedure_have_a_pause_and_the_answer_says_so() -> None:
    _restarted(20)
    answer = _ask("restart", "system-checks")
    assert answer["success"] is False
    assert re.search(r"again in (40|39|38) s", answer["error"])
    assert "restart-system-checks" not in _flags()


def test_after_the_pause_it_is_restarted_again() -> None:
    _restarted(constants.SECONDS_BETWEEN_RESTARTS + 1)
    assert _ask("restart", "system-checks")["success"] is True


@pytest.mark.parametrize("state", ["failed", "inactive"])
def test_where_nobody_would_see_to_it_the_answer_says_so(path_unit: Callable[[str], None], state: str) -> None:
    path_unit(state)
    answer = _ask("restart", "system-checks")
    assert answer == {"success": False, "error": f"nobody would see to it: ivy-restart.path is {state}"}
    assert _flags() == []


@pytest.mark.parametrize(
    "params",
    [
        None,
        "",
        "tenta",
        "updater",
        "../x",
        "system_checks",
        ["system-checks"],
        {},
        {"name": {}},
        "system-checks\n",
    ],
)
def test_nothing_else_is_restarted(params: Any) -> None:
    answer = _ask("restart", params)
    assert answer["success"] is False
    assert ", ".join(procedure_names()) in answer["error"]
    assert _flags() == []


@pytest.mark.parametrize("method", ["", "__init__", "PING", "restart ", "eval", "run", "x" * 100, "\ud800"])
def test_there_is_no_other_method(method: str) -> None:
    answer = _ask(method, "system-checks")
    assert answer["success"] is False
    assert answer["error"].startswith("there is no such method")
    assert answer["error"].endswith(f"there are {', '.join(calls.METHODS)}")
    assert _flags() == []


@pytest.mark.parametrize(
    ("method", "near"), [("rebot", "reboot"), ("update-now", "update_now"), ("Log", "logs"), ("exec", None)]
)
def test_the_nearest_methods_are_named(method: str, near: str | None) -> None:
    found = re.search(r"\(did you mean (.*)\?\)", _ask(method)["error"])
    assert (found[1].split(" or ")[0] if found else None) == near


@pytest.mark.parametrize("method", ["list", "help"])
def test_all_methods_are_listed_with_their_parameters(method: str) -> None:
    listed = {each["method"]: each for each in _ask(method)["result"]["methods"]}
    assert listed.keys() == calls.METHODS.keys()
    assert listed["logs"]["params"].keys() == {"name", "lines"}
    assert "1 to 200" in listed["logs"]["params"]["lines"]
    assert listed["ping"]["params"] == {}
    assert all(each["does"] for each in listed.values())


@pytest.mark.parametrize("method", list(METHODS_OF_ROOT))
def test_root_is_asked_and_its_answer_passed_on(caller: Caller, method: str) -> None:
    assert caller.ask(method, METHODS_OF_ROOT[method]) is None
    assert _flags() == [f"call-{method}"]
    _root_answers(method, {"success": True, "result": "as root says"})
    assert caller.answer() == {"success": True, "result": "as root says"}
    assert caller.calls.seconds_until_due() == math.inf


def test_root_gets_what_was_given_in_one_form(caller: Caller) -> None:
    for method, params in METHODS_OF_ROOT.items():
        assert caller.ask(method, params) is None
    assert _asked("logs").params == {"name": "system-checks", "lines": 7}
    assert _asked("resend").params == {"since": "-2h", "until": "2023-11-14T22:13:20+00:00"}
    assert _asked("reboot").params == {}


BAD: list[tuple[str, Any, str]] = [
    ("logs", {"lines": 201}, '"lines" must be an integer from 1 to 200'),
    ("logs", {"lines": 0}, '"lines" must be'),
    ("logs", {"lines": -1}, '"lines" must be'),
    ("logs", {"lines": "5"}, '"lines" must be'),
    ("logs", {"lines": True}, '"lines" must be'),
    ("logs", {"lines": 1e300}, '"lines" must be'),
    ("logs", {"lines": [5]}, '"lines" must be'),
    ("logs", {"name": "../../etc/passwd"}, '"name" must be'),
    ("logs", {"name": "-f"}, '"name" must be'),
    ("logs", {"name": "*"}, '"name" must be'),
    ("logs", {"name": "system_checks"}, '"name" must be'),
    ("logs", {"name": "a\n"}, '"name" must be'),
    ("logs", {"name": None}, '"name" must be'),
    ("logs", {"name": "x" * 5000}, '"name" must be'),
    ("logs", {"name": "sytem-checks"}, "(did you mean system-checks"),
    (
        "logs",
        {"nme": "system-checks"},
        'there is no parameter "nme" (did you mean name?); logs takes "name" and "lines"',
    ),
    ("logs", "system-checks", '"params" must be an object with "name" and "lines"'),
    ("logs", ["system-checks"], '"params" must be'),
    ("logs", 7, '"params" must be'),
    ("resend", {}, '"since" is missing'),
    ("resend", {"until": "-2h"}, '"since" is missing'),
    ("resend", {"since": True}, '"since" must be a time'),
    ("resend", {"since": "2026-11-20 && reboot"}, '"since" must be a time'),
    ("resend", {"since": float("nan")}, '"since" must be a time'),
    ("resend", {"since": 1_700_000_000_000}, '"since" must be a time'),
    ("resend", {"since": -1}, '"since" must be a time'),
    ("resend", {"since": "-2h", "until": {}}, '"until" must be a time'),
    ("reboot", {"now": True}, 'there is no parameter "now"; reboot takes no parameters'),
    ("reboot", "now", "reboot takes no parameters"),
    ("doctor", {"\ud800": 1}, "doctor takes no parameters"),
    ("rollback", {"version": "1.0.0"}, "rollback takes no parameters"),
    ("update_now", {"url": "http://x"}, "update_now takes no parameters"),
]


@pytest.mark.parametrize(("method", "params", "complaint"), BAD)
def test_a_bad_parameter_is_named_and_root_not_asked(method: str, params: Any, complaint: str) -> None:
    answer = _ask(method, params)
    assert answer["success"] is False
    assert complaint in answer["error"]
    assert len(answer["error"]) < 1000
    assert _flags() == []


def test_one_call_of_a_method_at_a_time(caller: Caller) -> None:
    assert caller.ask("doctor") is None
    second = caller.ask("doctor")
    assert second is not None and "doctor is under way" in second["error"]
    assert caller.ask("logs") is None, "another method is nothing to it"
    _root_answers("doctor", {"success": True, "result": {}})
    assert caller.answer() == {"success": True, "result": {}}
    assert caller.ask("doctor") is None


def test_root_is_not_asked_for_the_same_without_a_pause(agent: MessagingAgent) -> None:
    caller = Caller(agent, between_calls=600)
    assert caller.ask("logs") is None
    _root_answers("logs", {"success": True, "result": 1})
    caller.answer()
    second = caller.ask("logs")
    assert second is not None and "ask again in" in second["error"]
    assert _flags() == []


@pytest.mark.parametrize("said", ["", "nonsense", '{"token":"0123456789abcdef","answer":{"success":true}}', "[]"])
def test_what_answers_another_call_is_no_answer(agent: MessagingAgent, said: str) -> None:
    caller = Caller(agent, to_answer=0)
    Path(constants.ANSWERS_DIR).mkdir()
    Path(constants.ANSWERS_DIR, "doctor").write_text(said)
    assert caller.ask("doctor") is None
    answer = caller.answer()
    assert answer is not None and answer["result"].startswith("begun")


@pytest.mark.parametrize("is_done", [True, False])
def test_what_takes_longer_is_begun_and_told_by_a_message(agent: MessagingAgent, is_done: bool) -> None:
    caller = Caller(agent, to_answer=0)
    assert caller.ask("rollback") is None
    answer = caller.answer()
    assert answer is not None and answer["success"] and answer["result"].startswith("begun")
    again = caller.ask("rollback")
    assert again is not None and "is under way" in again["error"]
    said = {"success": True, "result": "back at 1.0.0"} if is_done else {"success": False, "error": "no way back"}
    _root_answers("rollback", said)
    assert caller.answer() is None, "nobody waits for it any more"
    [message] = agent.get_n_latest_messages(9)
    body = message.message_body
    assert body.variant == "log"
    words = ("INFO", "done", "back at 1.0.0") if is_done else ("ERROR", "failed", "no way back")
    assert (body.level, body.subject.endswith(words[1]), body.body) == (words[0], True, words[2])


def test_what_the_queue_does_not_take_is_told_when_it_does(agent: MessagingAgent) -> None:
    class Queue(MessagingAgent):
        troubles = 2

        def add_message(self, *arguments: Any, **options: Any) -> None:
            if self.troubles:
                self.troubles -= 1
                raise sqlite3.OperationalError("disk I/O error")
            super().add_message(*arguments, **options)

    queue = Queue()
    caller = Caller(queue, to_answer=0)
    caller.ask("doctor")
    caller.answer()
    _root_answers("doctor", {"success": True, "result": "all is well"})
    assert caller.answer() is None
    queue.teardown()
    [message] = agent.get_n_latest_messages(9)
    assert message.message_body.variant == "log" and message.message_body.body == "all is well"


@pytest.mark.parametrize("state", ["failed", "inactive"])
@pytest.mark.parametrize("method", list(METHODS_OF_ROOT))
def test_where_root_would_not_see_a_call_the_answer_says_so(
    path_unit: Callable[[str], None], method: str, state: str
) -> None:
    """As with a package of before, to which this release came over the air."""
    path_unit(state)
    answer = _ask(method, METHODS_OF_ROOT[method])
    assert answer["error"] == f"nobody would see to it: ivy-call@{method}.path is {state}"
    assert _flags() == []


def test_an_answer_fits_the_packet_that_the_broker_takes(agent: MessagingAgent) -> None:
    lines = [f"{number} " + "x" * 400 for number in range(200)]
    for largest in (math.inf, 60_000, 1_000):
        caller = Caller(agent, largest)
        assert caller.ask("logs") is None
        _root_answers("logs", {"success": True, "result": {"lines": lines}})
        deadline = time.monotonic() + 20
        while not (found := caller.calls.answers()):
            assert time.monotonic() < deadline
        assert found[0].size <= min(largest, 65_536)
        result = json.loads(found[0].payload)["result"]
        assert result["lines"] and result["lines"][-1] == lines[-1], "the newest are kept"
        assert result.get("left_out", 0) + len(result["lines"]) == len(lines)


def test_an_answer_that_cannot_be_made_smaller_is_a_complaint(agent: MessagingAgent) -> None:
    calls_of_node = Calls(lambda: {"x": "y" * 100_000}, agent, "thingsboard")
    [publication] = calls_of_node.take(Request("t", "status", None))
    answer = json.loads(publication.payload)
    assert answer["success"] is False and "bytes" in answer["error"]


@pytest.mark.parametrize("method", list(calls.METHODS))
def test_ten_thousand_hostile_calls_leave_nothing_behind(caller: Caller, method: str) -> None:
    """As no platform waits for systemd: what is asked for again is answered from memory."""
    hostile: list[Any] = [
        *(params for of, params, _ in BAD if of == method),
        *(None, {}, "", [], True, -1, 1e308, "\ud800", "x" * 10_000, [[]] * 1000, {"name": {"name": []}}),
        *({"lines": "9" * 5000}, {"since": "x" * 10_000}, {str(number): number for number in range(1000)}),
        METHODS_OF_ROOT.get(method, "system-checks"),
    ]
    answered = 0
    for number in range(10_000):
        said = caller.ask(method, hostile[number % len(hostile)])
        answered += said is not None
        caller.calls.answers()
    assert answered >= 9_999, "but for the one that root was asked for"
    assert set(_flags()) <= {f"call-{method}", "restart-system-checks"}


def test_a_wish_that_cannot_be_written_down_is_answered(data_dir: Path) -> None:
    Path(f"{constants.RESTART_FLAG}system-checks").mkdir(parents=True)
    data_dir.joinpath("run-backend").rename(data_dir / "elsewhere")
    data_dir.joinpath("run-backend").touch()
    assert _ask("restart", "system-checks")["success"] is False
