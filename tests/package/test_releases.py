"""Installing a release leaves the old one or the new one, whole, and a config that belongs to it."""

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ivy import constants
from ivy.types.config import Config
from ivy.utils.updates import activation, history
from ivy.utils.updates.bundled import ReleaseError, install_bundled
from ivy.utils.updates.releases import Releases
from ivy.version import Version
from tests.support.killing import killed_at

TEMPLATE = Path(__file__).parents[2] / "config" / "config.template.json"
THIS, NEXT = str(constants.VERSION), "99.0.0"
"""The version by whose schema configs are judged here, and another."""


class Machine:
    """A package's bundled release, and the root below which releases are made of it."""

    def __init__(self, directory: Path) -> None:
        self.bundled = directory / "bundled"
        self.root = directory / "root"
        self.releases = Releases(self.root)
        (self.bundled / "ivy").mkdir(parents=True)
        (self.bundled / "config").mkdir()
        (self.root / "data").mkdir(parents=True)
        self.package("1.0.0")

    def package(self, version: str) -> None:
        """What unpacking a package does: another bundled release, and the node's releases as they were."""
        (self.bundled / "ivy" / "__init__.py").write_text(f"VERSION = {version!r}\n")
        (self.bundled / "pyproject.toml").write_text(f'[project]\nname = "ivy"\nversion = "{version}"\n')
        (self.bundled / "config" / "config.template.json").write_text(TEMPLATE.read_text())

    def install(self, version: str | None = None) -> None:
        if version is not None:
            self.package(version)
        install_bundled(self.bundled, self.releases)

    @property
    def current(self) -> Path:
        return self.root / "current"

    @property
    def config_file(self) -> Path:
        return self.current / "config" / "config.json"

    def config(self) -> Config:
        return Config.load_from_string(self.config_file.read_text())

    def edit_config(self, section: str, value: object) -> None:
        content = json.loads(self.config_file.read_text())
        content[section] = value
        self.config_file.write_text(json.dumps(content))

    def imported_version(self) -> str:
        """What Python finds as `ivy`, when called as /usr/bin/ivy calls it."""
        python = str(self.current / ".venv" / "bin" / "python3")
        command = [python, "-P", "-c", "import ivy; print(ivy.VERSION)"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    def names(self) -> set[str]:
        return {path.name for path in self.root.iterdir()}


@pytest.fixture(autouse=True)
def no_past(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history.FILE, "path", str(tmp_path / "updates.json"))
    monkeypatch.setattr(history.FILE, "group_of", tmp_path)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_new_node_gets_a_release_and_a_config_of_its_own(machine: Machine) -> None:
    machine.install()
    assert machine.names() == {"1.0.0", "current", "data"}
    assert machine.current.readlink() == Path("1.0.0")
    assert machine.imported_version() == "1.0.0"
    assert machine.config().general.system_identifier == socket.gethostname()
    assert machine.config().backend is None
    assert machine.config_file.stat().st_mode & 0o777 == 0o640
    assert machine.config_file.stat().st_gid == (machine.root / "data").stat().st_gid
    assert machine.current.stat().st_mode & 0o777 == 0o755


def test_a_service_that_the_new_version_lacks_ends_before_that_is_the_current_one(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Afterwards nothing could leave its hardware safe."""
    stopped: list[tuple[Path, Path]] = []
    machine.install()
    monkeypatch.setattr(
        activation, "stop_lacking", lambda release: stopped.append((machine.current.readlink(), release))
    )
    machine.install("1.1.0")
    assert stopped == [(Path("1.0.0"), machine.root / "1.1.0")]
    assert machine.current.readlink() == Path("1.1.0")


def test_the_code_is_compiled_although_no_service_can_write_bytecode(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "pycache_prefix", None)  # that of packaging/test
    machine.install()
    assert list((machine.current / "ivy" / "__pycache__").glob("__init__.*.pyc"))


def test_what_is_the_packages_own_is_not_copied(machine: Machine) -> None:
    (machine.bundled / "config" / "config.json").symlink_to("/nowhere/config.json")
    (machine.bundled / "ivy" / "__pycache__").mkdir()
    (machine.bundled / "ivy" / "__pycache__" / "old.pyc").touch()
    machine.install()
    assert not machine.config_file.is_symlink()
    assert not (machine.current / "ivy" / "__pycache__" / "old.pyc").exists()


def test_an_upgrade_carries_the_config_over(machine: Machine) -> None:
    machine.install()
    machine.edit_config("system_checks", {"seconds_between_checks": 77})
    (machine.current / "config" / ".env").write_text("TZ=UTC\n")
    machine.install("1.1.0")
    assert machine.imported_version() == "1.1.0"
    assert machine.config().general.software_version == Version("1.1.0")
    assert machine.config().system_checks.seconds_between_checks == 77
    assert (machine.current / "config" / ".env").read_text() == "TZ=UTC\n"
    old = Config.load_from_string((machine.root / "1.0.0" / "config" / "config.json").read_text())
    assert old.general.software_version == Version("1.0.0")


def test_a_rollback_leads_back_to_what_ran_before_the_package(machine: Machine) -> None:
    machine.install()
    assert history.load().last_good is None
    machine.edit_config("system_checks", {"seconds_between_checks": 77})
    machine.install("1.1.0")
    machine.install()  # again: what ran before is still that
    before = history.load().last_good
    assert before is not None and before.general.software_version == Version("1.0.0")
    assert before.model_dump()["system_checks"] == {"seconds_between_checks": 77}


def test_an_upgrade_does_without_a_config_that_is_gone(machine: Machine) -> None:
    machine.install()
    machine.config_file.unlink()
    machine.install("1.1.0")
    assert machine.current.readlink() == Path("1.1.0")
    assert machine.config().general.system_identifier == socket.gethostname()


def test_a_reinstall_replaces_the_code_and_keeps_the_config(machine: Machine) -> None:
    machine.install()
    machine.config_file.write_text("{ not even JSON")
    (machine.current / "ivy" / "stale.py").touch()
    machine.install()
    assert machine.config_file.read_text() == "{ not even JSON"
    assert machine.config_file.stat().st_mode & 0o777 == 0o640
    assert not (machine.current / "ivy" / "stale.py").exists()
    assert machine.names() == {"1.0.0", "current", "data"}


def test_a_config_that_the_new_version_rejects_leaves_the_old_one_running(machine: Machine) -> None:
    machine.install()
    machine.edit_config("a_section_of_the_future", {})
    with pytest.raises(ReleaseError, match="a_section_of_the_future"):
        machine.install("1.1.0")
    assert machine.names() == {"1.0.0", "current", "data"}
    assert machine.imported_version() == "1.0.0"


@pytest.mark.parametrize("newer", ["1.1.0", "1.0.1-alpha.1"])
def test_a_newer_release_goes_on_running(machine: Machine, newer: str, capsys: pytest.CaptureFixture[str]) -> None:
    machine.install(newer)
    machine.install("1.0.0")
    assert machine.releases.current() == Version(newer)
    assert f"ivy {newer} runs" in capsys.readouterr().out
    assert machine.names() == {newer, "current", "data"}


def test_a_final_release_follows_its_candidates(machine: Machine) -> None:
    machine.install("1.1.0-rc.10")
    machine.install("1.1.0")
    assert machine.releases.current() == Version("1.1.0")


def test_a_release_that_was_rolled_back_gets_the_config_that_works(machine: Machine) -> None:
    machine.install()
    machine.install("1.1.0")
    machine.edit_config("system_checks", {"seconds_between_checks": 1})
    machine.current.unlink()
    machine.current.symlink_to("1.0.0")
    machine.install("1.1.0")
    assert machine.config().system_checks.seconds_between_checks == 60


def _dangle(machine: Machine) -> None:
    machine.current.unlink()
    machine.current.symlink_to("9.9.9")


def _name_no_version(machine: Machine) -> None:
    machine.current.resolve().rename(machine.root / "hello")
    machine.current.unlink()
    machine.current.symlink_to("hello")


@pytest.mark.parametrize("damage", [_dangle, _name_no_version])
def test_a_link_that_names_no_release_is_mended(machine: Machine, damage: Callable[[Machine], None]) -> None:
    machine.install()
    damage(machine)
    assert machine.releases.current() is None
    machine.install()
    assert machine.imported_version() == "1.0.0"


def test_what_an_interrupted_installation_left_is_removed(machine: Machine) -> None:
    (machine.root / ".0.9.0.new" / "ivy").mkdir(parents=True)
    (machine.root / ".current.new").symlink_to("0.9.0")
    machine.install()
    assert machine.names() == {"1.0.0", "current", "data"}


def _is_whole(release: Path) -> bool:
    if not release.exists():
        return False
    parts = ("ivy/__init__.py", "pyproject.toml", "config/config.json", ".venv/bin/python3")
    assert all((release / part).exists() for part in parts), f"half a release: {release}"
    return True


@pytest.mark.parametrize("before", [None, "1.0.0", "1.1.0"], ids=["new", "upgrade", "reinstall"])
def test_killed_at_any_step_it_leaves_the_old_release_or_the_new_one(tmp_path: Path, before: str | None) -> None:
    step = 0
    while True:
        machine = Machine(tmp_path / str(step))
        if before is not None:
            machine.install(before)
        machine.package("1.1.0")
        died = killed_at(step, machine.install)
        assert _is_whole(machine.current) or before is None
        if not died:
            return
        machine.install()
        assert machine.releases.current() == Version("1.1.0")
        assert machine.names() == {"current", "data", "1.1.0"} | ({before} if before else set())
        step += 7  # one by one takes half a minute


OLD, NEW = Version("1.0.0"), Version("1.1.0")


@pytest.fixture
def two(machine: Machine) -> Releases:
    """Two releases, of which the old one runs."""
    machine.install("1.0.0")
    machine.install("1.1.0")
    machine.releases.activate(OLD)
    return machine.releases


def test_a_probation_keeps_release_and_config(two: Releases) -> None:
    before = two.read_config(OLD)
    two.begin_probation()
    two.write_config(OLD, "{}")
    two.activate(NEW)
    assert (two.current(), two.previous()) == (NEW, OLD)
    kept = two.config_before()
    assert kept is not None and kept.general.software_version == OLD
    for _ in range(2):  # it may be done twice
        two.go_back()
        assert (two.current(), two.previous(), two.read_config(OLD)) == (OLD, OLD, before)
    two.end_probation()
    two.end_probation()
    assert (two.previous(), two.config_before()) == (None, None)
    configs = {path.name for path in two.config_file(OLD).parent.iterdir()}
    assert configs == {"config.json", "config.template.json"}


def test_what_is_kept_is_private(two: Releases) -> None:
    two.begin_probation()
    kept = two.config_file(OLD).with_name("config.previous.json").stat()
    assert kept.st_mode & 0o777 == 0o640
    assert kept.st_gid == (two.root / "data").stat().st_gid


def test_there_is_no_probation_of_nothing(machine: Machine) -> None:
    with pytest.raises(OSError, match="names no release"):
        machine.releases.begin_probation()
    machine.releases.go_back()
    machine.releases.end_probation()
    assert machine.names() == {"data"}


def test_the_link_outlives_no_config_that_it_needs(two: Releases) -> None:
    """A probation that begins is whole before it shows, one that ends does not show before it is taken apart."""

    def whole() -> None:
        two.begin_probation()
        two.end_probation()

    step, seen = 0, set()
    while killed_at(step, whole):
        if two.previous() is not None:
            assert two.config_before() is not None
        seen.add(two.previous())
        assert two.current() == OLD
        two.end_probation()
        step += 1
    assert seen == {None, OLD}


def test_a_return_that_is_killed_at_any_step_is_done_by_the_next_one(two: Releases) -> None:
    before, step = two.read_config(OLD), 0
    while True:
        two.begin_probation()
        two.write_config(OLD, "{}")
        two.activate(NEW)
        died = killed_at(step, two.go_back)
        assert two.current() in (OLD, NEW) and two.previous() == OLD
        assert two.read_config(OLD) in ("{}", before)
        two.go_back()
        assert (two.current(), two.read_config(OLD)) == (OLD, before)
        two.remove_unfinished()
        two.end_probation()
        if not died:
            return
        step += 1


def test_a_removed_release_is_gone_at_once_or_there_as_a_whole(two: Releases) -> None:
    step = 0
    while killed_at(step, lambda: two.remove(NEW)):
        if two.directory(NEW).exists():
            assert _is_whole(two.directory(NEW))
            step += 1
            continue
        two.remove_unfinished()
        assert {path.name for path in two.root.iterdir()} == {"1.0.0", "current", "data"}
        return
    raise AssertionError("it was never seen half way")


def keep_secrets_beside(machine: Machine) -> None:
    """Let all releases be such as know of secrets, and of an accepted config, beside the config."""
    (machine.bundled / "units").mkdir()
    (machine.bundled / "units" / "ivy-owners.service").touch()


def test_the_config_of_a_new_node_is_an_accepted_one(machine: Machine) -> None:
    keep_secrets_beside(machine)
    machine.install(THIS)
    accepted = machine.config_file.with_name("config.accepted.json")
    assert accepted.read_text() == machine.config_file.read_text()
    machine.install(NEXT)
    assert json.loads(accepted.read_text())["general"]["software_version"] == NEXT


@pytest.mark.parametrize("damage", ["\0" * 851, "", '{"general": '], ids=["zeros", "nothing", "half"])
@pytest.mark.parametrize("version", [THIS, NEXT])
def test_a_config_that_cannot_be_used_stops_no_installation(machine: Machine, damage: str, version: str) -> None:
    keep_secrets_beside(machine)
    machine.install(THIS)
    machine.edit_config("system_checks", {"seconds_between_checks": 77})
    machine.releases.keep_accepted()
    machine.config_file.write_text(damage)
    machine.install(version)
    active = json.loads(machine.releases.active_text())
    assert active["system_checks"] == {"seconds_between_checks": 77}
    assert active["general"]["software_version"] == version
    # What somebody may yet correct, where it is his own release.
    assert (machine.config_file.read_text() == damage) == (version == THIS)


def test_a_config_that_is_gone_comes_from_the_accepted_one(machine: Machine) -> None:
    keep_secrets_beside(machine)
    machine.install(THIS)
    machine.edit_config("system_checks", {"seconds_between_checks": 77})
    machine.releases.keep_accepted()
    machine.config_file.unlink()
    machine.install(THIS)
    assert machine.config().system_checks.seconds_between_checks == 77
