"""`ivy setup` with a real broker: what it asks, tries, and hands over. How a config is applied is seen on nodes."""

import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from testbed.broker import Broker

from ivy.cli import main, setup, update
from ivy.types.config import Config
from ivy.utils.updates.releases import Releases
from tests.support.backend_node import PASSWORD, SENSOR
from tests.support.helpers import CONFIG


@pytest.fixture
def applied(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The configs that are handed over, on a node whose active config has no backend."""
    configs: list[dict[str, Any]] = []

    def apply_text(text: str, _wish: update.Wish) -> int:
        Config.load_from_string(text)
        configs.append(json.loads(text))
        return 0

    monkeypatch.setattr(update, "require_admin", lambda: None)
    monkeypatch.setattr(Releases, "active_text", lambda _: json.dumps(CONFIG))
    monkeypatch.setattr(update, "apply_text", apply_text)
    monkeypatch.setattr(sys, "stdin", io.StringIO())  # nobody is at the terminal
    return configs


@pytest.fixture
def password_file(tmp_path: Path) -> str:
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    return str(tmp_path / "password")


def call(*arguments: str) -> int | str | None:
    try:
        return setup.run(main.parser().parse_args(["setup", *arguments]))
    except SystemExit as ended:
        return ended.code


def options(broker: Broker, password_file: str) -> list[str]:
    login = ["--identifier", SENSOR, "--username", SENSOR, "--password-file", password_file]
    return ["--host", broker.address, "--port", str(broker.port), "--tls", "no", *login]


def test_files_are_named_and_read_as_they_are_at_a_desk(
    applied: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that is said from where one is, and a text that Notepad has written."""
    monkeypatch.chdir(tmp_path)
    Path("password").write_bytes(f"{PASSWORD}\r\n".encode("utf-8-sig"))
    login = ["--identifier", SENSOR, "--username", SENSOR, "--password-file", "password", "--no-test"]
    assert call("--host", "localhost", "--tls", "yes", "--ca-file", "ca.crt", *login) == 0
    [config] = applied
    connection = config["backend"]["mqtt_connection"]
    assert connection["tls"]["ca_file"] == str(tmp_path / "ca.crt") and connection["password"] == PASSWORD


def test_it_tries_the_login_and_keeps_the_rest_of_the_config(
    applied: list[dict[str, Any]], broker: Broker, password_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*options(broker, password_file)) == 0
    [config] = applied
    assert config["general"] == {**CONFIG["general"], "system_identifier": SENSOR}
    assert config["system_checks"] == CONFIG["system_checks"]
    connection = config["backend"]["mqtt_connection"]
    assert (config["backend"]["provider"], connection["port"], connection["password"]) == (
        "tenta",
        broker.port,
        PASSWORD,
    )
    assert "lets this node in" in capsys.readouterr().out
    # What nobody asked for is not there: an older release, to which the node may go back, would not know it.
    assert connection["tls"] == {"enabled": False, "ca_file": None}


def test_a_login_that_is_refused_changes_nothing(
    applied: list[dict[str, Any]], broker: Broker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "wrong").write_text("wrong")
    assert call(*options(broker, str(tmp_path / "wrong"))) == 1
    assert "Not authorized" in capsys.readouterr().err
    assert applied == []
    assert call(*options(broker, str(tmp_path / "wrong")), "--no-test") == 0


def test_hidden_means_the_password_that_the_node_has(
    applied: list[dict[str, Any]],
    broker: Broker,
    password_file: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "hidden").write_text("***")
    hidden = options(broker, str(tmp_path / "hidden"))
    assert call(*hidden) == 2
    assert "backend.mqtt_connection.password: is ***" in capsys.readouterr().err
    assert call(*options(broker, password_file)) == 0
    before = json.dumps(applied.pop())
    monkeypatch.setattr(Releases, "active_text", lambda _: before)
    assert call(*hidden) == 0
    assert json.dumps(applied.pop()) == before


@pytest.mark.parametrize("name", ["roof-7", SENSOR.upper(), f"{{{SENSOR}}}", SENSOR[:-1]])
def test_a_name_that_tenta_cannot_know_is_refused(
    applied: list[dict[str, Any]], broker: Broker, password_file: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*options(broker, password_file), "--identifier", name) == 2
    said = capsys.readouterr()
    assert "--identifier: " in said.err and "is not a UUID" in said.err and name in said.err
    assert "Trying" not in said.out and applied == []


def test_at_the_terminal_a_name_that_tenta_can_know_is_asked_for(
    applied: list[dict[str, Any]],
    broker: Broker,
    password_file: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked: list[str] = []
    answers = iter(["", "roof-7", SENSOR])

    def answer(question: str) -> str:
        asked.append(question)
        return next(answers)

    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr("builtins.input", answer)
    given = options(broker, password_file)
    given[given.index("--identifier") : given.index("--identifier") + 2] = []
    assert call("--provider", "tenta", *given) == 0
    assert asked == ["Name of this node there: "] * 3, "no host name is proposed"
    assert "'roof-7' is not a UUID" in capsys.readouterr().out
    assert applied[0]["general"]["system_identifier"] == SENSOR


def test_a_host_name_is_a_name_for_thingsboard(
    applied: list[dict[str, Any]], password_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    login = ["--host", "h", "--tls", "no", "--password-file", password_file]
    assert call("--provider", "thingsboard", *login, "--no-test") == 0
    assert applied[0]["general"]["system_identifier"] == os.uname().nodename


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--host", "h", "--password-file", "/proc/sys/kernel/ostype"], "is not a UUID"),
        ([], "--host is missing"),
        (["--host", "h"], "--password-file is missing"),
        (["--host", "h", "--password-file", "/nowhere"], "--password-file: /nowhere cannot be read"),
        (["--host", "h", "--port", "http", "--password-file", "/dev/null"], "port: "),
    ],
)
def test_what_is_missing_is_named(
    applied: list[dict[str, Any]], arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*arguments) == 2
    assert complaint in capsys.readouterr().err
    assert applied == []
