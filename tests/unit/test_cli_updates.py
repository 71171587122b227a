"""`ivy config apply`, `ivy update`, `ivy rollback`, `ivy releases`: wrong use, and what they show."""

import errno
import io
import json
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from ivy import update_pass
from ivy.cli import releases as cli_releases
from ivy.cli.archive.selection import parse_span
from ivy.types.updates import Offer
from ivy.utils.updater import Updater
from ivy.utils.updates import decisions, history
from ivy.utils.updates.releases import Releases
from ivy.version import Version
from tests.support.helpers import CONFIG, UPDATER, Node
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


SET = ("config", "set", "system_checks.seconds_between_checks", "7")
COMMANDS = [("config", "apply", "-"), SET, ("config", "edit"), ("update", "1.1.0"), ("rollback",)]


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


SETUP = "setup --provider thingsboard --host localhost --tls no --username x --password-file - --no-test"


@pytest.mark.parametrize("is_urgent", [False, True])
@pytest.mark.parametrize("arguments", [*COMMANDS, tuple(SETUP.split())])
def test_the_admin_says_whether_to_wait_for_procedures_and_whether_to_rename_what_waits(
    node: Node,
    ivy_as: Ivy,
    release: Releases,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    is_urgent: bool,
) -> None:
    given = json.dumps({**CONFIG, "system_checks": {"seconds_between_checks": 7}})
    editor = node.programs / "editor"
    editor.write_text(f"#!/bin/sh\ncat > \"$1\" <<'END'\n{given}\nEND\n")
    editor.chmod(0o755)
    node.environment |= {"VISUAL": "editor"}
    decisions.record(offer(4), None, foreign(3))
    performed: list[tuple[bool, bool]] = []

    def perform(_updater: Updater, _offer: Offer, *, is_urgent: bool, is_sure: bool, files: None) -> None:
        performed.append((is_urgent, is_sure))

    monkeypatch.setattr(Updater, "perform", perform)
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # these are the tests' own
    may_rename = arguments[0] != "update"
    options = [*(["--now"] if is_urgent else []), *(["--yes"] if may_rename else [])]
    for is_sure in {False, may_rename}:
        status, _, errors = ivy_as(ROOT, *arguments, *options[: None if is_sure else int(is_urgent)], given=given)
        assert (status, performed) == (0, [(is_urgent, is_sure)]), errors
        performed.clear()


def test_files_come_with_a_config_if_they_can_be_put_on_trial(
    ivy_as: Ivy, release: Releases, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    performed: list[Path] = []
    monkeypatch.setattr(Updater, "perform", lambda *_, files, **__: performed.append(files))
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # these are the tests' own
    (tmp_path / "authority.pem").touch()
    apply = ("config", "apply", "-", "--files", str(tmp_path))
    assert ivy_as(ROOT, *apply, given=json.dumps(CONFIG))[0] == 0
    assert performed == [tmp_path]
    (tmp_path / "config.json").touch()
    status, _, errors = ivy_as(ROOT, *apply, given=json.dumps(CONFIG))
    assert (status, performed) == (2, [tmp_path]) and "config.json: only certificates" in errors


def test_a_section_that_stands_twice_is_not_applied(ivy_as: Ivy, release: Releases) -> None:
    text = json.dumps(CONFIG)[:-1] + ', "system_checks": {"seconds_between_checks": 7}}'
    status, _, errors = ivy_as(ROOT, "config", "apply", "-", given=text)
    assert status == 1 and 'rejected: "system_checks" stands twice' in errors
    assert history.load().decisions == []


@pytest.mark.parametrize("is_on_trial", [False, True])
@pytest.mark.parametrize("arguments", [*COMMANDS, tuple(SETUP.split())])
def test_a_limit_ends_the_waiting_and_leaves_a_trial_to_the_updater(
    node: Node,
    ivy_as: Ivy,
    release: Releases,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    is_on_trial: bool,
) -> None:
    given = json.dumps({**CONFIG, "system_checks": {"seconds_between_checks": 7}})
    (node.home / "given").write_text(given)
    editor = node.programs / "editor"
    editor.write_text(f'#!/bin/sh\ncat {node.home}/given > "$1"\n')
    editor.chmod(0o755)
    node.environment |= {"VISUAL": "editor"}
    decisions.record(offer(4), None, foreign(3))

    def perform(_updater: Updater, offer: Offer, **_: bool) -> None:
        if is_on_trial:
            with history.update() as past:
                past.trial = offer
        [(seconds, end)] = begun
        assert seconds == 600
        end()  # as if it were over now
        threading.Event().wait()

    class Timer(threading.Thread):
        def __init__(self, seconds: float, end: Callable[[], None]) -> None:
            super().__init__()
            begun.append((seconds, end))

        def cancel(self) -> None:
            pass

    begun: list[tuple[float, Callable[[], None]]] = []
    monkeypatch.setattr(threading, "Timer", Timer)
    monkeypatch.setattr(Updater, "perform", perform)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGTERM)}
    try:
        status, _, errors = ivy_as(ROOT, *arguments, "--wait", "10min", given=given)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert status == 75 and "ivy: not decided within 10 min. " in errors
    assert ("The trial goes on in the background" in errors) is is_on_trial
    assert ("Nothing was activated" in errors) is not is_on_trial
    assert node.calls()[-1] == "systemctl --no-block start -- ivy-updater.service", "the next pass goes on"


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("1.5min", 90), ("2h", 7200), ("0", 0)])
def test_a_span_of_time_is_understood(text: str, seconds: float) -> None:
    assert parse_span(text) == seconds


@pytest.mark.parametrize("text", ["", "-2h", "soon", "2 h", "h", "2y"])
def test_what_is_no_span_of_time_is_wrong_use(ivy_as: Ivy, release: Releases, text: str) -> None:
    status, _, errors = ivy_as(ROOT, "rollback", f"--wait={text}")
    assert status == 2 and f"must look like 90s, 10min, 12h or 3600 (s, min, h, d, w), not {text!r}" in errors


HOLD = """
import time
from ivy.utils.functions import with_automation_lock
with with_automation_lock():
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize(
    ("words", "is_ended"),
    [
        (("ivy", "config", "apply", "-"), True),
        (("ivy", "update", "1.1.0"), True),
        (("ivy", "install"), False),
        (("ivy", "call", "rollback"), False),
        (("apt", "install", "ivy"), False),
    ],
)
def test_a_newer_wish_replaces_the_one_that_another_command_waits_for(
    node: Node,
    ivy_as: Ivy,
    release: Releases,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    is_ended: bool,
) -> None:
    """That of the package manager and of operators is waited for."""
    former = node.start("-c", HOLD, *words)
    assert former.stdout and former.stdout.readline() == "held\n"
    monkeypatch.setattr(Updater, "perform", lambda *_, **__: None)
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # these are the tests' own
    lock = update_pass.automation_lock
    monkeypatch.setattr("ivy.update_pass.automation_lock", lambda: lock(0))
    status, output, errors = ivy_as(ROOT, "config", "apply", "-", given=json.dumps(CONFIG))
    assert (former.poll() is not None) is is_ended
    if is_ended:
        assert status == 0 and f"Replacing what process {former.pid} (" in output, errors
    else:
        assert status == 1 and f"process {former.pid} (" in errors and "is changing this installation" in errors
    former.kill()


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


def test_what_somebody_has_typed_is_not_replaced_by_one_field_of_what_runs(ivy_as: Ivy, release: Releases) -> None:
    release.accepted_file(VERSION).write_text(json.dumps(CONFIG))
    active = release.config_file(VERSION)
    active.write_text(typed := '{"general": {, "my work": 1}}')
    status, _, errors = ivy_as(ROOT, "config", "set", "archive.max_days", "7")
    assert status == 78 and f"{active}: Invalid JSON" in errors and "sudo ivy config edit" in errors
    assert active.read_text() == typed


def test_a_disk_that_takes_nothing_keeps_no_package_half_configured(
    ivy_as: Ivy, release: Releases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """APT would install nothing else, no security update either."""

    def fail() -> NoReturn:
        raise OSError(errno.EROFS, "Read-only file system", str(release.root / "automation.lock"))

    monkeypatch.setattr(update_pass, "automation_lock", fail)
    status, _, errors = ivy_as(ROOT, "install")
    assert status == 0 and "was not activated" in errors and "sudo dpkg-reconfigure ivy" in errors
    (release.root / "current").unlink()
    status, _, errors = ivy_as(ROOT, "install")
    assert status == 1 and "Read-only file system" in errors


def test_an_update_without_a_readable_config_is_refused(ivy_as: Ivy, release: Releases) -> None:
    release.write_config(VERSION, "{")
    status, _, errors = ivy_as(ROOT, "update", "1.1.0")
    assert status == 2 and "the active config cannot be read" in errors


def test_before_any_change_there_is_nothing_to_go_back_to(ivy_as: Ivy, release: Releases) -> None:
    status, _, errors = ivy_as(ROOT, "rollback")
    assert status == 2 and "nothing to go back to" in errors


def test_an_editor_that_fails_changes_nothing(
    node: Node, ivy_as: Ivy, release: Releases, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    node.environment |= {"VISUAL": "false"}
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    status, _, errors = ivy_as(ROOT, "config", "edit")
    assert status == 2 and "Nothing was changed" in errors
    assert list(tmp_path.glob("ivy-config-*")) == []


def test_an_edit_that_changes_nothing_is_no_offer(node: Node, ivy_as: Ivy, release: Releases) -> None:
    node.environment |= {"VISUAL": "true"}
    assert ivy_as(ROOT, "config", "edit")[:2] == (0, "Nothing was changed.\n")
    assert node.calls() == [] and history.load().decisions == []


def test_a_rejected_edit_is_not_lost(
    node: Node, ivy_as: Ivy, release: Releases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    editor = node.programs / "editor"
    editor.write_text('#!/bin/sh\ntest "$1" = --wait && echo \'{ my work\' > "$2"\n')
    editor.chmod(0o755)
    node.environment |= {"VISUAL": "editor --wait"}  # as for many of them, which come back at once without it
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    status, _, errors = ivy_as(ROOT, "config", "edit")
    [kept] = tmp_path.glob("ivy-config-*.json")
    assert status == 1 and str(kept) in errors and kept.read_text() == "{ my work\n"
    assert kept.stat().st_mode & 0o077 == 0, "it holds secrets"


@pytest.mark.parametrize(("typed", "is_told"), [("as-typed", True), ("***", False)])
def test_whoever_typed_a_secret_is_told_where_it_is(
    node: Node,
    ivy_as: Ivy,
    release: Releases,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    typed: str,
    is_told: bool,
) -> None:
    offered = json.dumps({**CONFIG, "updater": {**UPDATER, "access_token": typed}, "unknown": 1})
    (tmp_path / "typed").write_text(offered)
    editor = node.programs / "editor"
    editor.write_text(f'#!/bin/sh\ncat {tmp_path}/typed > "$1"\n')
    editor.chmod(0o755)
    node.environment |= {"VISUAL": "editor"}
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    status, _, errors = ivy_as(ROOT, "config", "edit")
    [kept] = tmp_path.glob("ivy-config-*.json")
    assert status == 1 and (f"Afterwards: rm {kept}" in errors) is is_told


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up root's rights")
def test_what_the_node_does_not_have_is_no_valid_config_there(
    node: Node, ivy_as: Ivy, release: Releases, tmp_path: Path
) -> None:
    hidden = json.dumps({**CONFIG, "updater": {**UPDATER, "access_token": "***"}})
    (tmp_path / "offer.json").write_text(hidden)
    arguments = ("config", "validate", str(tmp_path / "offer.json"))
    status, _, errors = ivy_as(ROOT, *arguments)
    assert status == 78 and "updater.access_token: is ***" in errors
    assert ivy_as(SOMEBODY, *arguments)[0] == 0, "who may not see what the node has cannot be told"
    status, _, errors = ivy_as(ROOT, "config", "apply", "-", given=hidden)
    assert status == 1 and "updater.access_token: is ***" in errors
    release.write_config(VERSION, json.dumps({**CONFIG, "updater": UPDATER}))
    assert ivy_as(ROOT, *arguments)[0] == 0


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
    assert found["on_trial"] is None and found["schema"] == 1


def test_releases_for_people(ivy_as: Ivy, release: Releases) -> None:
    decisions.record(offer(4), "no\nbecause\n  of \x1b this")
    status, output, _ = ivy_as(SOMEBODY, "releases")
    runs, other, decision, *reason = output.splitlines()
    assert status == 0
    assert runs.split()[:4] == ["1.0.0", "config", "revision", "3"] and "runs" in runs
    assert other.startswith("1.1.0") and "runs" not in other
    assert decision.endswith("revision 4 for 1.0.0: rejected: no")
    assert reason == ["    because", r"      of \u001b this"]


def test_people_see_the_latest_decisions_and_programs_all(ivy_as: Ivy, release: Releases) -> None:
    for revision in range(4, 16):
        decisions.record(offer(revision), "no")
    shown = ivy_as(SOMEBODY, "releases")[1].splitlines()
    assert [line.split()[2] for line in shown if "rejected" in line] == [str(revision) for revision in range(6, 16)]
    found = json.loads(ivy_as(SOMEBODY, "releases", "--json")[1])["decisions"]
    assert [decision["config_revision"] for decision in found] == list(range(4, 16))


def test_a_release_whose_config_is_broken_is_shown(ivy_as: Ivy, release: Releases) -> None:
    release.write_config(VERSION, "{")
    output = ivy_as(SOMEBODY, "releases", "--json")[1]
    assert json.loads(output)["releases"][0]["config_revision"] is None


def test_a_rejection_without_a_reason_is_shown(ivy_as: Ivy, release: Releases) -> None:
    decisions.record(offer(4), "")
    assert "rejected" in ivy_as(SOMEBODY, "releases")[1]


@pytest.fixture
def brought(monkeypatch: pytest.MonkeyPatch) -> list[Version]:
    """The version that the package has brought: the other one."""
    versions = [Version("1.1.0")]
    monkeypatch.setattr(cli_releases, "bundled_version", lambda: versions[0])
    return versions


def test_whoever_waits_learns_that_the_packages_version_runs(
    ivy_as: Ivy, release: Releases, brought: list[Version]
) -> None:
    release.activate(brought[0])
    assert ivy_as(ROOT, "releases", "--wait") == (0, "1.1.0 runs.\n", "")


def test_whoever_waits_learns_why_it_does_not_run(ivy_as: Ivy, release: Releases, brought: list[Version]) -> None:
    status, output, errors = ivy_as(ROOT, "releases", "--wait", "5")
    assert (status, output) == (1, "") and "ivy update 1.1.0" in errors
    decisions.record(Offer(identifier="admin-1", config=foreign(4, "1.1.0"), is_installed=True), "it crashed")
    status, output, errors = ivy_as(ROOT, "releases", "--wait", "5")
    assert (status, output) == (1, "")
    assert errors == "ivy: the Debian package of version 1.1.0 was rejected: it crashed\n"


@pytest.mark.parametrize(
    ("state", "updater", "words"),
    [
        ("active", "active", ("after 0 s", "on probation: ivy-wind")),
        ("active", "inactive", ("after 0 s", "sudo systemctl start ivy-updater.service")),
        ("inactive", "inactive", ("ivy start",)),
    ],
)
def test_nobody_waits_for_ever(
    node: Node,
    ivy_as: Ivy,
    release: Releases,
    brought: list[Version],
    state: str,
    updater: str,
    words: tuple[str, ...],
) -> None:
    said = f"echo Id=ivy.target; echo ActiveState={state}; echo; echo Id=ivy-updater.service"
    said += f"; echo ActiveState={updater}; echo 'StatusText=on probation: ivy-wind'"
    node.fake("systemctl", {"show*": said})
    with history.update() as past:
        past.trial = Offer(identifier="admin-1", config=foreign(4, "1.1.0"), is_installed=True)
    status, output, errors = ivy_as(ROOT, "releases", "--wait", "0")
    assert (status, output) == (75, "")
    assert [word for word in (*words, "Debian package of version 1.1.0") if word not in errors] == [], errors


def test_a_package_is_shown_as_such(ivy_as: Ivy, release: Releases) -> None:
    packaged = Offer(identifier="admin-1", config=foreign(4, "1.1.0"), is_installed=True)
    with history.update() as past:
        past.trial = packaged
    decisions.record(packaged.model_copy(update={"identifier": "admin-0"}), "it crashed")
    shown = ivy_as(ROOT, "releases")[1]
    assert "on trial: package (deb)" in shown and "package (deb) for 1.1.0: rejected: it crashed" in shown
