"""A `secrets.json` that is lost or damaged, and a config that somebody has edited beside it."""

import json
from pathlib import Path
from typing import Any

import pytest

from ivy import update_pass
from ivy.cli.doctor import checks_node
from ivy.types.config import Config, ForeignConfig, LostSecretError, require_secrets
from ivy.types.secrets import UnknownSecretError
from ivy.utils.updates import activation, history, lost_secrets, repair
from ivy.utils.updates.releases import Releases
from ivy.version import Version
from tests.support.helpers import BACKEND, CONFIG, UPDATER, Node, make_release

VERSION = Version("1.1.0")
GENERAL = {**CONFIG["general"], "software_version": "1.1.0"}
WHOLE: dict[str, Any] = {**CONFIG, "general": GENERAL, "backend": BACKEND, "updater": UPDATER}
LOST = ["backend.mqtt_connection.username", "backend.mqtt_connection.password", "updater.access_token"]


@pytest.fixture
def releases(root_dir: Path, node: Node, monkeypatch: pytest.MonkeyPatch) -> Releases:
    """A node with a config that was accepted; no service of it runs, as there is no systemd."""
    monkeypatch.setenv("PATH", node.environment["PATH"])
    node.fake("systemctl", {})
    releases = Releases(root_dir)
    make_release(releases.directory(VERSION))
    releases.activate(VERSION)
    releases.write_config(VERSION, text_of(WHOLE))
    releases.hide_secrets()
    return releases


def text_of(content: Any) -> str:
    return json.dumps(content, indent=4) + "\n"


def beside(releases: Releases, name: str = "secrets.json") -> Path:
    return releases.config_file(VERSION).with_name(name)


def remember(content: dict[str, Any]) -> None:
    with history.update() as past:
        past.last_good = ForeignConfig.model_validate(content)


def at(host: str) -> dict[str, Any]:
    connection = {**BACKEND["mqtt_connection"], "host": host, "password": "another"}
    return {**WHOLE, "backend": {**BACKEND, "mqtt_connection": connection}}


@pytest.mark.parametrize("damage", [None, "", "{}", "[]", "\0" * 300, "{", '{"a": 1}'])
def test_what_was_lost_is_there_again(releases: Releases, damage: str | None) -> None:
    beside(releases).unlink() if damage is None else beside(releases).write_text(damage)
    assert lost_secrets.restore(releases) == LOST
    assert json.loads(releases.active_text()) == WHOLE
    assert beside(releases).stat().st_mode & 0o777 == 0o600
    assert lost_secrets.restore(releases) == []


def test_a_typo_in_the_config_changes_nothing_about_that(releases: Releases) -> None:
    releases.keep_accepted()
    path = releases.config_file(VERSION)
    path.write_text(mistyped := path.read_text().replace(",", "", 1))
    beside(releases).unlink()
    assert lost_secrets.restore(releases) == LOST
    assert json.loads(releases.active_text()) == WHOLE
    assert path.read_text() == mistyped


def test_what_ran_before_has_it_where_the_copy_is_gone_too(releases: Releases) -> None:
    before = {**WHOLE, "system_checks": {"seconds_between_checks": 77}}
    remember(before)
    beside(releases).unlink()
    beside(releases, "secrets.copy.json").unlink()
    assert lost_secrets.restore(releases) == LOST
    assert json.loads(releases.active_text()) == WHOLE


def test_no_broker_gets_the_password_of_another(releases: Releases) -> None:
    remember(at("other.example"))
    beside(releases).unlink()
    beside(releases, "secrets.copy.json").unlink()
    assert lost_secrets.restore(releases) == ["updater.access_token"]
    assert "another" not in releases.active_text()


def test_where_nothing_has_it_the_field_is_named(releases: Releases) -> None:
    beside(releases).unlink()
    beside(releases, "secrets.copy.json").unlink()
    assert lost_secrets.restore(releases) == []
    config = Config.load_from_string(releases.active_text())
    with pytest.raises(LostSecretError, match=r"(?m)^backend\.mqtt_connection\.password: is \*{3}.*config edit$"):
        require_secrets(config, "backend")
    require_secrets(config, "system_checks")
    with pytest.raises(UnknownSecretError, match=r"(?m)^backend\.mqtt_connection\.password: "):
        releases.fill(ForeignConfig.load_from_string(releases.active_text()))


def test_the_doctor_says_what_is_lost_and_what_to_do(releases: Releases) -> None:
    beside(releases).unlink()
    [found] = [finding for finding in checks_node.permissions() if finding.check == "secrets"]
    assert "backend.mqtt_connection.password" in found.text and "secrets.json does not say" in found.text
    assert "sudo ivy config edit" in found.remedy


def test_a_trial_goes_on_as_the_one_it_was(releases: Releases) -> None:
    releases.begin_probation()
    releases.write_config(VERSION, text_of(at("localhost")))
    on_trial = releases.active_text()
    beside(releases).unlink()
    with history.update() as past:
        past.trial = {  # type: ignore[assignment]  # validated as it is assigned
            "identifier": "admin-1",
            "offer": at("localhost"),
            "source": "admin",
        }
    beside(releases, "secrets.copy.json").unlink()
    lost_secrets.restore(releases)
    assert releases.active_text().rstrip() == on_trial.rstrip()


def test_a_copy_is_not_spoilt_by_what_is_damaged(releases: Releases) -> None:
    copy = beside(releases, "secrets.copy.json").read_text()
    beside(releases).write_text('{"a": {"backend": {}}}')
    releases.hide_secrets()
    assert beside(releases, "secrets.copy.json").read_text() == copy


def fail_at(monkeypatch: pytest.MonkeyPatch, name: str, why: str) -> None:
    """Let no file of this name be renamed into its place."""
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if target.name == name:
            raise OSError(why)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)


def test_no_room_for_a_copy_stops_nothing(releases: Releases, monkeypatch: pytest.MonkeyPatch) -> None:
    releases.write_config(VERSION, text_of({**WHOLE, "updater": {**UPDATER, "access_token": "another"}}))
    fail_at(monkeypatch, "secrets.copy.json", "no space left on device")
    releases.hide_secrets()


def test_a_pass_puts_it_back_and_starts_the_backend(releases: Releases, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []
    monkeypatch.setattr(activation, "start_again", started.append)
    monkeypatch.setattr(repair, "repair", lambda *_: False)
    silent = {**WHOLE, "logging_verbosity": {**WHOLE["logging_verbosity"], "message_sending": None}}
    releases.write_config(VERSION, text_of(silent))
    releases.hide_secrets()
    beside(releases).unlink()
    update_pass.run()
    assert json.loads(releases.active_text()) == silent
    assert started == ["ivy-tenta.service"]


@pytest.mark.parametrize("with_pass", [False, True])
def test_whoever_edits_the_file_keeps_its_secrets(releases: Releases, with_pass: bool) -> None:
    path = releases.config_file(VERSION)
    for seconds in (11, 12):
        content = json.loads(path.read_text())
        content["system_checks"] = {"seconds_between_checks": seconds}
        path.write_text(json.dumps(content, indent=2))
        wanted = {**WHOLE, "system_checks": {"seconds_between_checks": seconds}}
        assert json.loads(releases.active_text()) == wanted
        if with_pass:
            releases.hide_secrets()
            assert json.loads(releases.active_text()) == wanted
    assert lost_secrets.restore(releases) == []


def test_an_edited_file_keeps_its_secrets_where_power_fails_in_a_change(
    releases: Releases, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = releases.config_file(VERSION)
    path.write_text(json.dumps(json.loads(path.read_text()), indent=2))
    fail_at(monkeypatch, "config.json", "the power is away")
    with pytest.raises(OSError, match="the power"):
        releases.write_config(VERSION, text_of(at("localhost")))
    assert json.loads(releases.active_text()) == WHOLE
