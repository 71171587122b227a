"""`ivy.types.config`: strict, patient with what the predecessor accepted, silent about secrets."""

import contextlib
import copy
import json
import os
import stat
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivy import constants
from ivy.types.config import Config, ConfigError, ConfigWarning, ForeignConfig
from ivy.types.state import State
from ivy.utils.updates.releases import Releases
from ivy.version import Version
from tests.support.helpers import BACKEND, CONFIG, UPDATER, make_config

MQTT = BACKEND["mqtt_connection"]
TLS = {"enabled": True, "ca_file": "/ca.pem", "certificate_file": "/node.pem", "key_file": "/node.key"}
FULL: dict[str, Any] = {
    **CONFIG,
    "updater": {**UPDATER, "source_conflict_strategy": "overwrite"},
    "backend": {
        **BACKEND,
        "mqtt_connection": {**MQTT, "tls": TLS},
        "max_parallel_messages": 100,
        "max_drain_time": 60,
    },
    "queue": {"max_megabytes": 100, "min_free_megabytes": 10},
    "archive": {"max_days": 365},
    "metrics": {"textfile_directory": "/run/ivy"},
    "node": {"hours_until_repair": 1.5, "hours_until_reboot": 24},
}
SECRETS = ("hidden-user", "hidden-password", "hidden-token")


def changed(path: str, value: Any) -> str:
    """The full config as JSON, with one field changed."""
    config = copy.deepcopy(FULL)
    *sections, field = path.split(".")
    section = config
    for name in sections:
        section = section[name]
    section[field] = value
    return json.dumps(config)


def field_of(config: Config, path: str) -> Any:
    """A field by its path."""
    value: Any = config
    for name in path.split("."):
        value = getattr(value, name)
    return value


BOUNDS: list[tuple[str, list[Any], list[Any]]] = [
    ("general.config_revision", [-1, 0, 2**31], [-2, None, "x", 1.5]),
    ("general.system_identifier", ["x", "x" * 512], ["", "x" * 513, None]),
    ("general.software_version", ["1.0.0", "2.3.4-rc.1"], ["1.0", "", None]),
    *[
        (f"logging_verbosity.{place}", ["DEBUG", "INFO", "WARNING", "ERROR", "EXCEPTION", None], ["debug", "", 1])
        for place in ("file_archive", "console_prints", "message_sending")
    ],
    ("updater", [None], [1, []]),
    ("updater.repository", ["org/name", "tum-esm/ivy"], ["name", "", None]),
    ("updater.provider", ["github", "gitlab"], ["bitbucket", None]),
    ("updater.provider_host", ["github.com", "git"], ["gi", None]),
    ("updater.access_token", [None, "abc", "x" * 256], ["ab", "x" * 257]),
    ("updater.source_conflict_strategy", ["overwrite", "reuse"], ["merge", None]),
    ("updater.require_signed_tags", [True, False], ["perhaps", None]),
    ("updater.oldest_version", [None, "1.0.0", "2.3.4-rc.1"], ["1.0", "", 1]),
    (
        "updater.locked",
        [[], ["backend.mqtt_connection", "updater", "queue.max_megabytes", "general.system_identifier"]],
        ["queue", None],
    ),
    ("updater.seconds_of_probation", [1, 3600], [0, 3601, None]),
    ("updater.max_seconds_of_probation", [1, 86_400], [0, 86_401, None]),
    ("backend", [None], [1, []]),
    ("backend.provider", ["tenta", "thingsboard"], ["aws", None]),
    ("backend.mqtt_connection.host", ["x", "x" * 512], ["", "x" * 513, None]),
    ("backend.mqtt_connection.port", [1, 65535], [0, 65536, None]),
    ("backend.mqtt_connection.client_id", ["x", "x" * 512], ["", "x" * 513]),
    ("backend.mqtt_connection.username", ["x", "x" * 512], ["", "x" * 513]),
    ("backend.mqtt_connection.password", ["x", "x" * 512], ["", "x" * 513]),
    ("backend.mqtt_connection.tls.enabled", [True], ["perhaps", None]),
    ("backend.mqtt_connection.tls.ca_file", [None, "/ca.pem"], [1]),
    (
        "backend.mqtt_connection.tls.check_dates",
        ["when_synchronised", "always"],
        ["never", "", None, True],
    ),
    ("backend.max_messages_per_second", [None, 1, 1_000_000], [0, 1_000_001, "fast"]),
    ("backend.max_parallel_messages", [1, 10_000], [0, 10_001]),
    ("backend.max_drain_time", [0, 7200], [-1, 7201]),
    ("queue.max_megabytes", [1, 1_000_000], [0, 1_000_001]),
    ("queue.min_free_megabytes", [0, 1_000_000], [-1, 1_000_001]),
    ("archive.max_days", [None, 1, 36_500], [0, 36_501]),
    ("metrics.textfile_directory", [None, "/run/ivy"], ["run", "", 1]),
    ("node.hours_until_repair", [None, 0.1, 3, 87_600], [0, 0.09, 87_601, "often"]),
    ("node.hours_until_reboot", [None, 0.1, 3, 87_600], [0, 0.09, 87_601, "often"]),
    ("system_checks.seconds_between_checks", [1, 7200], [0, 7201, None]),
]


@pytest.mark.parametrize(("path", "value"), [(path, value) for path, good, _ in BOUNDS for value in good])
def test_values_within_bounds_are_accepted(path: str, value: Any) -> None:
    config = Config.load_from_string(changed(path, value))
    found = field_of(config, path)
    assert (str(found) if path.endswith("_version") and found else found) == value


@pytest.mark.parametrize(("path", "value"), [(path, value) for path, _, bad in BOUNDS for value in bad])
def test_values_out_of_bounds_are_refused_by_the_path_of_their_field(path: str, value: Any) -> None:
    with pytest.raises(ConfigError) as refused:
        Config.load_from_string(changed(path, value))
    assert str(refused.value).startswith(f"{path}: ") and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("", "must name a section or a field"),
        ("nothing", "must name a section or a field"),
        ("backend.nothing", "must name a section or a field"),
        ("backend.provider.name", "must name a section or a field"),
        ("backend.", "must name a section or a field"),
        ("backend.mqtt_connection.__class__", "must name a section or a field"),
        ("general.config_revision", "cannot be locked"),
    ],
)
def test_what_is_locked_must_be_there(path: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=rf"^updater\.locked\.1: .*{reason}"):
        make_config(updater={**UPDATER, "locked": ["backend.mqtt_connection.tls.ca_file", path]})


PROCEDURE = "heat_box"


@pytest.fixture
def procedures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two, whatever this project has."""
    modules = tmp_path / "ivy" / "procedures"
    modules.mkdir(parents=True)
    for name in (PROCEDURE, "system_checks", "_helper"):
        (modules / f"{name}.py").touch()
    monkeypatch.setattr(constants, "PROJECT_DIR", str(tmp_path))


@pytest.mark.usefixtures("procedures")
def test_a_procedure_can_be_switched_off() -> None:
    assert not Config.load_from_string(changed("procedures", {})).is_off(PROCEDURE)
    for enabled in (True, False):
        config = Config.load_from_string(changed("procedures", {PROCEDURE: {"enabled": enabled}}))
        assert config.is_off(PROCEDURE) is config.is_off(PROCEDURE.replace("_", "-")) is not enabled


@pytest.mark.usefixtures("procedures")
@pytest.mark.parametrize("limit", [None, 1, 31_536_000])
def test_a_procedure_can_be_given_a_limit_for_its_silence(limit: int | None) -> None:
    config = Config.load_from_string(changed("procedures", {PROCEDURE: {"max_silent_seconds": limit}}))
    assert config.of_procedure(PROCEDURE.replace("_", "-")).max_silent_seconds == limit
    assert not config.is_off(PROCEDURE)


@pytest.mark.usefixtures("procedures")
@pytest.mark.parametrize(
    ("sections", "reason"),
    [
        ({"nobody": {"enabled": False}}, f"must be the name of a procedure: {PROCEDURE}, system_checks"),
        ({"system_checks": {"enabled": False}}, "system_checks cannot be off"),
        ({PROCEDURE: {"enabled": "perhaps"}}, f"procedures.{PROCEDURE}.enabled: "),
        ({PROCEDURE: {"on": False}}, f"procedures.{PROCEDURE}.on: unknown field, remove it"),
        *(
            ({PROCEDURE: {"max_silent_seconds": wrong}}, f"procedures.{PROCEDURE}.max_silent_seconds: ")
            for wrong in (0, -1, 31_536_001, "long", 1.5)
        ),
        ([PROCEDURE], "procedures: "),
    ],
)
def test_what_is_no_procedure_or_must_run_cannot_be_switched_off(sections: Any, reason: str) -> None:
    with pytest.raises(ConfigError) as error:
        Config.load_from_string(changed("procedures", sections))
    assert str(error.value).startswith("procedures") and reason in str(error.value)


def test_all_bad_fields_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as refused:
        make_config(general={}, system_checks={"seconds_between_checks": 0})
    assert [line.split(":")[0] for line in str(refused.value).splitlines()] == [
        "general.config_revision",
        "general.software_version",
        "general.system_identifier",
        "system_checks.seconds_between_checks",
    ]


@pytest.mark.parametrize("section", ["general", "logging_verbosity", "system_checks"])
def test_a_missing_section_is_named(section: str) -> None:
    with pytest.raises(ConfigError, match=f"^{section}: "):
        Config.load_from_string(json.dumps({key: value for key, value in CONFIG.items() if key != section}))


def test_defaults() -> None:
    config = make_config(backend=BACKEND, updater={**UPDATER, "access_token": None})
    assert config.backend and config.updater
    assert (config.backend.max_parallel_messages, config.backend.max_drain_time) == (500, 600)
    assert config.updater.source_conflict_strategy == "reuse"
    assert config.updater.require_signed_tags and config.updater.oldest_version is None
    assert (config.updater.seconds_of_probation, config.updater.max_seconds_of_probation) == (30, 300)
    assert not config.backend.mqtt_connection.tls.enabled
    assert make_config().backend is None and make_config().updater is None


@pytest.mark.parametrize(
    ("path", "value", "meaning"),
    [
        ("backend.mqtt_connection.port", "1883", 1883),
        ("general.config_revision", "-1", -1),
        ("backend.max_drain_time", 60.0, 60),
        ("system_checks.seconds_between_checks", "10", 10),
        ("backend.mqtt_connection.tls.enabled", "true", True),
    ],
)
def test_what_means_the_same_is_accepted(path: str, value: Any, meaning: Any) -> None:
    found = field_of(Config.load_from_string(changed(path, value)), path)
    assert found == meaning and type(found) is type(meaning)


SECTIONS = [
    *("general", "logging_verbosity", "updater", "backend", "backend.mqtt_connection"),
    *("backend.mqtt_connection.tls", "queue", "archive", "system_checks"),
]


@pytest.mark.parametrize("path", ["surprise", *(f"{section}.surprise" for section in SECTIONS)])
def test_unknown_keys_are_refused_by_their_path(path: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Config.load_from_string(changed(path, 1))
    assert str(refused.value) == f"{path}: unknown field, remove it"


def test_the_misspelt_key_of_the_predecessor_is_accepted_with_a_warning() -> None:
    with pytest.warns(ConfigWarning, match=r"updater\.source_conflict_strategy"):
        config = make_config(updater={**UPDATER, "source_conflict_behaviour": "overwrite"})
    assert config.updater and config.updater.source_conflict_strategy == "reuse"  # as the predecessor did


@pytest.mark.parametrize("key", ["source_conflict_behavior", "source_conflict_behaviours", "source_conflict"])
def test_no_other_misspelling_is_accepted(key: str) -> None:
    with pytest.raises(ConfigError, match=f"^updater.{key}: unknown field"):
        make_config(updater={**UPDATER, key: "overwrite"})


def test_the_misspelt_key_is_accepted_in_its_section_only() -> None:
    with pytest.raises(ConfigError, match=r"^backend\.source_conflict_behaviour: "):
        make_config(backend={**BACKEND, "source_conflict_behaviour": "overwrite"})


def test_a_full_config_of_the_predecessor_is_accepted_unchanged() -> None:
    text = """{
        "general": {"config_revision": 0, "software_version": "1.0.0", "system_identifier": "your-system-id"},
        "logging_verbosity": {"file_archive": "DEBUG", "console_prints": "INFO", "message_sending": null},
        "updater": {
            "repository": "tum-esm/ivy", "provider": "github", "provider_host": "github.com",
            "access_token": "your-token", "source_conflict_strategy": "reuse"
        },
        "backend": {
            "provider": "tenta",
            "mqtt_connection": {
                "host": "localhost", "port": 1883, "client_id": "test", "username": "test", "password": "secret"
            },
            "max_parallel_messages": 50, "max_drain_time": 600
        },
        "system_checks": {"seconds_between_checks": 300}
    }"""
    dumped = make_config(**json.loads(text)).model_dump(mode="json")

    def assert_contains(outer: Any, inner: Any) -> None:
        if isinstance(inner, dict):
            for key, value in inner.items():
                assert_contains(outer[key], value)
        else:
            assert outer == inner

    assert_contains(dumped, json.loads(text))


@pytest.mark.parametrize("tls", [{"certificate_file": "/a"}, {"key_file": "/a"}])
def test_certificate_and_key_belong_together(tls: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"^backend\.mqtt_connection\.tls: .*together"):
        make_config(backend={**BACKEND, "mqtt_connection": {**MQTT, "tls": {"enabled": True, **tls}}})


def test_files_without_encryption_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^backend\.mqtt_connection\.tls: .*unencrypted"):
        make_config(backend={**BACKEND, "mqtt_connection": {**MQTT, "tls": {"ca_file": "/ca.pem"}}})


def test_a_config_cannot_be_changed() -> None:
    config = make_config()
    with pytest.raises(ValueError):
        config.general.config_revision = 7
    assert config.general.config_revision == 3


def test_secrets_are_in_no_representation() -> None:
    config = Config.load_from_string(json.dumps(FULL))
    foreign = config.to_foreign_config()
    texts = [repr(config), str(config), repr(foreign), str(foreign), repr(State(pending_configs=[foreign]))]
    assert not [secret for secret in SECRETS for text in texts if secret in text]


@pytest.mark.parametrize("path", ["backend.mqtt_connection.password", "backend.mqtt_connection.username"])
@pytest.mark.parametrize("value", ["hidden" * 100, ["hidden"], {"hidden": "hidden"}])
def test_secrets_are_in_no_error(path: str, value: Any) -> None:
    with pytest.raises(ConfigError) as refused:
        Config.load_from_string(changed(path, value))
    assert "hidden" not in str(refused.value)


def test_secrets_are_in_no_error_about_broken_json() -> None:
    with pytest.raises(ConfigError) as refused:
        Config.load_from_string(json.dumps(FULL).replace('"hidden-password"', '"hidden-password'))
    assert "hidden" not in str(refused.value) and "JSON" in str(refused.value)


@pytest.fixture
def config_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of the config of this release."""
    monkeypatch.setattr(constants, "PROJECT_DIR", str(tmp_path))
    (tmp_path / "config").mkdir()
    return tmp_path / "config"


def test_it_is_loaded_from_the_release(config_dir: Path) -> None:
    (config_dir / "config.json").write_text(json.dumps(FULL))
    assert Config.load() == Config.load_from_string(json.dumps(FULL))


def test_the_template_is_valid_and_keeps_everything_on_the_node() -> None:
    config = Config.load_template()
    assert config.general.config_revision == -1 and config.backend is None and config.updater is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "does not exist; start from config.template.json"),
        (b"\xff", "cannot be read"),
        (b"{", "Invalid JSON"),
        (b"", "Invalid JSON"),
        (b"[]", "object"),
        (changed("backend.mqtt_connection.port", 0).encode(), "backend.mqtt_connection.port: "),
    ],
)
def test_load_errors_name_the_file(config_dir: Path, content: bytes | None, reason: str) -> None:
    if content is not None:
        (config_dir / "config.json").write_bytes(content)
    with pytest.raises(ConfigError) as refused:
        Config.load()
    assert str(refused.value).startswith(f"{config_dir}/config.json: ") and reason in str(refused.value)


def test_a_config_that_is_a_directory_is_a_config_error(config_dir: Path) -> None:
    (config_dir / "config.json").mkdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        Config.load()


@pytest.fixture
def dumped(root_dir: Path) -> Callable[[str], Path]:
    """Makes a release for a version; returns where its config belongs."""

    def make_release(version: str) -> Path:
        (root_dir / version / "config").mkdir(parents=True, exist_ok=True)
        return root_dir / version / "config" / "config.json"

    return make_release


def test_dump_writes_to_the_release_that_it_is_for(dumped: Callable[[str], Path]) -> None:
    path, other = dumped("2.0.0-rc.1"), dumped("1.0.0")
    config = Config.load_from_string(changed("general.software_version", "2.0.0-rc.1"))
    config.dump()
    assert Config.load_from_string(path.read_text()) == config
    assert not other.exists()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640  # it has secrets


@pytest.mark.parametrize("kind", [Config, ForeignConfig])
def test_dump_replaces_the_file_in_one_step(dumped: Callable[[str], Path], kind: type[Config]) -> None:
    path = dumped("1.0.0")
    path.write_text("old")
    with path.open() as reader:
        kind.load_from_string(json.dumps(FULL)).dump()
        assert reader.read() == "old"
    assert Config.load_from_string(path.read_text()) == Config.load_from_string(json.dumps(FULL))
    assert os.listdir(path.parent) == ["config.json"]


def test_dump_hides_secrets_where_the_release_finds_them(dumped: Callable[[str], Path]) -> None:
    path = dumped("1.0.0")
    (path.parents[1] / "units").mkdir()
    (path.parents[1] / "units" / "ivy-owners.service").touch()
    Config.load_from_string(json.dumps(FULL)).dump()
    assert "hidden" not in path.read_text()
    whole = Releases().read_config(Version("1.0.0"))
    assert Config.load_from_string(whole) == Config.load_from_string(json.dumps(FULL))
    assert path.with_name("secrets.json").stat().st_mode & 0o077 == 0


def test_dump_makes_no_release(root_dir: Path) -> None:
    with pytest.raises(FileNotFoundError):
        make_config().dump()
    assert not (root_dir / "1.0.0").exists()


def test_a_config_of_another_version_keeps_what_is_unknown_here(dumped: Callable[[str], Path]) -> None:
    text = changed("system_checks", {"new": [1, {"nested": None}]}).replace('"1.0.0"', '"3.0.0"')
    path = dumped("3.0.0")
    ForeignConfig.load_from_string(text).dump()
    assert json.loads(path.read_text()) == json.loads(text)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("{}", "general"),
        ('{"general": {"software_version": "1.0.0"}}', "general.config_revision"),
        ('{"general": {"config_revision": 1}}', "general.software_version"),
        ('{"general": {"config_revision": 1, "software_version": "../etc"}}', "general.software_version"),
        ('{"general": {"config_revision": -2, "software_version": "1.0.0"}}', "general.config_revision"),
    ],
)
def test_a_config_of_another_version_must_say_revision_and_version(text: str, path: str) -> None:
    with pytest.raises(ConfigError, match=f"^{path}: "):
        ForeignConfig.load_from_string(text)


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=512)
levels = st.sampled_from(["DEBUG", "INFO", "WARNING", "ERROR", "EXCEPTION", None])
seconds = st.integers(1, 7200)
tls_settings: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.just({}),
    st.fixed_dictionaries({"enabled": st.just(True)}, optional={"ca_file": names}),
    st.fixed_dictionaries({"enabled": st.just(True), "certificate_file": names, "key_file": names}),
)
connections = st.fixed_dictionaries(
    {"host": names, "port": st.integers(1, 65535), "client_id": names, "username": names, "password": names},
    optional={"tls": tls_settings},
)
valid_configs = st.fixed_dictionaries(
    {
        **{name: st.just(section) for name, section in CONFIG.items()},
        "general": st.fixed_dictionaries(
            {
                "config_revision": st.integers(-1),
                "software_version": st.just("1.0.0"),
                "system_identifier": names,
            }
        ),
        "logging_verbosity": st.fixed_dictionaries(
            {"file_archive": levels, "console_prints": levels, "message_sending": levels}
        ),
        "system_checks": st.fixed_dictionaries({"seconds_between_checks": seconds}),
    },
    optional={
        "updater": st.none()
        | st.fixed_dictionaries(
            {
                "repository": st.from_regex(r"[a-zA-Z0-9-]+/[a-zA-Z0-9-]+", fullmatch=True),
                "provider": st.sampled_from(["github", "gitlab"]),
                "provider_host": st.text(st.characters(exclude_categories=["Cs"]), min_size=3),
            },
            optional={"source_conflict_strategy": st.sampled_from(["reuse", "overwrite"])},
        ),
        "backend": st.none()
        | st.fixed_dictionaries(
            {"provider": st.sampled_from(["tenta", "thingsboard"]), "mqtt_connection": connections},
            optional={"max_parallel_messages": st.integers(1, 10_000), "max_drain_time": st.integers(0, 7200)},
        ),
        "queue": st.fixed_dictionaries({}, optional={"max_megabytes": st.integers(1, 1_000_000)}),
        "archive": st.fixed_dictionaries({}, optional={"max_days": st.none() | st.integers(1, 36_500)}),
    },
)


@pytest.mark.slow
@given(valid_configs, st.booleans())
def test_any_valid_config_survives_dump_and_load(root_dir: Path, content: dict[str, Any], ascii_only: bool) -> None:
    config = Config.load_from_string(json.dumps(content, ensure_ascii=ascii_only))
    path = root_dir / "1.0.0" / "config" / "config.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    config.dump()
    assert Config.load_from_string(path.read_text(encoding="utf-8")) == config
    foreign = config.to_foreign_config()
    foreign.dump()
    assert Config.load_from_string(path.read_text(encoding="utf-8")) == config
    assert ForeignConfig.load_from_string(path.read_text(encoding="utf-8")) == foreign
    assert foreign.general.config_revision == config.general.config_revision


def paths_in(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values in a JSON document."""
    inner = value.items() if isinstance(value, dict) else ()
    return [path, *(found for key, child in inner for found in paths_in(child, (*path, key)))]


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
any_json = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5)


def assert_loads_or_is_refused(text: str) -> None:
    """Neither kind of config raises anything but its own error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConfigWarning)
        for kind in (Config, ForeignConfig):
            with contextlib.suppress(ConfigError):
                kind.load_from_string(text)


@given(st.sampled_from(paths_in(FULL)[1:]), any_json)
def test_any_value_anywhere_is_accepted_or_refused(path: tuple[str, ...], value: Any) -> None:
    assert_loads_or_is_refused(changed(".".join(path), value))


@given(st.integers(0), st.integers(0, 40), st.text(max_size=10))
def test_any_damaged_text_is_accepted_or_refused(start: int, length: int, inserted: str) -> None:
    text = json.dumps(FULL)
    start %= len(text)
    assert_loads_or_is_refused(text[:start] + inserted + text[start + length :])


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"general":' * 10_000,
        "1" * 10_000,
        f'{{"general": {{"config_revision": {"9" * 6000}}}}}',
        f'{{"general": {{"config_revision": 1.{"9" * 6000}e{"9" * 6000}}}}}',
        "\ufeff{}",
        "\ud800",
        "\0",
        "NaN",
        "null",
        '"' + "x" * 10**7,
    ],
)
def test_hostile_texts_are_refused(text: str) -> None:
    for kind in (Config, ForeignConfig):
        with pytest.raises(ConfigError):
            kind.load_from_string(text)
