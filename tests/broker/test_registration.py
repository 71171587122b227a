"""`ivy setup` of a node that registers itself, at the strict stand-in. How a config is applied is seen on nodes."""

import io
import json
import os
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from ivy.cli import main, setup, update
from ivy.types.config import Config
from ivy.utils.updates.releases import Releases
from tests.support.helpers import CONFIG
from tests.support.provisioning import Provisioning
from tests.support.thingsboard_server import BAD_CREDENTIALS, TRY_LATER, ThingsBoardServer

KEY, SECRET = "profile-key", "profile-secret"


class Site:
    """A node whose config has no backend, and a platform where it may register."""

    def __init__(self, server: ThingsBoardServer, root: Path) -> None:
        self.server = server
        self.provisioning = Provisioning(KEY, SECRET)
        server.provisioning = self.provisioning
        self.root = root
        self.config: dict[str, Any] = {**CONFIG}
        self.applied: list[dict[str, Any]] = []
        self.verdict = 0
        """What becomes of configs that are applied."""

    def apply(self, text: str, _wish: update.Wish) -> int:
        Config.load_from_string(text)
        self.applied.append(json.loads(text))
        if self.verdict == 0:
            self.config = self.applied[-1]
        return self.verdict

    @property
    def token(self) -> str:
        """What the config says."""
        return str(self.config["backend"]["mqtt_connection"]["username"])

    def kept(self) -> list[str]:
        """What else the node remembers."""
        return [path.name for path in self.root.iterdir()]

    def call(self, *arguments: str) -> int | str | None:
        try:
            return setup.run(main.parser().parse_args(["setup", *arguments]))
        except SystemExit as ended:
            return ended.code

    def register(self, *more: str, secret: str = SECRET) -> int | str | None:
        (self.root.parent / "secret").write_text(f"{secret}\n")
        where = ["--host", "127.0.0.1", "--port", str(self.server.port), "--tls", "no"]
        how = ["--provision-key", KEY, "--provision-secret-file", str(self.root.parent / "secret")]
        return self.call("--provider", "thingsboard", *where, *how, "--identifier", "roof-7", *more)

    def file(self, **changes: Any) -> Path:
        """A file as a new node finds it."""
        content = {
            "host": "127.0.0.1",
            "port": self.server.port,
            "tls": {"enabled": False},
            "identifier": "roof-7",
            "provision_key": KEY,
            "provision_secret": SECRET,
            **changes,
        }
        path = self.root.parent / "provision.json"
        path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
        return path


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Site, None, None]:
    (tmp_path / "root").mkdir()
    with ThingsBoardServer(lambda *_: BAD_CREDENTIALS) as server:
        site = Site(server, tmp_path / "root")
        monkeypatch.setattr(Releases, "__init__", lambda self: setattr(self, "root", site.root))
        monkeypatch.setattr(Releases, "active_text", lambda _: json.dumps(site.config))
        monkeypatch.setattr(update, "require_admin", lambda: None)
        monkeypatch.setattr(update, "apply_text", site.apply)
        monkeypatch.setattr(sys, "stdin", io.StringIO())  # nobody is at the terminal
        yield site


def test_a_node_registers_and_its_token_gets_into_the_config(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    assert site.register() == 0
    assert site.provisioning.devices == {"roof-7": site.token} and len(site.token) >= 20
    assert site.config["general"] == {**CONFIG["general"], "system_identifier": "roof-7"}
    assert site.config["system_checks"] == CONFIG["system_checks"]
    connection = site.config["backend"]["mqtt_connection"]
    assert site.config["backend"]["provider"] == "thingsboard"
    assert (connection["port"], connection["client_id"]) == (site.server.port, "roof-7")
    # What nobody asked for is not there: an older release, to which the node may go back, would not know it.
    assert connection.keys() == {"host", "port", "client_id", "username", "password", "tls"}
    said = "".join(capsys.readouterr())
    assert "Registering roof-7 at" in said and site.token not in said and SECRET not in said
    assert site.kept() == []


def test_a_second_time_it_keeps_what_it_has(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert site.register() == 0 == site.register()
    assert len(site.applied) == 1 and site.provisioning.requests == ["roof-7"]
    assert "its token works: nothing was changed" in capsys.readouterr().out


def test_a_token_that_may_work_is_not_replaced(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert site.register() == 0
    del site.provisioning.devices["roof-7"]
    site.server.stop()
    assert site.register() == 75
    assert "nobody can tell whether the token" in capsys.readouterr().err
    site.server.start()
    assert len(site.applied) == 1 and site.provisioning.requests == ["roof-7"]
    # Only the platform's word that it is not known counts.
    assert site.register() == 0
    assert site.provisioning.devices == {"roof-7": site.token} and len(site.applied) == 2


def test_a_registered_node_does_not_become_another_device(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert site.register() == 0
    assert site.register("--identifier", "roof-8") == 1
    assert "not once more as roof-8; to rename it" in capsys.readouterr().err
    assert list(site.provisioning.devices) == ["roof-7"]


def test_a_name_that_another_device_has_changes_nothing(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.provisioning.devices["roof-7"] = "of another"
    assert site.register() == 1
    assert "Delete that device at the platform" in capsys.readouterr().err
    assert site.applied == []


def test_a_wrong_secret_changes_nothing(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert site.register(secret="another") == 1
    assert "nothing was changed" in capsys.readouterr().err
    assert site.applied == [] and site.provisioning.devices == {}
    assert site.register() == 0


def test_a_platform_that_is_away_is_to_be_tried_again(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.server.stop()
    assert site.register() == 75
    assert "Connection refused" in capsys.readouterr().err
    with ThingsBoardServer(lambda *_: TRY_LATER, site.server.port):
        assert site.register() == 75


def test_a_lost_answer_costs_nothing(site: Site) -> None:
    site.provisioning.says = b"{}"
    assert site.register() == 75
    assert list(site.provisioning.devices) == ["roof-7"] and site.applied == []
    assert os.stat(site.root / "registration.json").st_mode & 0o777 == 0o600
    site.provisioning.says = None
    assert site.register() == 0, "the token that it asked for lets it in"
    assert site.provisioning.devices == {"roof-7": site.token} and site.provisioning.requests == ["roof-7"]
    assert site.kept() == []


def test_a_config_that_is_rejected_costs_no_second_device(site: Site) -> None:
    site.verdict = 1
    assert site.register() == 1
    site.verdict = 0
    assert site.register() == 0
    assert site.provisioning.requests == ["roof-7"] and site.provisioning.devices == {"roof-7": site.token}


def test_a_token_is_kept_for_one_name(site: Site) -> None:
    site.provisioning.says = b"{}"
    assert site.register() == 75
    site.provisioning.says = None
    assert site.register("--identifier", "roof-8") == 0
    assert site.provisioning.devices["roof-8"] == site.token != site.provisioning.devices["roof-7"]


@pytest.mark.parametrize("damage", [b"", b"\xff", b"[]", b'{"token": 7}', b'{"token": ""}'])
def test_a_damaged_note_is_none(site: Site, damage: bytes) -> None:
    (site.root / "registration.json").write_bytes(damage)
    assert site.register() == 0


def test_a_new_node_finds_it_in_a_file_which_is_removed(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    path = site.file()
    link = site.root.parent / "link.json"
    link.symlink_to(path)
    assert site.call("--provision-file", str(link)) == 0
    assert site.provisioning.devices == {"roof-7": site.token}
    assert not path.exists()
    assert SECRET not in "".join(capsys.readouterr())
    assert site.call("--provision-file", str(site.file())) == 0, "as it has what works"
    assert not path.exists() and len(site.applied) == 1


def test_least_of_all_a_file_says_where_and_the_key(site: Site) -> None:
    name = os.uname().nodename
    path = site.file(identifier=None, provision_secret="another")
    path.write_text(f"\ufeff{path.read_text()}")  # as an editor on a desk may begin it
    assert site.call("--provision-file", str(path)) == 1
    assert site.provisioning.requests == [name]


def test_a_file_stays_until_it_has_worked_and_is_nobody_elses(site: Site) -> None:
    path = site.file(provision_key="another")
    path.chmod(0o644)
    assert site.call("--provision-file", str(path)) == 1
    assert path.stat().st_mode & 0o777 == 0o600
    site.server.stop()
    assert site.call("--provision-file", str(path)) == 75
    assert path.exists() and site.applied == []


def test_a_file_stays_while_the_config_with_the_token_is_on_trial(site: Site) -> None:
    """As after a power cut: it may be undone yet."""
    assert site.register() == 0
    path = site.file()
    site.root.joinpath("1.0.0").mkdir()
    site.root.joinpath("previous").symlink_to("1.0.0")
    assert site.call("--provision-file", str(path)) == 75 and path.exists()
    site.root.joinpath("previous").unlink()
    assert site.call("--provision-file", str(path)) == 0 and not path.exists()
    assert len(site.applied) == 1


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is not valid JSON: line 1"),
        ("[" * 100_000, "is too large"),
        ("[" * 60_000, "is not valid JSON"),
        ("[]", "should be a valid dictionary"),
        ('{"host": "h", "provision_key": "k"}', "provision_secret: Field required"),
        ('{"host": "h", "provision_key": "k", "provision_secret": ""}', "provision_secret: "),
        ('{"host": "h", "provision_key": "k", "provision_secret": "MINE", "port": 0}', "port: "),
        ('{"host": "h", "provision_key": "k", "provision_secret": "MINE", "x": 1}', "x: unknown field, remove it"),
        ('{"host": "h", "provision_key": "k", "provision_secret": "MINE", "provider": "tenta"}', "provider: "),
        ('{"host": "h", "provision_key": "k", "provision_secret": "MINE" "x"}', "is not valid JSON: line 1"),
        ('{"host": "h", "host": "i", "provision_key": "k", "provision_secret": "MINE"}', '"host" stands twice'),
        ('{"host": "h", "port": ' + 5000 * "1" + ', "provision_secret": "MINE"}', "too many digits"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_without_its_secret(
    site: Site, text: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = site.file()
    path.write_text(text)
    assert site.call("--provision-file", str(path)) == 78
    said = capsys.readouterr()
    assert f"{path}" in said.err and complaint in said.err
    assert "MINE" not in said.out + said.err and path.exists()


def test_a_file_that_is_none_is_not_waited_for(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    pipe = site.root.parent / "pipe"
    os.mkfifo(pipe)
    for name, complaint in ((pipe, "is not a regular file"), (site.root.parent / "nothing", "No such file")):
        assert site.call("--provision-file", str(name)) == 78
        assert complaint in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--provision-key", "k"], "--provision-secret-file is missing"),
        (["--provision-secret-file", "/dev/null"], "--provision-key is missing"),
        (["--provision-key", "k", "--provision-secret-file", "/nowhere"], "/nowhere cannot be read"),
        (["--provision-key", "k", "--provision-secret-file", "/dev/null"], "provision_secret: "),
        (["--provision-key", "k", "--provider", "tenta"], "only thingsboard registers nodes"),
        (["--provision-key", "k", "--username", "u"], "--username means nothing beside --provision-key"),
        (["--provision-key", "k", "--no-test"], "--no-test means nothing beside --provision-key"),
        (["--provision-file", "/nowhere", "--host", "h"], "--host means nothing beside --provision-file"),
    ],
)
def test_wrong_use_is_named(
    site: Site, arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    where = [] if "--provision-file" in arguments else ["--host", "127.0.0.1"]
    assert site.call(*where, *arguments) == 2
    assert complaint in capsys.readouterr().err
    assert site.applied == [] and site.provisioning.requests == []
