"""The link in /etc to the active config, and what commands say of a config that is not in use."""

import io
import json
import os
import sys
from pathlib import Path

import pytest

from ivy import constants, overview
from ivy.cli.doctor import checks_node
from ivy.utils.updater import Updater
from ivy.utils.updates.releases import Releases
from tests.support.helpers import CONFIG, Node, make_release
from tests.unit.archives import Ivy

VERSION = constants.VERSION
TEXT = json.dumps({**CONFIG, "general": {**CONFIG["general"], "software_version": str(VERSION)}}, indent=4) + "\n"
OTHER = TEXT.replace("node-1", "node-2")


@pytest.fixture(autouse=True)
def releases(root_dir: Path, node: Node, monkeypatch: pytest.MonkeyPatch) -> Releases:
    """A release that runs, with a config that was accepted; all that is applied is accepted."""
    monkeypatch.setenv("PATH", node.environment["PATH"])
    node.fake("systemctl", {})
    releases = Releases(root_dir)
    make_release(releases.directory(VERSION))
    releases.activate(VERSION)
    releases.write_config(VERSION, TEXT)
    releases.keep_accepted()
    monkeypatch.setattr(constants, "PROJECT_DIR", str(releases.directory(VERSION)))
    monkeypatch.setattr(Updater, "perform", lambda *_, **__: None)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr("ivy.update_pass.announce", lambda: None)
    monkeypatch.setattr("ivy.utils.host.rights.give_up", lambda *_: None)
    return releases


@pytest.fixture
def link(root_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The link, as the package makes it."""
    link = root_dir / "etc" / "config.json"
    link.parent.mkdir()
    link.symlink_to(root_dir / "current" / "config" / "config.json")
    monkeypatch.setattr(constants, "CONFIG_LINK", str(link))
    return link


def replace(link: Path, text: str) -> None:
    """As `sed -i` does."""
    link.unlink()
    link.write_text(text)


def problems() -> list[str]:
    return [problem for problem in overview.look().problems if problem.startswith("config: ")]


def test_a_link_that_leads_to_the_active_config_is_nobodys_problem(link: Path) -> None:
    assert problems() == [] and list(checks_node.config_link()) == []
    link.unlink()
    assert problems() == [], "the next boot makes it"


@pytest.mark.parametrize(("text", "says"), [(TEXT, "says the same"), (OTHER, "says something else")])
def test_a_file_in_its_place_is_a_problem(link: Path, text: str, says: str) -> None:
    replace(link, text)
    [problem] = problems()
    [finding] = checks_node.config_link()
    for found in (problem, finding.text):
        assert str(link) in found and says in found and "has no effect" in found
    assert "sudo ivy config apply" in finding.remedy and "sudo ivy config apply" in problem


def test_so_is_a_link_that_leads_elsewhere(link: Path) -> None:
    link.unlink()
    link.symlink_to("/nowhere")
    assert "leads to /nowhere" in problems()[0]


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_to_apply_what_it_says_makes_the_link_again(link: Path, ivy: Ivy, releases: Releases, mark: str) -> None:
    replace(link, mark + OTHER)
    status, output, _ = ivy("config", "apply", str(link))
    assert status == 0 and "is the link to the active config again" in output
    assert link.is_symlink() and link.resolve() == releases.config_file(VERSION)
    assert problems() == []


def test_to_apply_something_else_loses_nothing_that_it_says(
    link: Path, ivy: Ivy, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace(link, OTHER)
    monkeypatch.setattr(sys, "stdin", io.StringIO(TEXT))
    assert ivy("config", "apply", "-")[0] == 0
    assert not link.is_symlink() and link.read_text() == OTHER


def test_a_link_that_leads_elsewhere_is_made_again_by_all_that_is_applied(
    link: Path, ivy: Ivy, monkeypatch: pytest.MonkeyPatch
) -> None:
    link.unlink()
    link.symlink_to("/nowhere")
    monkeypatch.setattr(sys, "stdin", io.StringIO(TEXT))
    assert ivy("config", "apply", "-")[0] == 0
    assert problems() == []


def test_what_is_rejected_makes_no_link(link: Path, ivy: Ivy, monkeypatch: pytest.MonkeyPatch) -> None:
    replace(link, OTHER)
    monkeypatch.setattr(Updater, "perform", lambda *_, **__: "no")
    assert ivy("config", "apply", str(link))[0] == 1
    assert not link.is_symlink()


def test_a_restart_says_that_what_was_changed_has_no_effect(link: Path, ivy: Ivy) -> None:
    replace(link, OTHER)
    status, _, errors = ivy("restart")
    assert status == 0 and "says something else" in errors and "sudo ivy config apply" in errors


def mistake(releases: Releases) -> Path:
    path = releases.config_file(VERSION)
    path.write_text(TEXT.replace(",", "", 1))
    return path


def test_status_and_doctor_name_a_mistake_and_what_is_in_use(releases: Releases) -> None:
    path = mistake(releases)
    config, finding = checks_node.config()
    assert config is not None and config.general.system_identifier == "node-1"
    found = overview.look()
    [problem] = problems()
    for text in (problem, finding.text):
        assert f"{path}: Invalid JSON: " in text and " at line " in text and "accepted last is in use" in text
    assert "sudo ivy config edit" in finding.remedy
    assert (found.system_identifier, found.config_revision) == ("node-1", 3)


def test_commands_that_look_at_the_config_say_which_one(ivy: Ivy, releases: Releases) -> None:
    path = mistake(releases)
    status, output, errors = ivy("config", "show")
    assert status == 0 and json.loads(output)["general"]["system_identifier"] == "node-1"
    assert f"{path}: Invalid JSON: " in errors and "accepted last is in use" in errors
    assert ivy("config", "validate")[0] == 78
    status, _, errors = ivy("restart")
    assert status == 78 and "nothing was stopped" in errors and " at line " in errors


def test_who_edits_finds_his_own_text(ivy: Ivy, releases: Releases, monkeypatch: pytest.MonkeyPatch) -> None:
    """And, of what is damaged, the config that is in use."""
    texts: list[str] = []

    def editor(_mode: int, *command: str) -> int:
        texts.append(Path(command[-1]).read_text())
        return 0

    monkeypatch.setattr(os, "spawnlp", editor)
    path = mistake(releases)
    wrong = path.read_text()
    assert ivy("config", "edit")[0] == 0
    path.write_bytes(b"\0" * 851)
    assert ivy("config", "edit")[0] == 0
    assert texts == [wrong, TEXT]
