"""The config that was accepted last: when it is kept, who runs with it, and what becomes of one that is damaged."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ivy import constants, overview, update_pass
from ivy.types import accepted_config
from ivy.types.config import ConfigError, ForeignConfig, as_text
from ivy.types.messages import LogMessageBody
from ivy.types.updates import Offer
from ivy.utils.host.commands import CommandError
from ivy.utils.logger import Logger
from ivy.utils.messaging_agent import MessagingAgent
from ivy.utils.updater import Updater
from ivy.utils.updates import activation, damaged_config, repair
from ivy.utils.updates.releases import Releases
from ivy.version import Version
from tests.support.helpers import BACKEND, CONFIG, UPDATER, Node, make_config, make_release

VERSION = constants.VERSION
GENERAL = {**CONFIG["general"], "software_version": str(VERSION)}
WHOLE: dict[str, Any] = {**CONFIG, "general": GENERAL, "backend": BACKEND, "updater": UPDATER}
TEMPLATE = Path(constants.PROJECT_DIR, "config", "config.template.json")
SECRET = "hidden-password"
WRONG_FIELD = "system_checks.seconds_between_checks"


@pytest.fixture
def releases(root_dir: Path, node: Node, make_logger: type[Logger], monkeypatch: pytest.MonkeyPatch) -> Releases:
    """A node with a config that was accepted; no service of it runs, as there is no systemd."""
    monkeypatch.setattr(update_pass, "Logger", make_logger)
    monkeypatch.setenv("PATH", node.environment["PATH"])
    monkeypatch.setattr(repair, "repair", lambda *_: False)
    node.fake("systemctl", {})
    releases = Releases(root_dir)
    make_release_with_template(releases, VERSION)
    releases.activate(VERSION)
    releases.write_config(VERSION, json.dumps(WHOLE, indent=4))
    releases.keep_accepted()
    monkeypatch.setattr(constants, "PROJECT_DIR", str(releases.directory(VERSION)))
    return releases


def make_release_with_template(releases: Releases, version: Version) -> None:
    make_release(releases.directory(version))
    shutil.copy(TEMPLATE, releases.config_file(version).parent)


def active(releases: Releases) -> Path:
    return releases.config_file(VERSION)


def accepted(releases: Releases) -> Path:
    return releases.accepted_file(VERSION)


def changed(releases: Releases, **sections: Any) -> str:
    return json.dumps({**json.loads(active(releases).read_text()), **sections}, indent=4)


def zeros(path: Path) -> None:
    path.write_bytes(b"\0" * path.stat().st_size)


def nothing(path: Path) -> None:
    path.write_text("")


def noise(path: Path) -> None:
    path.write_bytes(b"{\xff\xfe")


def unreadable(path: Path) -> None:
    path.unlink()
    path.mkdir()


def gone(path: Path) -> None:
    path.unlink()


def dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


DAMAGES = [zeros, nothing, noise, unreadable, gone, dangling]


def typo(path: Path) -> None:
    path.write_text(path.read_text().replace('"queue": {', '"queue": ', 1).replace(",", "", 1))


def wrong_field(path: Path) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), "system_checks": {"seconds_between_checks": 0}}))


MISTAKES = [typo, wrong_field]
Damage = Callable[[Path], None]


def said() -> list[LogMessageBody]:
    agent = MessagingAgent()
    bodies = [item.message_body for item in agent.get_n_latest_messages(100)]
    agent.teardown()
    return [body for body in bodies if isinstance(body, LogMessageBody)]


@pytest.mark.parametrize("damage", [*DAMAGES, *MISTAKES])
def test_services_run_with_it_where_the_active_one_is_of_no_use(releases: Releases, damage: Damage) -> None:
    damage(active(releases))
    config, trouble = accepted_config.load()
    assert json.loads(as_text(config))["backend"]["mqtt_connection"]["password"] == SECRET
    assert trouble is not None and trouble.startswith(f"{active(releases)}: ")
    assert SECRET not in accepted(releases).read_text()


def test_an_active_config_that_can_be_used_is_used(releases: Releases) -> None:
    active(releases).write_text(changed(releases, system_checks={"seconds_between_checks": 77}))
    config, trouble = accepted_config.load()
    assert (config.system_checks.seconds_between_checks, trouble) == (77, None)


@pytest.mark.parametrize("damage", [zeros, wrong_field])
def test_where_both_are_of_no_use_the_active_one_is_complained_about(releases: Releases, damage: Damage) -> None:
    damage(active(releases))
    zeros(accepted(releases))
    with pytest.raises(ConfigError, match=r"config/config\.json: "):
        accepted_config.load()


def test_a_mistake_is_named_by_line_or_field(releases: Releases) -> None:
    wrong_field(active(releases))
    assert f": {WRONG_FIELD}: " in (accepted_config.load()[1] or "")
    active(releases).write_text(accepted(releases).read_text())
    typo(active(releases))
    assert "Invalid JSON: expected `,` or `}` at line 4 column" in (accepted_config.load()[1] or "")


def test_a_byte_order_mark_is_read_over(releases: Releases) -> None:
    active(releases).write_text(f"\ufeff{changed(releases, system_checks={'seconds_between_checks': 77})}")
    config, trouble = accepted_config.load()
    assert trouble is None and config.system_checks.seconds_between_checks == 77
    assert config.backend is not None and config.backend.mqtt_connection.password == SECRET
    assert json.loads(releases.active_text())["backend"]["mqtt_connection"]["password"] == SECRET
    update_pass.run()
    assert json.loads(releases.active_text())["updater"]["access_token"] == UPDATER["access_token"]
    offered = ForeignConfig.load_from_string(f"\ufeff{json.dumps(WHOLE)}")
    assert offered.general.config_revision == GENERAL["config_revision"]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_pass_restores_what_nobody_can_have_written(releases: Releases, damage: Damage) -> None:
    before = active(releases).read_text()
    damage(active(releases))
    update_pass.run()
    assert active(releases).read_text() == before
    assert active(releases).stat().st_mode & 0o777 == 0o640
    assert json.loads(releases.active_text()) == WHOLE
    [message] = said()
    assert message.level == "ERROR" and "was damaged" in message.subject
    assert f"{active(releases)}: " in message.body
    kept = list(active(releases).parent.glob("config.json.damaged-*"))
    assert len(kept) == (0 if damage is gone else 1)
    update_pass.run()
    assert len(said()) == 1


@pytest.mark.parametrize("is_on_trial", [False, True])
def test_a_sector_that_cannot_be_read_is_as_good_as_gone(
    releases: Releases, monkeypatch: pytest.MonkeyPatch, is_on_trial: bool
) -> None:
    """Also where nothing is beside it: the operator offers another config, and a pass takes it."""
    bad = active(releases).stat().st_ino
    read_text = Path.read_text

    def fail(self: Path, *arguments: Any, **options: Any) -> str:
        if self.stat().st_ino == bad:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(self))
        return read_text(self, *arguments, **options)

    monkeypatch.setattr(Path, "read_text", fail)
    accepted(releases).unlink()
    update_pass.run()
    if is_on_trial:
        releases.begin_probation()
    releases.write_config(VERSION, json.dumps(WHOLE))
    assert json.loads(releases.active_text()) == WHOLE
    releases.end_probation()
    assert accepted(releases).exists()


def test_what_is_set_aside_does_not_pile_up_and_is_for_root_only(releases: Releases) -> None:
    for content in (b"\0", b"\1"):
        active(releases).write_bytes(content)
        assert damaged_config.restore(releases) is not None
    [kept] = active(releases).parent.glob("config.json.damaged-*")
    assert kept.read_bytes() == b"\1" and kept.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_left_to_whoever_made_it_and_told_once(releases: Releases, mistake: Damage) -> None:
    mistake(active(releases))
    text = active(releases).read_text()
    for _ in range(2):
        update_pass.run()
    assert active(releases).read_text() == text
    [message] = said()
    assert message.level == "ERROR" and "cannot be used" in message.subject
    assert f"{active(releases)}: " in message.body and "ivy config edit" in message.body
    assert Path(damaged_config.MARK).exists()
    assert json.loads(releases.active_text()) == WHOLE

    active(releases).write_text(accepted(releases).read_text())
    update_pass.run()
    assert not Path(damaged_config.MARK).exists()
    assert "can be used again" in said()[-1].subject


def test_of_a_config_that_asks_for_no_backend_by_mistake_systemd_is_told(
    releases: Releases, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = iter([["ivy-system-checks.service"], ["ivy-system-checks.service", "ivy-tenta.service"]])
    switched: list[str | None] = []
    monkeypatch.setattr(activation, "services", lambda: next(wanted))
    monkeypatch.setattr(activation, "switch", switched.append)
    active(releases).write_text(changed(releases, backend=None, system_checks={}))
    update_pass.run()
    assert switched == ["ivy-tenta.service"]


def test_what_somebody_has_changed_by_hand_is_kept_too(releases: Releases) -> None:
    """The node works with it, and whoever changed it may have moved the broker."""
    active(releases).write_text(changed(releases, system_checks={"seconds_between_checks": 77}))
    update_pass.run()
    zeros(active(releases))
    config, _ = accepted_config.load()
    assert config.system_checks.seconds_between_checks == 77
    assert config.backend is not None and config.backend.mqtt_connection.password == SECRET


def test_a_secret_that_somebody_wrote_into_the_file_is_not_copied(releases: Releases) -> None:
    active(releases).write_text(json.dumps(WHOLE))
    releases.keep_accepted()
    assert SECRET not in accepted(releases).read_text()
    update_pass.run()
    assert accepted(releases).read_text() == active(releases).read_text()
    assert SECRET not in accepted(releases).read_text()


def test_what_is_on_trial_is_kept_once_it_is_accepted(releases: Releases) -> None:
    before = accepted(releases).read_text()
    moved = {**BACKEND, "mqtt_connection": {**BACKEND["mqtt_connection"], "host": "other", "password": "another"}}
    releases.begin_probation()
    releases.write_config(VERSION, json.dumps({**WHOLE, "backend": moved}))
    releases.keep_accepted()
    assert accepted(releases).read_text() == before
    zeros(active(releases))
    config, _ = accepted_config.load()
    assert config.backend is not None and config.backend.mqtt_connection.password == SECRET
    releases.write_config(VERSION, json.dumps({**WHOLE, "backend": moved}))
    releases.end_probation()
    zeros(active(releases))
    config, _ = accepted_config.load()
    assert config.backend is not None and config.backend.mqtt_connection.password == "another"
    assert SECRET not in (active(releases).with_name("secrets.json")).read_text(), "nobody needs it any more"


@pytest.mark.parametrize("damage", [zeros, gone, typo])
def test_the_way_back_from_a_trial_leads_to_what_ran(releases: Releases, damage: Damage) -> None:
    damage(active(releases))
    releases.begin_probation()
    releases.write_config(VERSION, json.dumps({**WHOLE, "backend": None}))
    releases.go_back()
    releases.end_probation()
    assert accepted_config.load()[1] is None
    assert json.loads(releases.active_text()) == WHOLE


def test_a_version_on_trial_is_judged_by_its_own_config(
    releases: Releases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was here before has an accepted config yet, which would hide that the offered one is of no use."""
    other = Version("9.2.0")
    make_release_with_template(releases, other)
    releases.accepted_file(other).write_text(active(releases).read_text())
    there: list[bool] = []
    monkeypatch.setattr(Updater, "run_pytests", lambda *_: there.append(releases.accepted_file(other).exists()))
    offer = Offer(identifier="admin-1", config=foreign_version(str(other)), source="rollback")
    monkeypatch.setattr("ivy.utils.updates.environment.fits", lambda _: True)
    monkeypatch.setattr("ivy.utils.updates.environment.check", lambda _: None)
    monkeypatch.setattr("ivy.utils.updates.trial.Trials.watch", lambda *_: None)
    assert Updater(make_config(updater=UPDATER)).perform(offer) is None
    assert there == [False]


def foreign_version(version: str) -> ForeignConfig:
    return ForeignConfig.model_validate({**WHOLE, "general": {**GENERAL, "software_version": version}})


def test_a_release_that_keeps_its_secrets_inside_gets_no_copy(releases: Releases) -> None:
    accepted(releases).unlink()
    (releases.directory(VERSION) / "units" / "ivy-owners.service").unlink()
    releases.keep_accepted()
    assert not accepted(releases).exists()


def test_a_pass_of_another_version_knows_too_little_to_replace_it(
    releases: Releases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package's updater stands in for that of a broken release."""
    monkeypatch.setattr(constants, "VERSION", Version("1.0.9"))
    wrong_field(active(releases))
    before = accepted(releases).read_text()
    releases.keep_accepted()
    assert accepted(releases).read_text() == before


def test_a_reload_that_fails_is_made_again_and_told_after_it(
    releases: Releases, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where /run has no room."""
    node.fake("systemctl", {"daemon-reload": "exit 1"})
    wrong_field(active(releases))
    with pytest.raises(CommandError):
        update_pass.run()
    assert said() == []
    node.fake("systemctl", {})
    update_pass.run()
    assert len(said()) == 1


def test_a_disk_that_takes_nothing_stops_no_pass(releases: Releases, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if target.name == accepted(releases).name:
            raise OSError("no space left on device")
        return rename(self, target)

    accepted(releases).unlink()
    monkeypatch.setattr(Path, "rename", fail)
    update_pass.run()
    assert not accepted(releases).exists()


def test_the_digest_is_of_what_is_in_use_whatever_its_layout_and_its_secrets(releases: Releases) -> None:
    before = accepted_config.digest(is_accepted=False)
    assert before is not None and accepted_config.digest(is_accepted=True) == before
    connection = {**BACKEND["mqtt_connection"], "password": "another-one"}
    again = {"updater": UPDATER, "backend": {**BACKEND, "mqtt_connection": connection}, "general": GENERAL}
    for text in (json.dumps({**again, **WHOLE}), json.dumps({**WHOLE, **again}), active(releases).read_text()):
        active(releases).write_text(f"\ufeff{text}\n")
        assert accepted_config.digest(is_accepted=False) == before
    active(releases).write_text(json.dumps({**WHOLE, "system_checks": {"seconds_between_checks": 77}}))
    other = accepted_config.digest(is_accepted=False)
    assert other is not None and other != before and overview.look().config_digest == other
    active(releases).write_text("{")
    assert accepted_config.digest(is_accepted=False) is None and overview.look().config_digest == before
