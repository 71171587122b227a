"""Secrets of a config: what is hidden, where it is kept, and what `***` means."""

import json
from pathlib import Path
from typing import Any

import pydantic
import pytest

from ivy.types import secrets, secrets_file
from ivy.types.config import Config, ForeignConfig, split_text
from ivy.types.messages import ConfigMessageBody
from ivy.types.secrets import Secret, UnknownSecretError
from ivy.types.updates import Offer
from ivy.utils.updates.errors import Rejected
from ivy.utils.updates.policy import check_ways
from ivy.utils.updates.releases import Releases
from ivy.version import Version
from tests.support.helpers import BACKEND, CONFIG

VERSION = Version("1.1.0")
CONNECTION = BACKEND["mqtt_connection"]
UPDATER = {"repository": "a/b", "provider": "github", "provider_host": "github.com", "access_token": "the-token"}
WHOLE: dict[str, Any] = {**CONFIG, "backend": BACKEND, "updater": UPDATER}


class _Station(pydantic.BaseModel):
    name: str
    key: Secret


class _Wind(pydantic.BaseModel):
    stations: list[_Station] = []
    code: Secret | None = None


class _Schema(pydantic.BaseModel):
    wind: _Wind


WIND = {"stations": [{"name": "a", "key": "1"}, {"name": "b", "key": "2"}], "code": "3"}


def text_of(content: Any) -> str:
    return json.dumps(content, indent=4) + "\n"


@pytest.fixture
def releases(tmp_path: Path) -> Releases:
    for version in ("1.0.0", "1.1.0"):
        (tmp_path / version / "config").mkdir(parents=True)
        (tmp_path / version / "units").mkdir()
    (tmp_path / "1.1.0" / "units" / "ivy-owners.service").touch()
    (tmp_path / "data").mkdir()
    releases = Releases(tmp_path)
    releases.activate(VERSION)
    return releases


def with_password(password: str) -> str:
    return text_of({**WHOLE, "backend": {**BACKEND, "mqtt_connection": {**CONNECTION, "password": password}}})


def test_what_is_typed_as_secret_is_taken_out_of_any_section_and_put_back() -> None:
    shown, taken = secrets.split({"wind": WIND}, _Schema)
    assert shown["wind"]["stations"] == [{"name": "a", "key": "***"}, {"name": "b", "key": "***"}]
    assert [path for path, _ in secrets.values(taken)] == [
        "wind.stations.0.key",
        "wind.stations.1.key",
        "wind.code",
    ]
    assert secrets.merge(shown, taken) == {"wind": WIND}
    assert secrets.split({"wind": {"code": None}}, _Schema) == ({"wind": {"code": None}}, {})


def test_what_is_typed_as_secret_is_in_no_repr() -> None:
    assert "'1'" not in repr(_Schema.model_validate({"wind": WIND}))
    assert CONNECTION["password"] not in repr(Config.model_validate_json(text_of(WHOLE)))


@pytest.mark.parametrize("key", ["psk", "api_key", "pwd", "passwd", "pin", "auth", "credentials"])
def test_what_looks_secret_is_not_shown(key: str) -> None:
    foreign = ForeignConfig.model_validate({**CONFIG, "camera": {key: "hidden", "url": "rtsp://me:hidden@host/x"}})
    text = ConfigMessageBody(status="received", config=foreign).model_dump_json()
    assert "hidden" not in text and "rtsp://***@host/x" in text


@pytest.mark.parametrize("text", ["x" * 1_000_000, "a://" * 250_000, "a://" + "b:" * 500_000])
def test_a_long_text_is_looked_through_once(text: str) -> None:
    """By a search that takes the square of its length this test would not end today."""
    assert secrets.hide({"note": text}) == {"note": text}


def test_hidden_means_as_the_node_has_it() -> None:
    known = {"wind": WIND, "camera": {"pin": 7, "url": "rtsp://me:pw@host/x"}}
    assert secrets.fill(secrets.hide(known, _Schema), known, _Schema)[0] == known


def test_an_element_of_a_list_gets_no_secret_of_another() -> None:
    offered = {"wind": {"stations": [{"name": "b", "key": "***"}, {"name": "a", "key": "***"}]}}
    filled, paths = secrets.fill(offered, {"wind": WIND}, _Schema)
    assert filled["wind"]["stations"] == [{"name": "b", "key": "2"}, {"name": "a", "key": "1"}]
    assert paths == ["wind.stations.0.key", "wind.stations.1.key"]


@pytest.mark.parametrize("known", [{}, {"wind": {"code": None}}])
def test_hidden_where_the_node_has_nothing_is_refused_by_name(known: Any) -> None:
    with pytest.raises(UnknownSecretError, match=r"^wind\.code: "):
        secrets.fill({"wind": {"code": "***"}}, known, _Schema)


@pytest.mark.parametrize(
    ("section", "field", "value", "way"),
    [
        ("backend", "host", "evil.example", "backend.mqtt_connection.host"),
        ("backend", "tls", {"enabled": True}, "backend.mqtt_connection.tls"),
        ("updater", "provider_host", "evil.example", "updater.provider_host"),
    ],
)
def test_whoever_has_the_platform_cannot_have_a_secret_sent_elsewhere(
    section: str, field: str, value: Any, way: str
) -> None:
    active = ForeignConfig.model_validate(WHOLE)
    content = json.loads(text_of(WHOLE))
    (content["backend"]["mqtt_connection"] if section == "backend" else content["updater"])[field] = value
    path = "backend.mqtt_connection.password" if section == "backend" else "updater.access_token"
    offer = Offer.of_backend(ForeignConfig.model_validate(content))
    with pytest.raises(Rejected, match=way):
        check_ways(active, offer, [path])
    check_ways(active, offer.model_copy(update={"source": "admin"}), [path])
    check_ways(active, Offer.of_backend(active), [path])


def test_a_config_is_kept_without_its_secrets(releases: Releases) -> None:
    releases.write_config(VERSION, text_of(WHOLE))
    path = releases.config_file(VERSION)
    assert CONNECTION["password"] not in path.read_text() and "the-token" not in path.read_text()
    assert Config.load_from_string(path.read_text()), "services see no more"
    assert path.with_name("secrets.json").stat().st_mode & 0o777 == 0o600
    assert json.loads(releases.read_config(VERSION)) == WHOLE


def test_a_release_that_does_not_know_gets_them_inside(releases: Releases) -> None:
    old = Version("1.0.0")
    releases.write_config(old, text_of(WHOLE))
    assert releases.config_file(old).read_text() == text_of(WHOLE)
    releases.hide_secrets()
    assert releases.config_file(old).stat().st_mode & 0o777 == 0o600, "it does not run"
    releases.write_config(old, text_of(WHOLE))
    assert releases.config_file(old).stat().st_mode & 0o777 == 0o640


def test_what_was_written_into_a_config_is_taken_out(releases: Releases) -> None:
    path = releases.config_file(VERSION)
    path.write_text(text_of(WHOLE))
    releases.begin_probation()
    releases.hide_secrets()
    assert path.read_text() == text_of(WHOLE), "not on trial"
    releases.end_probation()
    releases.hide_secrets()
    assert path.read_text() == split_text(text_of(WHOLE))[0]
    assert json.loads(releases.read_config(VERSION)) == WHOLE
    before = path.stat()
    releases.hide_secrets()
    assert path.stat().st_ino == before.st_ino


def test_an_undone_config_has_its_secret_again_though_nothing_else_differs(releases: Releases) -> None:
    releases.write_config(VERSION, with_password("good"))
    releases.begin_probation()
    releases.write_config(VERSION, with_password("bad"))
    assert releases.read_config(VERSION).rstrip() == with_password("bad").rstrip()
    kept = releases.kept_config()
    assert kept is not None and releases.read(kept).rstrip() == with_password("good").rstrip()
    # As units/ivy-rollback does.
    releases.config_file(VERSION).write_text(kept.read_text())
    assert releases.read_config(VERSION).rstrip() == with_password("good").rstrip()
    releases.end_probation()
    assert "bad" not in releases.config_file(VERSION).with_name("secrets.json").read_text()
    assert releases.read_config(VERSION).rstrip() == with_password("good").rstrip()


def test_the_secrets_are_there_before_the_config(releases: Releases, monkeypatch: pytest.MonkeyPatch) -> None:
    releases.write_config(VERSION, with_password("good"))
    before = Path.rename

    def cut(self: Path, target: Path) -> Path:
        if target.name == "config.json":
            raise OSError("the power is away")
        return before(self, target)

    changed = with_password("bad").replace('"config_revision": ', '"config_revision": 7')
    monkeypatch.setattr(Path, "rename", cut)
    with pytest.raises(OSError, match="the power"):
        releases.write_config(VERSION, changed)
    assert json.loads(releases.read_config(VERSION)) == json.loads(with_password("good"))


def test_a_config_that_somebody_spoilt_costs_no_secret(releases: Releases) -> None:
    releases.write_config(VERSION, text_of(WHOLE))
    path = releases.config_file(VERSION)
    path.write_text(path.read_text()[:-5])
    offered = ForeignConfig.load_from_string(split_text(text_of(WHOLE))[0])
    filled, _ = releases.fill(offered)
    assert filled.section("backend") == BACKEND


def test_a_procedure_can_be_handed_the_secrets_of_its_own_section_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, handed = tmp_path / "config.json", tmp_path / "secrets-rain-gauge.json"
    taken = {
        "rain_gauge": {"password": "wet"},
        "backend": {"password": "closed"},
        "updater": {"access_token": "closed"},
    }
    shown = text_of({section: dict.fromkeys(inner, "***") for section, inner in taken.items()})
    secrets_file.write(config, shown, taken, [], tmp_path)
    assert sorted(path.name for path in tmp_path.glob("secrets*")) == ["secrets-rain-gauge.json", "secrets.json"]
    assert handed.stat().st_mode & 0o777 == 0o600 and "closed" not in handed.read_text()

    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "secrets.json").write_bytes(handed.read_bytes())
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    found = json.loads(secrets_file.whole(shown, secrets_file.load(secrets_file.places(config)[0])))
    assert found == {**json.loads(shown), "rain_gauge": {"password": "wet"}}

    secrets_file.write(config, text_of({"general": {}}), {}, [], tmp_path)
    assert "wet" in handed.read_text(), "the config from before may come back until that is decided"
    secrets_file.tidy(config, [])
    assert not handed.exists()


def test_a_procedures_file_that_was_lost_is_there_again(tmp_path: Path) -> None:
    config, handed = tmp_path / "config.json", tmp_path / "secrets-rain-gauge.json"
    secrets_file.write(config, text_of({"rain_gauge": {"pin": "***"}}), {"rain_gauge": {"pin": "7"}}, [], tmp_path)
    before = handed.read_text()
    handed.write_text("\0")
    secrets_file.tidy(config, [])
    assert handed.read_text() == before
