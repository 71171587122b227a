"""The module `ivy.fleet.running` for Ansible, without Ansible and systemd: what it starts and gives back."""

import os
import types
from pathlib import Path
from typing import Any

import pytest

from tests.support.ansible_plugin import load

# What systemd says of each: whether it is there, whether it runs, and of services, when they start again.
UNITS = {
    "ivy.target": ("loaded", "active", ""),
    "ivy-co2.service": ("loaded", "active", "always"),
    "ivy-wind.service": ("loaded", "inactive", "always"),
    "ivy-rain.service": ("masked", "inactive", ""),
    "ivy-snow.service": ("loaded", "failed", "always"),
    "ivy-updater.service": ("loaded", "inactive", "on-failure"),
    "ivy-updater.path": ("loaded", "active", ""),
}
ALL_RUN = {name: (load, "active", kind) for name, (load, _, kind) in UNITS.items()}


class _Ended(Exception):
    """What the module said at its end."""


class FakeNode:
    """What runs there, and what was done to it."""

    def __init__(self, root: Path, *, check_mode: bool = False) -> None:
        self.units, self.is_enabled = dict(UNITS), True
        self.done: list[str] = []
        self.module = types.SimpleNamespace(
            params={"root": str(root)}, check_mode=check_mode, run_command=self._run, exit_json=self._end
        )

    def _end(self, **said: Any) -> None:
        raise _Ended(said)

    def _run(self, command: list[str]) -> tuple[int, str, str]:
        if command[1] == "is-enabled":
            return 0 if self.is_enabled else 1, "", ""
        if command[1] == "show" and command[2] == "--property=Wants":
            return 0, f"Wants={' '.join(name for name in self.units if name != 'ivy.target')}\n", ""
        if command[1] == "show":
            found = {name: self.units[name] for name in command[4:]}
            form = "Id={}\nLoadState={}\nActiveState={}\n{}"
            said = [
                (name, load, active, restart and f"Restart={restart}\n")
                for name, (load, active, restart) in found.items()
            ]
            return 0, "\n".join(form.format(*each) for each in said), ""
        self.done.append(" ".join(command))
        return 0, "", ""


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """The module."""
    given: dict[str, dict[str, Any]] = {"ansible": {}, "ansible.module_utils": {}}
    given["ansible.module_utils.basic"] = {"AnsibleModule": None}
    return load(monkeypatch, "modules/running.py", given)


def run(plugin: types.ModuleType, monkeypatch: pytest.MonkeyPatch, node: FakeNode) -> list[str]:
    monkeypatch.setattr(plugin, "AnsibleModule", lambda **_: node.module)
    with pytest.raises(_Ended) as ended:
        plugin.main()
    said: dict[str, Any] = ended.value.args[0]
    assert said["changed"] is bool(said["done"])
    return list(said["done"])


def test_what_was_stopped_is_started_and_nothing_else(
    plugin: types.ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    node = FakeNode(tmp_path)
    assert run(plugin, monkeypatch, node) == ["ivy-wind.service did not run"]
    assert node.done == ["systemctl start ivy-wind.service"]
    node.units = ALL_RUN
    assert run(plugin, monkeypatch, node) == []


def test_a_target_that_was_disabled_is_enabled_and_started(
    plugin: types.ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    node = FakeNode(tmp_path)
    node.is_enabled, node.units["ivy.target"] = False, ("loaded", "inactive", "")
    assert len(run(plugin, monkeypatch, node)) == 2
    assert node.done == ["systemctl enable --quiet ivy.target", "systemctl start ivy.target ivy-wind.service"]


def test_a_check_and_a_hold_start_nothing(
    plugin: types.ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    check = FakeNode(tmp_path, check_mode=True)
    assert run(plugin, monkeypatch, check) == ["ivy-wind.service did not run"] and check.done == []
    (tmp_path / "hold.json").touch()
    held = FakeNode(tmp_path)
    assert run(plugin, monkeypatch, held) == [] and held.done == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_the_files_of_a_release_are_roots_again(
    plugin: types.ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    release, secret = tmp_path / "9.0.0", tmp_path / "9.0.0" / "secrets.json"
    release.mkdir(mode=0o755)
    secret.write_text("{}")
    secret.chmod(0o600)
    (release / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").touch()
    (tmp_path / "current").symlink_to(release)
    node = FakeNode(tmp_path)
    node.units = ALL_RUN
    assert run(plugin, monkeypatch, node) == []
    for path in (secret, release / "link"):
        os.lchown(path, 12345, -1)
    release.chmod(0o777)
    [said] = run(plugin, monkeypatch, node)
    assert said.endswith("was not only root's") and str(secret) in said
    assert (secret.stat().st_uid, secret.stat().st_mode & 0o777) == (0, 0o600)
    assert release.stat().st_mode & 0o777 == 0o755 and (release / "link").lstat().st_uid == 0
    assert run(plugin, monkeypatch, node) == []


def test_data_that_services_cannot_write_is_theirs_again(
    plugin: types.ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir(mode=0o770)
    (tmp_path / "data").chmod(0o770)
    rules = tmp_path / "release" / "units" / "ivy.tmpfiles"
    rules.parent.mkdir(parents=True)
    rules.touch()
    (tmp_path / "current").symlink_to(tmp_path / "release")
    user = types.SimpleNamespace(pw_uid=os.getuid(), gr_gid=(tmp_path / "data").stat().st_gid)
    monkeypatch.setattr(plugin, "pwd", types.SimpleNamespace(getpwnam=lambda _: user))
    monkeypatch.setattr(plugin, "grp", types.SimpleNamespace(getgrnam=lambda _: user))
    monkeypatch.setattr(plugin, "strange_files", lambda _: [])
    node = FakeNode(tmp_path)
    node.units = ALL_RUN
    assert run(plugin, monkeypatch, node) == []
    (tmp_path / "data").chmod(0o750)
    assert run(plugin, monkeypatch, node) == [f"{tmp_path / 'data'} was not for the services to write"]
    assert node.done == [f"systemd-tmpfiles --create {tmp_path / 'current' / 'units' / 'ivy.tmpfiles'}"]
