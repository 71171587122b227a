"""`ivy config apply`, `ivy update`, `ivy rollback`, `ivy releases`: wrong use, and what they show."""

import io
import json
import os
import sys
import tempfile
from pathlib import Path

import pytest

from ivy.utils.updates import decisions, history
from ivy.utils.updates.releases import Releases
from ivy.version import Version
from tests.support.helpers import CONFIG, Node
from tests.unit.archives import Ivy
from tests.unit.offers import foreign, offer

VERSION = Version("1.0.0")
ROOT, SOMEBODY = 0, 1000


@pytest.fixture
def release(node: Node) -> Releases:
    """A release that runs, and another one; without a systemd."""
    node.fake("systemctl", {})
    releases = Releases()
    for version in (VERSION, Version("1.1.0")):
        releases.config_file(version).parent.mkdir(parents=True)
        releases.write_config(version, json.dumps(CONFIG))
    releases.activate(VERSION)
    return releases


@pytest.fixture
def ivy_as(ivy_of_node: Ivy) -> Ivy:
    """Runs the command as a user, whoever runs the tests."""

    def run(user: int, *arguments: str, given: str = "") -> tuple[int, str, str]:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(os, "geteuid", lambda: user)
            patched.setattr(sys, "stdin", io.StringIO(given))
            return ivy_of_node(*arguments)

    return run


COMMANDS = [("config", "apply", "-"), ("config", "edit"), ("update", "1.1.0"), ("rollback",)]


@pytest.mark.parametrize("arguments", COMMANDS)
def test_only_root_changes_what_runs(
    node: Node, ivy_as: Ivy, release: Releases, arguments: tuple[str, ...]
) -> None:
    status, output, errors = ivy_as(SOMEBODY, *arguments, given="{}")
    assert (status, output) == (2, "")
    assert "only root" in errors and "sudo" in errors
    assert node.calls() == []


@pytest.mark.parametrize("arguments", COMMANDS)
def test_without_a_release_there_is_nothing_to_change(ivy_as: Ivy, arguments: tuple[str, ...]) -> None:
    status, _, errors = ivy_as(ROOT, *arguments, given="{}")
    assert status == 2 and "no current release" in errors


@pytest.mark.parametrize(
    "arguments",
    [["config", "apply"], ["config", "apply", "a", "b"], ["update"], ["rollback", "1.0.0"], ["releases", "x"]],
)
def test_wrong_arguments(ivy_as: Ivy, release: Releases, arguments: list[str]) -> None:
    status, output, errors = ivy_as(ROOT, *arguments)
    assert (status, output) == (2, "") and "usage: ivy" in errors


@pytest.mark.parametrize("name", ["missing.json", ".", "noise.json"])
def test_a_file_that_cannot_be_read_is_wrong_use(node: Node, ivy_as: Ivy, release: Releases, name: str) -> None:
    (node.home / "noise.json").write_bytes(b"\xff")
    status, _, errors = ivy_as(ROOT, "config", "apply", name)
    assert status == 2 and f"{name} cannot be read" in errors
    assert node.calls() == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [("", "JSON"), ("{", "JSON"), ("[]", "object"), ('{"general": {}}', "general.config_revision")],
)
def test_a_config_that_is_none_is_rejected_and_nothing_is_stopped(
    node: Node, ivy_as: Ivy, release: Releases, text: str, reason: str
) -> None:
    status, _, errors = ivy_as(ROOT, "config", "apply", "-", given=text)
    assert status == 1 and errors.startswith("ivy: rejected: ") and reason in errors
    assert node.calls() == []


@pytest.mark.parametrize("version", ["", "1", "1.2", "1.2.3.4", "latest", "../1.0.0", "1.0.0;reboot", "$(id)", "v"])
def test_a_version_that_is_none_is_wrong_use(node: Node, ivy_as: Ivy, release: Releases, version: str) -> None:
    status, _, errors = ivy_as(ROOT, "update", version)
    assert status == 2 and "a version must look like" in errors
    assert node.calls() == []


def test_a_version_that_begins_like_an_option_is_wrong_use(ivy_as: Ivy, release: Releases) -> None:
    assert ivy_as(ROOT, "update", "--upload-pack=x")[0] == 2


def test_an_update_without_a_readable_config_is_refused(ivy_as: Ivy, release: Releases) -> None:
    release.write_config(VERSION, "{")
    status, _, errors = ivy_as(ROOT, "update", "1.1.0")
    assert status == 2 and "the active config cannot be read" in errors


def test_before_any_change_there_is_nothing_to_go_back_to(ivy_as: Ivy, release: Releases) -> None:
    status, _, errors = ivy_as(ROOT, "rollback")
    assert status == 2 and "nothing to go back to" in errors


def test_an_editor_that_fails_changes_nothing(node: Node, ivy_as: Ivy, release: Releases) -> None:
    node.environment |= {"VISUAL": "false"}
    status, _, errors = ivy_as(ROOT, "config", "edit")
    assert status == 2 and "Nothing was changed" in errors


def test_an_edit_that_changes_nothing_is_no_offer(node: Node, ivy_as: Ivy, release: Releases) -> None:
    node.environment |= {"VISUAL": "true"}
    assert ivy_as(ROOT, "config", "edit")[:2] == (0, "Nothing was changed.\n")
    assert node.calls() == [] and history.load().decisions == []


def test_a_rejected_edit_is_not_lost(
    node: Node, ivy_as: Ivy, release: Releases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    editor = node.programs / "editor"
    editor.write_text("#!/bin/sh\necho '{ my work' > \"$1\"\n")
    editor.chmod(0o755)
    node.environment |= {"VISUAL": "editor"}
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    status, _, errors = ivy_as(ROOT, "config", "edit")
    [kept] = tmp_path.glob("ivy-config-*.json")
    assert status == 1 and str(kept) in errors and kept.read_text() == "{ my work\n"
    assert kept.stat().st_mode & 0o077 == 0, "it holds secrets"


def test_releases_for_programs(ivy_as: Ivy, release: Releases) -> None:
    release.begin_probation()
    release.activate(Version("1.1.0"))
    decisions.record(offer(4), "no\nbecause")
    decisions.record(offer(5), None)
    with history.update() as past:
        past.last_good = foreign(3)
    status, output, errors = ivy_as(SOMEBODY, "releases", "--json")
    assert (status, errors) == (0, "") and "hidden" not in output
    found = json.loads(output)
    assert [(r["version"], r["config_revision"]) for r in found["releases"]] == [("1.0.0", 3), ("1.1.0", 3)]
    assert [r["roles"][:2] for r in found["releases"]] == [["before the trial", "for ivy rollback"], ["runs"]]
    said = [(d["config_revision"], d["version"], d["accepted"], d["reason"]) for d in found["decisions"]]
    assert said == [(4, "1.0.0", False, "no\nbecause"), (5, "1.0.0", True, "")]
    assert found["on_trial"] is None


def test_releases_for_people(ivy_as: Ivy, release: Releases) -> None:
    decisions.record(offer(4), "no\nbecause")
    status, output, _ = ivy_as(SOMEBODY, "releases")
    runs, other, decision = output.splitlines()
    assert status == 0
    assert runs.split()[:4] == ["1.0.0", "config", "revision", "3"] and "runs" in runs
    assert other.startswith("1.1.0") and "runs" not in other
    assert decision.endswith("revision 4 for 1.0.0: rejected: no")


def test_a_release_whose_config_is_broken_is_shown(ivy_as: Ivy, release: Releases) -> None:
    release.write_config(VERSION, "{")
    output = ivy_as(SOMEBODY, "releases", "--json")[1]
    assert json.loads(output)["releases"][0]["config_revision"] is None


def test_a_rejection_without_a_reason_is_shown(ivy_as: Ivy, release: Releases) -> None:
    decisions.record(offer(4), "")
    assert "rejected" in ivy_as(SOMEBODY, "releases")[1]
