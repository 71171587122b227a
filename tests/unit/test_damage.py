"""What a card or a power cut has damaged of a release is found, and comes from where it is whole."""

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest

from ivy import constants
from ivy.types.updates import Offer
from ivy.utils.host.commands import CommandError
from ivy.utils.logger import Logger
from ivy.utils.updates import activation, damage, environment, history, manifest
from ivy.utils.updates import releases as releases_module
from ivy.utils.updates.releases import Releases
from ivy.version import Version
from tests.support.helpers import Node, make_config
from tests.unit.offers import foreign

WHOLE = Path(constants.PROJECT_DIR, "ivy", "whole.sh")
OLD, VERSION, NEW = Version("1.0.5"), Version("1.1.0"), Version("9.0.0")
CODE = "ivy/parts/agent.py"
FILES = {
    "ivy/__init__.py": "",
    CODE: "SECONDS = 10\n\n\ndef work() -> int:\n    return SECONDS\n",
    "ivy/parts/__init__.py": "",
    "units/ivy-dummy-procedure.service": "[Service]\nExecStart=/usr/bin/ivy run dummy-procedure\n",
    "tests/test_agent.py": "def test() -> None:\n    pass\n",
    "config/config.template.json": Path(constants.PROJECT_DIR, "config", "config.template.json").read_text(),
    "requirements.lock": "",
}
SERVICE = "ivy-dummy-procedure.service"


def make_tree(directory: Path, version: Version, **changed: str) -> Path:
    """What a release consists of."""
    files = {**FILES, "pyproject.toml": f'[project]\nversion = "{version}"\n', **changed}
    for name, content in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(content)
    return directory


def make_release(releases: Releases, version: Version, **changed: str) -> Path:
    """A release as it was when it came."""
    unfinished = make_tree(releases.unfinished(version), version, **changed)
    environment.make(unfinished)
    manifest.compile_code(unfinished)
    releases.write(unfinished / "config" / "config.json", foreign(3, str(version)).model_dump_json())
    releases.put_in_place(version)
    return releases.directory(version)


@pytest.fixture(autouse=True)
def package(tmp_path: Path, node: Node, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the package has brought: `VERSION`. No service runs, and there is no sandbox to ask git in."""
    monkeypatch.setattr(sys, "pycache_prefix", None)  # that of packaging/test
    monkeypatch.setenv("PATH", node.environment["PATH"])
    node.fake("systemctl", {"show*Wants*": f"echo Wants={SERVICE}", "show*": "echo ActiveState=active"})
    node.fake("systemd-run", {"*": "exit 1"})
    node.fake("dpkg", {"*": ""})
    package = make_tree(tmp_path / "package", VERSION)
    monkeypatch.setattr(damage, "BUNDLED", package)
    monkeypatch.setattr(releases_module, "BUNDLED", package)
    monkeypatch.setattr(environment, "why_not", lambda _release: None)
    return package


@pytest.fixture
def releases(root_dir: Path, package: Path) -> Releases:
    """The package's release runs."""
    releases = Releases(root_dir)
    make_release(releases, VERSION)
    releases.activate(VERSION)
    return releases


def repair(releases: Releases) -> bool:
    return damage.repair(releases, make_config(), Logger(make_config(), "updater").without_messages())


def is_whole(release: Path) -> bool:
    """What /usr/bin/ivy asks."""
    done = subprocess.run(["/bin/sh", str(WHOLE), str(release)], capture_output=True, text=True)
    assert done.returncode in (0, 1) and done.stdout == done.stderr == ""
    return done.returncode == 0


def zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def truncate(path: Path) -> None:
    path.write_bytes(b"")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def replace_by_directory(path: Path) -> None:
    path.unlink()
    (path / "lost").mkdir(parents=True)


DAMAGES: list[Callable[[Path], None]] = [zeros, truncate, flip, Path.unlink, replace_by_directory]


def test_a_release_that_is_as_it_came_is_whole(releases: Releases, node: Node) -> None:
    release = releases.directory(VERSION)
    assert is_whole(release) and manifest.damaged(release) == []
    assert manifest.FILE in os.listdir(release) and manifest.BYTECODE in os.listdir(release)
    before = {path: path.stat().st_mtime_ns for path in release.rglob("*")}
    assert not repair(releases)
    assert {path: path.stat().st_mtime_ns for path in release.rglob("*")} == before
    assert not [call for call in node.calls() if "restart" in call]


@pytest.mark.parametrize("harm", DAMAGES)
@pytest.mark.parametrize("name", [CODE, "units/ivy-dummy-procedure.service", "pyproject.toml"])
def test_a_damaged_file_comes_from_the_package(
    releases: Releases, node: Node, name: str, harm: Callable[[Path], None]
) -> None:
    release = releases.directory(VERSION)
    content = (release / name).read_text()
    (release / name).chmod(0o755)
    if harm is truncate and not content:
        pytest.skip("it is empty")
    harm(release / name)
    assert manifest.damaged(release) == [name] and not is_whole(release)
    assert repair(releases)
    assert manifest.damaged(release) == [] and is_whole(release)
    assert (release / name).read_text() == content and (release / name).stat().st_mode & 0o777 == 0o644
    assert f"systemctl restart -- {SERVICE}" in node.calls()


@pytest.mark.parametrize("harm", DAMAGES)
def test_bytecode_is_made_again(releases: Releases, harm: Callable[[Path], None]) -> None:
    """Python looks at its first 16 bytes only."""
    release = releases.directory(VERSION)
    [bytecode] = (release / "ivy" / "parts" / "__pycache__").glob("agent.*.pyc")
    harm(bytecode)
    assert not is_whole(release)
    assert repair(releases)
    assert is_whole(release) and bytecode.stat().st_size > 100


def test_code_and_its_bytecode_are_damaged_at_once(releases: Releases) -> None:
    release = releases.directory(VERSION)
    for path in [release / CODE, *release.glob("ivy/parts/__pycache__/*")]:
        truncate(path)
    repair(releases)
    assert is_whole(release)
    command = [sys.executable, "-c", "from ivy.parts import agent; print(agent.work())"]
    assert subprocess.run(command, cwd=release, capture_output=True, text=True).stdout == "10\n"


def test_a_directory_that_is_gone(releases: Releases) -> None:
    shutil.rmtree(releases.directory(VERSION) / "ivy" / "parts")
    repair(releases)
    assert is_whole(releases.directory(VERSION))


def test_what_cannot_be_read_is_as_good_as_gone(releases: Releases, monkeypatch: pytest.MonkeyPatch) -> None:
    path = releases.directory(VERSION) / CODE
    sick, really_open = path.stat().st_ino, Path.open

    def open_it(self: Path, *arguments: Any, **how: Any) -> IO[Any]:
        if self == path and path.stat().st_ino == sick:
            raise OSError(errno.EIO, "Input/output error", str(path))
        file: IO[Any] = really_open(self, *arguments, **how)
        return file

    monkeypatch.setattr(Path, "open", open_it)
    assert manifest.damaged(path.parents[2]) == [CODE]
    repair(releases)
    assert manifest.damaged(path.parents[2]) == []


@pytest.mark.parametrize("harm", [zeros, truncate, flip])
@pytest.mark.parametrize("name", [manifest.FILE, manifest.BYTECODE])
def test_a_manifest_that_is_damaged_itself(releases: Releases, name: str, harm: Callable[[Path], None]) -> None:
    release = releases.directory(VERSION)
    before = manifest.read(release)
    harm(release / name)
    assert manifest.damaged(release) == [name] and not is_whole(release)
    assert not repair(releases), "no service need be restarted"
    assert is_whole(release) and manifest.read(release) == before


def test_what_only_the_package_can_tell_is_not_asked_of_one_that_is_damaged(
    releases: Releases, package: Path, node: Node
) -> None:
    node.fake("dpkg", {"*": f"echo '??5??????   /usr/lib/ivy/{CODE}'; exit 1"})
    flip(package / CODE)
    zeros(releases.directory(VERSION) / manifest.FILE)
    repair(releases)
    assert is_whole(releases.directory(VERSION))
    assert (releases.directory(VERSION) / CODE).read_text() == FILES[CODE]


@pytest.mark.parametrize("is_code", [True, False])
def test_a_release_of_version_1_0_gets_a_manifest_when_it_is_well(releases: Releases, is_code: bool) -> None:
    release = releases.directory(VERSION)
    for name in (manifest.FILE, manifest.BYTECODE):
        (release / name).unlink()
    assert is_whole(release), "it has to run"
    if not is_code:
        zeros(release / CODE)
    repair(releases)
    assert (release / manifest.FILE).exists() == is_code


def test_who_edits_a_release_removes_its_manifest_first(releases: Releases) -> None:
    release = releases.directory(VERSION)
    for name in (manifest.FILE, manifest.BYTECODE):
        (release / name).unlink()
    (release / CODE).write_text("print('found')\n")
    repair(releases)
    repair(releases)
    assert (release / CODE).read_text() == "print('found')\n" and is_whole(release)


def test_what_is_added_to_a_release_is_nobodys_concern(releases: Releases) -> None:
    added = releases.directory(VERSION) / "ivy" / "parts" / "valve.py"
    added.write_text("OPEN = True\n")
    assert not repair(releases)
    assert added.exists() and is_whole(releases.directory(VERSION))


def test_a_file_comes_from_another_release(releases: Releases, package: Path) -> None:
    release = make_release(releases, NEW)
    releases.activate(NEW)
    (package / CODE).write_text("SECONDS = 11\n")
    truncate(release / CODE)
    assert repair(releases)
    assert releases.current() == NEW and is_whole(release)


def lost_for_good(releases: Releases) -> Path:
    """A release runs that nothing else has, and a file of it is damaged."""
    release = make_release(releases, NEW, **{CODE: "SECONDS = 12\n"})
    releases.activate(NEW)
    truncate(release / CODE)
    return release


def test_the_last_good_release_runs_where_nothing_else_helps(releases: Releases, node: Node) -> None:
    make_release(releases, OLD)
    release = lost_for_good(releases)
    with history.update() as past:
        past.last_good = foreign(2, str(OLD))
    assert repair(releases)
    assert releases.current() == OLD
    assert releases.active_config().general.config_revision == 2
    assert not release.exists(), "its directory would be taken for a release"
    good = history.load().last_good
    assert good and good.general.software_version == NEW, "`ivy rollback` leads back, and fetches it"
    assert f"systemctl restart -- {SERVICE}" in node.calls()


@pytest.mark.parametrize("version", [OLD, VERSION])
def test_what_the_other_release_lacks_ends_before_that_one_runs(
    releases: Releases, monkeypatch: pytest.MonkeyPatch, version: Version
) -> None:
    """Afterwards nothing could leave its hardware safe."""
    stopped: list[tuple[Version | None, Path]] = []
    monkeypatch.setattr(activation, "stop_lacking", lambda release: stopped.append((releases.current(), release)))
    if version == OLD:
        make_release(releases, OLD)
        with history.update() as past:
            past.last_good = foreign(2, str(OLD))
    lost_for_good(releases)
    assert repair(releases)
    assert releases.current() == version and stopped == [(NEW, releases.directory(version))]


@pytest.mark.parametrize("is_there", [False, True])
def test_the_packages_release_runs_where_there_is_no_good_one(releases: Releases, is_there: bool) -> None:
    lost_for_good(releases)
    if is_there:
        make_release(releases, OLD, **{CODE: "SECONDS = 13\n"})
        zeros(releases.directory(OLD) / CODE)
        with history.update() as past:
            past.last_good = foreign(2, str(OLD))
    assert repair(releases)
    assert releases.current() == VERSION and is_whole(releases.directory(VERSION))
    assert not releases.directory(OLD).exists()


@pytest.mark.parametrize("name", [CODE, "pyproject.toml"])
def test_a_release_goes_on_as_it_is_where_the_package_is_damaged_too(
    releases: Releases, package: Path, name: str
) -> None:
    release = lost_for_good(releases)
    zeros(package / name)
    shutil.rmtree(releases.directory(VERSION))
    assert not repair(releases)
    assert releases.current() == NEW and release.exists()


def test_a_trial_ends_by_going_back_and_not_by_a_third_release(releases: Releases) -> None:
    releases.begin_probation()
    lost_for_good(releases)
    repair(releases)
    assert (releases.current(), releases.previous()) == (NEW, VERSION)


def test_a_test_that_is_lost_costs_no_release(releases: Releases) -> None:
    release = make_release(releases, NEW, **{"tests/test_agent.py": "def test_it() -> None:\n    pass\n"})
    releases.activate(NEW)
    truncate(release / "tests" / "test_agent.py")
    assert not repair(releases)
    assert releases.current() == NEW and is_whole(release)


@pytest.mark.parametrize("target", [None, "9.9.9", "."])
@pytest.mark.parametrize("accepted", [None, OLD, NEW])
def test_a_lost_link_leads_again_to_what_ran(
    releases: Releases, target: str | None, accepted: Version | None
) -> None:
    for version in (OLD, NEW):
        make_release(releases, version)
    if accepted:
        offer = Offer(identifier="x", config=foreign(4, str(accepted)), accepted=True)
        with history.update() as past:
            past.add(offer)
    link = releases.root / "current"
    link.unlink()
    if target:
        link.symlink_to(target)
    assert releases.has_lost_link()
    assert repair(releases)
    assert releases.current() == (NEW if accepted == NEW else VERSION)


def test_a_node_without_any_release_gets_the_packages(releases: Releases) -> None:
    shutil.rmtree(releases.directory(VERSION))
    assert releases.has_lost_link() and repair(releases)
    assert releases.current() == VERSION and not releases.has_lost_link()


def test_no_link_was_lost_where_there_never_was_one(root_dir: Path) -> None:
    assert not Releases(root_dir).has_lost_link()
    assert not Releases(root_dir / "nothing").has_lost_link()


def test_the_flag_of_whoever_found_the_damage_is_removed(
    releases: Releases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(damage, "FLAG", str(tmp_path / "damage-found"))
    (tmp_path / "damage-found").mkdir()
    repair(releases)
    assert not (tmp_path / "damage-found").exists()


def test_a_pass_that_was_ended_before_it_restarted_the_services_is_followed_by_one_that_does(
    releases: Releases, node: Node
) -> None:
    truncate(releases.directory(VERSION) / "units" / "ivy-dummy-procedure.service")
    node.fake("systemctl", {"daemon-reload": "exit 1"})
    with pytest.raises(CommandError):
        repair(releases)
    assert is_whole(releases.directory(VERSION))
    node.fake("systemctl", {"show*Wants*": f"echo Wants={SERVICE}", "show*": "echo ActiveState=active"})
    assert repair(releases)
    assert node.calls().count(f"systemctl restart -- {SERVICE}") == 1
    assert not repair(releases)
    assert node.calls().count(f"systemctl restart -- {SERVICE}") == 1


def test_what_somebody_has_stopped_stays_so(releases: Releases, node: Node) -> None:
    node.fake("systemctl", {"show*Wants*": f"echo Wants={SERVICE}", "show*": "echo ActiveState=inactive"})
    for name in (CODE, "units/ivy-dummy-procedure.service"):
        truncate(releases.directory(VERSION) / name)
        repair(releases)
    assert not [call for call in node.calls() if " restart " in call]
    assert "systemctl daemon-reload" in node.calls()


def test_a_file_whose_name_sha256sum_writes_in_another_way_is_left_out(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree", VERSION)
    for name in ("a\nb.py", "a\\b.py", ".hidden"):
        (tree / "ivy" / name).touch()
    assert set(manifest.checksums(tree)) == {*FILES, "pyproject.toml"}
