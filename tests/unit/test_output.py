"""What others wrote does not command the terminal of whoever looks at a node."""

import json
import re

import pytest

from ivy.cli import output
from ivy.types.link_report import LinkReport
from ivy.types.messages import DataMessageBody
from ivy.utils.messaging_agent import MessagingAgent
from tests.support.helpers import BACKEND, Node

HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\x7f"
CONTROLS = re.compile(r"[\0-\x09\x0b-\x1f\x7f-\x9f\u202e]")


@pytest.mark.parametrize("letter", ["\x1b", "\x07", "\r", "\x9b", "\x7f", "\u202e", "\u2028"])
def test_controls_are_shown_and_not_obeyed(letter: str) -> None:
    assert output.plain(f"a{letter}b") == output.line(f"a{letter}b") == f"a\\u{ord(letter):04x}b"


def test_lines_stay_lines() -> None:
    assert output.plain("a\n\tb é ☃") == "a\n\tb é ☃"
    assert output.line("a\nall is well") == "a\\u000aall is well"


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_keys_and_values_of_samples(node: Node, agent: MessagingAgent, options: list[str]) -> None:
    agent.add_message(DataMessageBody(data={f"key{HOSTILE}": f"{HOSTILE}\nvalue"}))
    status, said, _ = node.ivy("messages", *options)
    assert status == 0
    assert "\x1b" not in said and said.count("\n") == 1
    if not options:
        assert not CONTROLS.search(said)
    else:  # exactly, as this is no terminal
        assert f"key{HOSTILE}" in json.loads(said)["message_body"]["data"]


def test_reasons_of_brokers_and_statuses_of_services(node: Node) -> None:
    node.write_config(backend=BACKEND)
    (node.home.parent / "root" / "data" / "run").mkdir(exist_ok=True)
    LinkReport(broker="localhost:1", connected=False, since=1, reason=f"{HOSTILE}\nall is well").write()
    node.fake("systemctl", {"*": f"printf 'Id=ivy.target\\nStatusText={HOSTILE}\\n'"})
    _, said, errors = node.ivy("status")
    assert not CONTROLS.search(said + errors)
    assert "all is well" not in said.splitlines()


def test_words_of_errors(node: Node) -> None:
    _, said, errors = node.ivy("config", "validate", f"/{HOSTILE}")
    assert not CONTROLS.search(said + errors) and "owned" in errors
