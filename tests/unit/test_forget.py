"""`ivy forget-node`: what made this node is gone, whenever the power fails; software and operator's keys stay."""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ivy import constants
from ivy.cli import forget, update
from ivy.types.config import Config, ForeignConfig
from ivy.types.messages import DataMessageBody
from ivy.utils.host import units
from ivy.utils.mainloop_toggle import MainloopToggle
from ivy.utils.messaging_agent import ACTIVE_QUEUE_FILE, MessagingAgent
from ivy.utils.updates import history, sandbox
from ivy.utils.updates.releases import Releases
from ivy.version import Version
from tests.support.helpers import ARCHIVE_DIR, BACKEND, CONFIG, DATA_DIR, UPDATER, Node, make_release
from tests.support.power import Power, PowerCut
from tests.unit.archives import Ivy

VERSION, OLDER = constants.VERSION, Version("1.0.7")
ROOF = {**CONFIG, "general": {**CONFIG["general"], "config_revision": 7, "software_version": f"{VERSION}"}}
ROOF["general"]["system_identifier"] = "roof-2"
SECRETS = ("hidden-user", "hidden-password", "hidden-token")
TEMPLATE = Path(constants.PROJECT_DIR, "config", "config.template.json")


@pytest.fixture
def used(root_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Releases:
    """A node that has run for days, with another release on its disk."""
    etc = tmp_path / "etc"
    etc.mkdir()
    monkeypatch.setattr(constants, "CONFIG_LINK", str(etc / "config.json"))
    fill(etc)
    return Releases()


def fill(etc: Path) -> None:
    releases = Releases()
    for name in ("node.pem", "node.key", "ca.crt", "allowed_signers"):
        (etc / name).write_text(name)
    files = {"enabled": True, "certificate_file": f"{etc}/node.pem", "key_file": f"{etc}/node.key"}
    tls = {**files, "ca_file": f"{etc}/ca.crt"}
    backend = {**BACKEND, "mqtt_connection": {**BACKEND["mqtt_connection"], "tls": tls}}
    config = {**ROOF, "backend": backend, "updater": UPDATER}
    for version in (OLDER, VERSION):
        release = releases.directory(version)
        make_release(release)
        shutil.copy(TEMPLATE, release / "config")
        releases.activate(version)
        general = {**ROOF["general"], "software_version": f"{version}"}
        releases.write_config(version, json.dumps({**config, "general": general}))
        releases.end_probation()
        (release / "config" / ".env").write_text("API_TOKEN=hidden-token\n")
    with history.update() as past:
        past.last_good = ForeignConfig.model_validate(config)
    for name in ("registration.json", "announced", "card-noted", ".env"):
        (releases.root / name).write_text("hidden-token")
    Path(constants.BACKEND_DIR).mkdir(exist_ok=True)
    Path(constants.BACKEND_DIR, "state.json").write_text("hidden-token")
    Path(constants.PROVISION_FILE).write_text("hidden-token")
    Path(constants.MACHINE_DIR).mkdir(exist_ok=True)
    Path(constants.MACHINE_DIR, "all-reboots").write_text("link\n")
    agent = MessagingAgent()
    for number in range(3):
        agent.add_message(DataMessageBody(data={"number": number}))
    agent.teardown()


def contents(*places: Path) -> dict[str, bytes]:
    paths = (path for place in places for path in place.rglob("*") if path.is_file() and not path.is_symlink())
    return {str(path): path.read_bytes() for path in paths}


def check(releases: Releases, etc: Path) -> None:
    """It is as new."""
    left = contents(releases.root, etc)
    leaking = [path for path, content in left.items() if any(secret.encode() in content for secret in SECRETS)]
    assert leaking == []
    config = Config.load_from_string(releases.active_text())
    assert config.backend is None and config.general.config_revision == -1
    assert config.general.software_version == VERSION
    assert config.general.system_identifier == os.uname().nodename
    assert sorted(path.name for path in etc.iterdir()) == ["allowed_signers", "ca.crt", "config.json"]
    assert (etc / "config.json").resolve() == releases.config_file(VERSION)
    assert list(DATA_DIR.iterdir()) == []
    assert releases.installed() == [OLDER, VERSION] and releases.current() == VERSION
    configs = releases.config_file(OLDER).parent
    assert [path.name for path in configs.iterdir()] == ["config.template.json"]


def test_a_node_is_as_new(used: Releases) -> None:
    etc = Path(constants.CONFIG_LINK).parent
    assert os.path.exists(ACTIVE_QUEUE_FILE) and list(ARCHIVE_DIR.iterdir())
    forget.forget(used)
    check(used, etc)
    forget.forget(used)
    check(used, etc)


def test_at_any_instant_it_has_no_backend_or_all_of_it_and_is_forgotten_the_next_time(
    used: Releases, monkeypatch: pytest.MonkeyPatch
) -> None:
    etc = Path(constants.CONFIG_LINK).parent
    power = Power(monkeypatch, ("unlink", "rename", "replace", "rmdir"))
    for cut in range(1, 100):
        power.calls_left = cut
        try:
            forget.forget(used)
            break
        except PowerCut:
            config = Config.load_from_string(used.active_text())
            assert config.backend is None or config.backend.mqtt_connection.password == "hidden-password"
        power.calls_left = 0
        forget.forget(used)
        check(used, etc)
        shutil.rmtree(used.root)
        shutil.rmtree(etc)
        DATA_DIR.mkdir(parents=True)
        etc.mkdir()
        fill(etc)
    assert 10 < cut < 99


def test_a_machine_has_another_number_name_and_keys_at_its_next_boot(tmp_path: Path) -> None:
    (tmp_path / "etc/ssh").mkdir(parents=True)
    for name in ("ssh_host_rsa_key", "ssh_host_rsa_key.pub", "sshd_config"):
        (tmp_path / "etc/ssh" / name).write_text(name)
    (tmp_path / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    (tmp_path / "etc/hostname").write_text("roof-2\n")
    (tmp_path / "etc/hosts").write_text("127.0.0.1 localhost\n127.0.1.1 roof-2\n")
    for _ in range(2):
        forget.forget_machine(tmp_path)
        assert [path.name for path in (tmp_path / "etc/ssh").iterdir()] == ["sshd_config"]
        assert (tmp_path / "etc/machine-id").read_text() == ""
        assert (tmp_path / "etc/hostname").read_text() == "ivy-node\n"
        assert (tmp_path / "etc/hosts").read_text() == "127.0.0.1 localhost\n127.0.1.1 ivy-node\n"


class Terminal:
    """Somebody who answers one question."""

    def __init__(self, answer: str | None) -> None:
        self.answer = answer

    def isatty(self) -> bool:
        return self.answer is not None

    def readline(self) -> str:
        return f"{self.answer}\n"


@pytest.fixture
def ivy_as_root(node: Node, ivy_of_node: Ivy, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ivy]:
    """Runs the command as root, without systemd."""
    node.fake("systemctl", {})
    monkeypatch.setattr(sandbox, "stop_all", lambda: None)
    monkeypatch.setattr("signal.signal", lambda *_: None)  # these are the tests' own
    if os.geteuid() != 0:
        monkeypatch.setattr(update, "require_admin", lambda: None)
    yield ivy_of_node


@pytest.mark.parametrize(
    ("answer", "options", "status", "said"),
    [
        (None, [], 2, "if you are sure: --yes"),
        ("roof-3", [], 1, "that is another name"),
        ("", [], 1, "that is another name"),
        ("roof-2", [], 0, ""),
        (None, ["--yes"], 0, ""),
    ],
)
def test_it_asks_for_the_name_and_says_what_is_lost(
    used: Releases,
    ivy_as_root: Ivy,
    node: Node,
    monkeypatch: pytest.MonkeyPatch,
    answer: str | None,
    options: list[str],
    status: int,
    said: str,
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    before = contents(used.root)
    ended, output, errors = ivy_as_root("forget-node", *options)
    assert ended == status, errors
    assert "roof-2: 3 messages wait to be sent" in output and "the archive, of 1 days" in output
    assert said in errors
    if status != 0:
        assert contents(used.root) == before and not any(" stop " in call for call in node.calls())
        return
    calls = node.calls()
    assert calls.index("systemctl stop -- ivy.target") < calls.index("systemctl start -- ivy.target")
    assert "ivy setup" in output
    config = Config.load_from_string(used.active_text())
    assert config.backend is None and not Path(ACTIVE_QUEUE_FILE).exists()


@pytest.mark.parametrize(("owner", "step"), [(forget, "forget"), (MainloopToggle, "stop_mainloop")])
def test_whatever_ends_it_the_node_samples_on(
    used: Releases, ivy_as_root: Ivy, node: Node, monkeypatch: pytest.MonkeyPatch, owner: object, step: str
) -> None:
    def fail(*_: object) -> None:
        units.control("stop", units.TARGET)  # stopping may take long, and be interrupted
        raise OSError("Read-only file system")

    monkeypatch.setattr(owner, step, fail)
    status, _, errors = ivy_as_root("forget-node", "--yes")
    assert status == 1 and "Read-only file system" in errors
    calls = node.calls()
    assert calls.index("systemctl stop -- ivy.target") < calls.index("systemctl start -- ivy.target")
