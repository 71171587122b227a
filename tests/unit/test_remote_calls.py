"""What an operator may ask of a node over the backend, and what not."""

import json
from pathlib import Path
from typing import Any

import pytest

from ivy import constants
from ivy.backend.dialect import Request
from ivy.backend.inbox import answer as answer_to
from ivy.utils.functions import procedure_names


def _ask(method: str, params: Any = None) -> dict[str, Any]:
    publication = answer_to(Request("t", method, params), lambda: {"queued": 1})
    assert (publication.topic, publication.message_ids) == ("t", ())
    answer: dict[str, Any] = json.loads(publication.payload)
    return answer


def _flags() -> list[str]:
    return sorted(path.name for path in Path(constants.IVY_RUN_DIR).glob("*"))


def test_ping() -> None:
    assert _ask("ping") == {"success": True, "result": "pong"}


def test_status() -> None:
    assert _ask("status") == {"success": True, "result": {"queued": 1}}


@pytest.mark.parametrize("params", ["system-checks", {"name": "system-checks"}])
def test_restart_leaves_word(params: Any) -> None:
    assert _ask("restart", params) == {"success": True, "result": "system-checks is being restarted"}
    assert _flags() == ["restart-system-checks"]


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


@pytest.mark.parametrize("method", ["", "reboot", "__init__", "PING", "restart ", "eval"])
def test_there_is_no_other_method(method: str) -> None:
    answer = _ask(method, "system-checks")
    assert answer == {
        "success": False,
        "error": 'there is no such method; there are "ping", "status" and "restart"',
    }
    assert _flags() == []


def test_a_wish_that_cannot_be_written_down_is_answered(data_dir: Path) -> None:
    Path(f"{constants.RESTART_FLAG}system-checks").mkdir(parents=True)
    data_dir.joinpath("run").rename(data_dir / "elsewhere")
    data_dir.joinpath("run").touch()
    assert _ask("restart", "system-checks")["success"] is False
