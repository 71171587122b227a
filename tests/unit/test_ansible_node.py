"""What the modules of `ivy.fleet` share, without Ansible: how they ask a node, and what it waits for."""

import json
import types
from typing import Any

import pytest

from tests.support.ansible_plugin import load


class _FailedError(Exception):
    """What a module would end with."""


class FakeNode:
    """Answers commands as it was told to."""

    def __init__(self, **found: Any) -> None:
        self.found = found
        self.asked: list[list[str]] = []

    def run_command(self, command: list[str], data: str | None = None) -> tuple[int, str, str]:
        self.asked.append(command)
        if "systemctl" in command:
            return 0, "waiting for co2\n", ""
        return 0, json.dumps(self.found), ""

    def fail_json(self, msg: str) -> None:
        raise _FailedError(msg)


def release(version: str, *roles: str) -> dict[str, Any]:
    return {"version": version, "roles": list(roles)}


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """The module that they import."""
    return load(monkeypatch, "module_utils/node.py", {})


BEFORE = "before the trial"


@pytest.mark.parametrize(
    ("on_trial", "releases", "is_version"),
    [
        (None, [release("1.0.0", "runs")], False),
        (4, [release("1.0.0", "runs", BEFORE)], False),
        (4, [release("1.0.0", BEFORE), release("2.0.0", "runs")], True),
    ],
)
def test_a_version_on_trial_is_told_from_a_config(
    node: types.ModuleType, on_trial: int | None, releases: list[dict[str, Any]], is_version: bool
) -> None:
    assert node.is_version_on_trial(FakeNode(on_trial=on_trial, releases=releases)) is is_version


def test_a_trial_that_goes_on_says_what_it_waits_for(node: types.ModuleType) -> None:
    with pytest.raises(_FailedError, match="revision 4 is still on trial after 0 s: waiting for co2"):
        node.wait_for_decision(FakeNode(on_trial=4, releases=[]), 0)


def test_a_command_has_a_limit_where_it_is_told(node: types.ModuleType) -> None:
    fake = FakeNode()
    node.run_ivy(fake, "config", "apply", "-", text="{}", seconds=7)
    node.run_ivy(fake, "status")
    assert fake.asked == [
        ["timeout", "--kill-after=60", "7", "/usr/bin/ivy", "config", "apply", "-"],
        ["/usr/bin/ivy", "status"],
    ]
