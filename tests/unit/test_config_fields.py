"""`ivy config get`, `ivy config set`: one field of the config, by its path."""

import io
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ivy import constants
from ivy.cli import fields
from ivy.types.config import Config
from ivy.types.updates import Offer
from ivy.utils.functions import procedure_names
from ivy.utils.updater import Updater
from ivy.utils.updates.releases import Releases
from ivy.version import Version
from tests.support.helpers import BACKEND, CONFIG, UPDATER, Node
from tests.unit.archives import Ivy

VERSION = Version("1.0.0")
CONNECTION = BACKEND["mqtt_connection"]
PROTOCOL = "backend.mqtt_connection.protocol"

Set = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("general.system_identifier", "node-1"),
        (PROTOCOL, None),
        ("backend.mqtt_connection.port", CONNECTION["port"]),
        ("backend.mqtt_connection.password", "***"),
        ("backend.mqtt_connection.tls.enabled", False),
        ("queue.max_megabytes", 2000),
        ("updater", None),
        ("procedures", {}),
        ("procedures.system_checks.enabled", True),
    ],
)
def test_one_field_is_shown_as_json(node: Node, ivy_of_node: Ivy, path: str, value: Any) -> None:
    node.write_config(backend=BACKEND)
    status, output, errors = ivy_of_node("config", "get", path)
    assert (status, errors) == (0, "") and json.loads(output) == value


def test_a_section_is_shown_as_show_does(node: Node, ivy_of_node: Ivy) -> None:
    node.write_config(backend=BACKEND)
    shown = json.loads(ivy_of_node("config", "show")[1])
    for name, section in shown.items():
        assert json.loads(ivy_of_node("config", "get", name)[1]) == section
    assert CONNECTION["password"] not in ivy_of_node("config", "get", "backend")[1]


@pytest.mark.parametrize("verb", [["get"], ["set"]])
@pytest.mark.parametrize(
    ("path", "near"),
    [
        ("protocol", f"Did you mean {PROTOCOL}?"),
        ("backend.mqtt_conection.protocol", f"Did you mean {PROTOCOL}"),
        ("quue.max_megabyte", "Did you mean queue.max_megabytes"),
        ("max_megabyte", "Did you mean queue.max_megabytes?"),
        ("surprise", "See ivy config show"),
        ("procedures.surprise.enabled", "there is no"),
        ("general.software_version.major", "there is no"),
    ],
)
def test_an_unknown_path_gets_the_nearest_ones(
    node: Node, ivy_of_node: Ivy, verb: list[str], path: str, near: str
) -> None:
    node.write_config()
    status, output, errors = ivy_of_node("config", *verb, path, *(["1"] if verb == ["set"] else []))
    assert (status, output) == (2, "") and f"there is no {path!r}" in errors and near in errors


def test_what_is_below_null_is_told(node: Node, ivy_of_node: Ivy) -> None:
    node.write_config()
    assert ivy_of_node("config", "get", PROTOCOL) == (1, "", "ivy: backend is null in the config\n")


def test_every_path_can_be_found_and_replaced() -> None:
    config = {**CONFIG, "backend": BACKEND, "updater": UPDATER}
    content = Config.load_from_string(json.dumps(config)).model_dump(mode="json")
    known = list(fields.paths())
    assert {path for path in known if "." not in path} == set(Config.model_fields)
    assert f"procedures.{procedure_names()[0].replace('-', '_')}.max_silent_seconds" in known
    for path in known:
        fields.check(path)
        value = fields.find(content, path)
        assert fields.find(fields.replace(content, path, json.dumps(value)), path) == value


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> list[Offer]:
    """What was offered to the updater, which accepts all."""
    offers: list[Offer] = []

    def perform(_updater: Updater, offer: Offer, **_: bool) -> None:
        offers.append(offer)

    monkeypatch.setattr(Updater, "perform", perform)
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # these are the tests' own
    return offers


@pytest.fixture
def ivy_of_root(node: Node, ivy_of_node: Ivy) -> Set:
    """Runs the command as root, whoever runs the tests, on a node with a backend whose secrets are kept."""
    node.fake("systemctl", {})
    releases = Releases()
    (releases.directory(VERSION) / "units").mkdir(parents=True)
    (releases.directory(VERSION) / "units" / "ivy-owners.service").touch()
    releases.config_file(VERSION).parent.mkdir()
    releases.write_config(VERSION, json.dumps({**CONFIG, "backend": BACKEND, "updater": UPDATER}))
    releases.activate(VERSION)

    def run(*arguments: str, given: str = "") -> tuple[int, str, str]:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(os, "geteuid", lambda: 0)
            patched.setattr(sys, "stdin", io.StringIO(given))
            return ivy_of_node("config", *arguments)

    return run


@pytest.mark.parametrize(
    ("path", "text", "value"),
    [
        ("general.system_identifier", "roof-7", "roof-7"),
        ("general.system_identifier", '"roof 7"', "roof 7"),
        ("general.system_identifier", "7", "7"),
        (PROTOCOL, '"5"', "5"),
        (PROTOCOL, "5", "5"),
        (PROTOCOL, "7", 7),  # for the updater to say what is wrong with it
        (PROTOCOL, "null", None),
        ("queue.max_megabytes", "100", 100),
        ("backend.mqtt_connection.tls.enabled", "true", True),
        ("backend", "null", None),
        ("procedures.system_checks.max_silent_seconds", "600", 600),
    ],
)
def test_one_field_is_changed_as_apply_does(
    ivy_of_root: Set, offered: list[Offer], path: str, text: str, value: Any
) -> None:
    status, _, errors = ivy_of_root("set", path, text)
    assert status == 0, errors
    [offer] = offered
    content: Any = offer.config.model_dump(mode="json")
    before: Any = json.loads(Releases().shown_text())
    *above, last = path.split(".")
    for step in above:
        content, before = content[step], before.get(step, {})
    assert content.pop(last) == value
    before.pop(last, None)
    assert content == before, "all else is as it was"


def test_what_is_set_to_what_it_is_is_no_offer(ivy_of_root: Set, offered: list[Offer]) -> None:
    assert ivy_of_root("set", "general.system_identifier", "node-1") == (0, "Nothing was changed.\n", "")
    assert offered == []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("backend.mqtt_connection.password", "typed-here"),
        ("backend.mqtt_connection", json.dumps({**CONNECTION, "password": "typed-here"})),
    ],
)
def test_a_secret_is_no_argument(ivy_of_root: Set, offered: list[Offer], path: str, text: str) -> None:
    status, output, errors = ivy_of_root("set", path, text)
    assert (status, output, offered) == (2, "", [])
    assert f"ivy config set {path} -" in errors and "typed-here" not in errors
    assert ivy_of_root("set", path, "-", given=f"{text}\n")[0] == 0
    assert offered[0].config.section("backend")["mqtt_connection"]["password"] == "typed-here"


def test_a_config_that_cannot_be_read_has_no_fields(ivy_of_root: Set, offered: list[Offer]) -> None:
    Releases().config_file(VERSION).write_text("{")
    status, _, errors = ivy_of_root("set", PROTOCOL, "5")
    assert status == constants.EXIT_CONFIG_ERROR and "ivy config edit" in errors and offered == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can read what it shows")
def test_what_show_prints_can_be_applied(
    node: Node, ivy_of_node: Ivy, ivy_of_root: Set, offered: list[Offer], tmp_path: Path
) -> None:
    node.write_config(backend=BACKEND, updater=UPDATER)
    status, shown, errors = ivy_of_node("config", "show")
    assert (status, errors) == (0, "") and "***" in shown and CONNECTION["password"] not in shown
    (tmp_path / "f").write_text(shown)
    assert ivy_of_root("apply", str(tmp_path / "f"))[0] == 0
    filled, _ = Releases().fill(offered[0].config)
    before = Config.load_from_string(Releases().active_text())
    assert Config.load_from_string(filled.model_dump_json()) == before
