"""The module `ivy.fleet.config` for Ansible, without Ansible: what it changes, and what it lets be seen."""

import json
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

from ivy.constants import Provider
from ivy.types import secrets_file
from ivy.types.config import split_text
from ivy.utils.host import units
from tests.support.ansible_plugin import load
from tests.support.helpers import BACKEND, CONFIG, UPDATER

UTILS = "ansible_collections.ivy.fleet.plugins.module_utils"
NODE = f"{UTILS}.node"
WHOLE: dict[str, Any] = {**CONFIG, "backend": BACKEND, "updater": UPDATER}
HIDDEN = {
    "backend": {"mqtt_connection": {"password": "***", "username": "***"}},
    "updater": {"access_token": "***"},
}


class _Ended(Exception):
    """What the module said at its end."""


Run = Callable[..., dict[str, Any]]


@pytest.fixture
def applied() -> list[Any]:
    """The configs that the node was given."""
    return []


@pytest.fixture
def tried() -> list[dict[str, tuple[str, int]]]:
    """Texts and modes of the files that the node was given with each config that came with some."""
    return []


@pytest.fixture
def help_text() -> list[str]:
    """What `ivy config apply --help` says."""
    return ["--files DIRECTORY"]


@pytest.fixture
def commands() -> list[list[str]]:
    """What else was run."""
    return []


@pytest.fixture
def usable() -> list[int]:
    """What `ivy config validate` ends with, the last one first."""
    return [0] * 9


@pytest.fixture
def outcome() -> list[tuple[int, str, str]]:
    """What `ivy config apply` ends with and says, if it does not succeed."""
    return []


@pytest.fixture
def waits() -> list[int]:
    """For each time that a decision was waited for, how many configs had been applied."""
    return []


@pytest.fixture
def plugin(
    monkeypatch: pytest.MonkeyPatch,
    applied: list[Any],
    usable: list[int],
    outcome: list[tuple[int, str, str]],
    waits: list[int],
    tried: list[dict[str, tuple[str, int]]],
    help_text: list[str],
) -> types.ModuleType:
    """The module, on a node that accepts all."""

    def run_ivy(
        _module: Any, *arguments: str, text: str | None = None, seconds: int | None = None
    ) -> tuple[int, str, str]:
        if arguments[:2] == ("config", "validate"):
            return usable.pop(), "", ""
        if "--help" in arguments:
            return 0, help_text[0], ""
        assert text is not None
        if "--files" in arguments:
            directory = Path(arguments[arguments.index("--files") + 1])
            brought = {path.name: (path.read_text(), path.stat().st_mode & 0o777) for path in directory.iterdir()}
            tried.append(brought)
        applied.append(json.loads(text))
        assert seconds == 1, "the limit"
        return outcome[0] if outcome else (0, "", "")

    parents = [".".join(name.split(".")[:depth]) for name in (NODE,) for depth in range(1, 6)]
    given: dict[str, dict[str, Any]] = {name: {} for name in ["ansible", "ansible.module_utils", *parents]}
    given[UTILS] = {"admin_files": load(monkeypatch, "module_utils/admin_files.py", {})}
    given["ansible.module_utils.basic"] = {"AnsibleModule": None}
    given[NODE] = {
        "TOO_LATE": 124,
        "run_ivy": run_ivy,
        "is_version_on_trial": lambda _: False,
        "wait_for_decision": lambda *_: waits.append(len(applied)),
    }
    return load(monkeypatch, "modules/config.py", given)


@pytest.fixture
def run(
    plugin: types.ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, commands: list[list[str]]
) -> Run:
    """Runs it on a node with a config. Returns what it says."""

    def run(
        before: dict[str, Any],
        settings: dict[str, Any],
        secrets: dict[str, Any] | None = None,
        damage: Callable[[str], str] | None = None,
        check_mode: bool = False,
        **files: dict[str, str],
    ) -> dict[str, Any]:
        shown, taken = split_text(json.dumps(before))
        (tmp_path / "config.json").write_text(shown)
        if damage is not None:
            (tmp_path / "config.json").replace(tmp_path / "config.accepted.json")
            (tmp_path / "config.json").write_text(damage(shown))
        (tmp_path / "secrets.json").write_text(json.dumps({secrets_file.digest(shown): taken}))
        path, link = tmp_path / "config.json", tmp_path / "link.json"
        if not link.is_file() or link.is_symlink():
            link.unlink(missing_ok=True)
            link.symlink_to(path)
        parameters = {"settings": settings, "secrets": secrets or {}, "path": str(path), "link": str(link)}

        def make_module(**_: Any) -> types.SimpleNamespace:
            brought = {"files": {}, "secret_files": {}, **files}
            params = {**parameters, **brought, "seconds": 1, "now": False, "rename": False}
            others = {"exit_json": end, "fail_json": end, "run_command": commands.append}
            return types.SimpleNamespace(check_mode=check_mode, params=params, **others)

        def end(**said: Any) -> None:
            raise _Ended(said)

        monkeypatch.setattr(plugin, "AnsibleModule", make_module)
        with pytest.raises(_Ended) as ended:
            plugin.main()
        said: dict[str, Any] = ended.value.args[0]
        return said

    return run


@pytest.mark.parametrize(("settings", "secrets"), [(HIDDEN, {}), ({}, HIDDEN)])
def test_hidden_means_as_the_node_has_it(
    run: Run, applied: list[Any], settings: dict[str, Any], secrets: dict[str, Any]
) -> None:
    assert run(WHOLE, settings, secrets)["changed"] is False and applied == []
    said = run(WHOLE, {**settings, "system_checks": {"seconds_between_checks": 77}}, secrets)
    assert said["changed"] is True and applied == [{**WHOLE, "system_checks": {"seconds_between_checks": 77}}]
    assert "hidden-" not in json.dumps(said)


@pytest.mark.parametrize("damage", [lambda _: "\0" * 851, lambda text: text[1:], lambda text: f"\ufeff{text}"])
def test_a_node_whose_file_is_of_no_use_is_configured_all_the_same(
    run: Run, applied: list[Any], damage: Callable[[str], str]
) -> None:
    assert run(WHOLE, {**HIDDEN, "system_checks": {"seconds_between_checks": 77}}, damage=damage)["changed"] is True
    assert applied == [{**WHOLE, "system_checks": {"seconds_between_checks": 77}}]


def test_a_config_that_nobody_can_use_is_replaced_and_kept(
    run: Run, applied: list[Any], usable: list[int], tmp_path: Path
) -> None:
    assert run(WHOLE, {}, damage=lambda text: text[1:])["changed"] is True
    usable += [78, 78]
    wrong = run(WHOLE, {}, damage=lambda text: text.replace('"general"', '"generla"'))
    assert wrong["changed"] is True and applied == [WHOLE, WHOLE]
    kept = tmp_path / "config.json.replaced"
    assert '"generla"' in kept.read_text() and kept.stat().st_mode & 0o077 == 0


def test_the_link_that_a_program_made_a_file_of_is_a_link_again(
    run: Run, applied: list[Any], tmp_path: Path
) -> None:
    link = tmp_path / "link.json"
    link.write_text("what somebody has typed")
    assert run(WHOLE, {})["changed"] is True and applied == []
    assert link.is_symlink() and link.resolve() == tmp_path / "config.json"
    assert (tmp_path / "link.json.replaced").read_text() == "what somebody has typed"
    assert run(WHOLE, {})["changed"] is False


def test_a_newer_wish_does_not_wait_for_the_one_on_trial_but_the_same_one_does(run: Run, waits: list[int]) -> None:
    run(WHOLE, {"system_checks": {"seconds_between_checks": 77}})
    assert waits == []
    assert run(WHOLE, {})["changed"] is False and waits == [1]


def test_after_its_limit_it_says_what_it_waited_for(run: Run, outcome: list[tuple[int, str, str]]) -> None:
    outcome.append((124, "On probation\nStill waiting: there is no connection: timed out\n", "The trial goes on\n"))
    said = run(WHOLE, {"system_checks": {"seconds_between_checks": 77}})
    assert said["msg"].startswith("not decided within 1 s: Still waiting: there is no connection")
    assert "The trial goes on" in said["msg"]


def test_what_the_node_does_not_have_is_left_to_its_judgement(run: Run, applied: list[Any]) -> None:
    run({**CONFIG, "backend": BACKEND}, {"updater": {**UPDATER, "access_token": "***"}})
    assert applied[0]["updater"]["access_token"] == "***" and applied[0]["backend"] == BACKEND


def test_in_a_list_it_means_that_of_the_same_element(plugin: types.ModuleType) -> None:
    before = {"stations": [{"name": "a", "key": "1"}, {"name": "b", "key": "2"}]}
    wanted = {"stations": [{"name": "b", "key": "***"}, {"name": "c", "key": "***"}]}
    found = plugin.as_it_is(wanted, before)
    assert found == {"stations": [{"name": "b", "key": "2"}, {"name": "c", "key": "***"}]}


def test_no_difference_shows_a_secret(plugin: types.ModuleType) -> None:
    seen = {
        "camera": {"url": "rtsp://me:seen@host/x", "authorization": "seen", "pin": 7},
        "stations": [{"name": "a", "api_key": "seen"}],
    }
    text = plugin.as_text(plugin.shown(seen, {}))
    assert "seen" not in text and "7" not in text and "rtsp://(hidden)@host/x" in text and '"name": "a"' in text


@pytest.mark.parametrize("damage", ["", "[]", "{", "\0", '{"a": 1}'])
def test_a_damaged_file_of_secrets_ends_nothing(plugin: types.ModuleType, tmp_path: Path, damage: str) -> None:
    (tmp_path / "secrets.json").write_text(damage)
    found = plugin.secrets_of(str(tmp_path / "config.json"), "{}")
    assert plugin.with_secrets({"a": "***"}, found) == {"a": "***"}


CERTIFICATES = {"files": {"authority.pem": "a certificate"}, "secret_files": {"node.key": "a key"}}


def test_files_are_given_to_the_node_with_the_config(
    run: Run, applied: list[Any], tried: list[dict[str, tuple[str, int]]], tmp_path: Path
) -> None:
    """It keeps what they replace, and goes back to that."""
    said = run(WHOLE, {}, **CERTIFICATES)
    assert applied == [WHOLE]
    assert tried == [{"authority.pem": ("a certificate", 0o644), "node.key": ("a key", 0o640)}]
    assert (said["changed"], said["files"]) == (True, ["authority.pem", "node.key"])
    assert not (tmp_path / "authority.pem").exists(), "that is up to the node"


def test_files_that_are_there_change_nothing(
    run: Run, applied: list[Any], tried: list[dict[str, tuple[str, int]]], tmp_path: Path
) -> None:
    (tmp_path / "authority.pem").write_text("a certificate")
    (tmp_path / "authority.pem").chmod(0o644)
    said = run(WHOLE, {}, files=CERTIFICATES["files"])
    assert (said["changed"], said["files"], applied) == (False, [], [])
    (tmp_path / "authority.pem").chmod(0o600)
    assert run(WHOLE, {}, files=CERTIFICATES["files"])["files"] == ["authority.pem"], (
        "the backend could not read it"
    )
    assert [list(files) for files in tried] == [["authority.pem"]]


def test_a_node_that_rejects_files_says_why(run: Run, outcome: list[tuple[int, str, str]]) -> None:
    outcome.append((1, "", "ivy: it was undone: no connection"))
    assert run(WHOLE, {}, **CERTIFICATES)["msg"].endswith("it was undone: no connection")


def test_a_version_that_cannot_try_files_gets_them_at_once(
    run: Run, applied: list[Any], help_text: list[str], commands: list[list[str]], tmp_path: Path
) -> None:
    help_text[0] = "--now"
    said = run(WHOLE, {}, **CERTIFICATES)
    assert (said["changed"], applied) == (True, [])
    assert (tmp_path / "node.key").read_text() == "a key" and (
        tmp_path / "node.key"
    ).stat().st_mode & 0o777 == 0o640
    assert [words[:2] for words in commands] == [["systemctl", "try-restart"]]


def test_a_check_brings_no_files(run: Run, applied: list[Any], tmp_path: Path) -> None:
    said = run(WHOLE, {}, check_mode=True, **CERTIFICATES)
    assert (said["changed"], said["files"], applied) == (True, ["authority.pem", "node.key"], [])
    assert not (tmp_path / "authority.pem").exists()


def test_files_have_names_and_no_paths(run: Run, applied: list[Any]) -> None:
    said = run(WHOLE, {}, files={"tls/authority.pem": "a certificate"})
    assert "tls/authority.pem must be a name in " in said["msg"] and applied == []


def test_it_knows_the_unit_of_each_backend(plugin: types.ModuleType) -> None:
    assert tuple(map(units.name_of, get_args(Provider))) == plugin.BACKENDS
