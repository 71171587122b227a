"""Environments of releases, and whose their files are. What runs in them is seen on real nodes."""

import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ivy.utils import commands, confined, environment, ownership
from ivy.utils.update_errors import NetworkTrouble, Rejected
from tests.unit.helpers import Node

HASHED = "wheel==1.0 --hash=sha256:00\n"


@pytest.fixture(autouse=True)
def path(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fake programs are found first; and no file changes its owner, which only root could see to."""
    monkeypatch.setenv("PATH", node.environment["PATH"])
    monkeypatch.setattr(confined, "USER", "root")
    monkeypatch.setattr(os, "chown", lambda *_arguments, **_how: None)


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """A release with an environment."""
    release = tmp_path / "1.1.0"
    (release / "ivy").mkdir(parents=True)
    (release / "ivy" / "__init__.py").write_text("WHERE = __file__\n")
    environment.make(release)
    return release


def test_an_environment_runs_its_release_wherever_that_is(release: Path) -> None:
    moved = release.rename(release.with_name("elsewhere"))
    said = commands.run([environment.python_of(moved), "-P", "-c", "import ivy; print(ivy.WHERE)"], timeout=60)
    assert said == f"{moved}/ivy/__init__.py\n"
    assert environment.fits(moved)


@pytest.mark.parametrize("part", ["bin/python3", "lib/python{}.{}/site-packages/ivy.pth"])
def test_an_environment_of_another_python_does_not_fit(release: Path, part: str) -> None:
    (release / ".venv" / part.format(*sys.version_info)).unlink()
    assert not environment.fits(release)


def test_an_environment_whose_python_is_gone_does_not_fit(release: Path) -> None:
    python = release / ".venv" / "bin" / "python3"
    python.unlink()
    python.symlink_to("/usr/bin/python3.0")
    assert not environment.fits(release)


@pytest.mark.parametrize(
    ("lock", "has"), [(None, False), ("", False), ("# none\n \n", False), (HASHED, True), ("  -r other\n", True)]
)
def test_what_counts_as_a_dependency(release: Path, lock: str | None, has: bool) -> None:
    if lock is not None:
        (release / "requirements.lock").write_text(lock)
    assert environment.has_dependencies(release) is has


def test_without_dependencies_nothing_is_run(release: Path, node: Node) -> None:
    node.fake("systemd-run", {})
    environment.install_dependencies(release)
    assert node.calls() == []


def test_dependencies_are_wheels_with_hashes_and_have_no_rights(release: Path, node: Node) -> None:
    node.fake("systemd-run", {})
    (release / "requirements.lock").write_text(HASHED)
    environment.install_dependencies(release)
    [call] = node.calls()
    for part in (
        "--require-hashes",
        "--only-binary=:all:",
        f"ReadWritePaths={release}/.venv ",
        "NoNewPrivileges=yes",
    ):
        assert part in call


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES", Rejected),
        ("ERROR: No matching distribution found for wheel==1.0", Rejected),
        ("WARNING: Retrying (Retry(total=4)) after connection broken", NetworkTrouble),
        ("ReadTimeoutError: Read timed out.", NetworkTrouble),
        ("", NetworkTrouble),  # as a time limit leaves it
    ],
)
def test_why_dependencies_cannot_be_installed(release: Path, node: Node, said: str, error: type[Exception]) -> None:
    node.fake("systemd-run", {"*": f"echo '{said}' >&2; exit 1"})
    (release / "requirements.lock").write_text(HASHED)
    with pytest.raises(error, match="dependencies cannot be"):
        environment.install_dependencies(release)


def test_an_environment_that_is_made_anew_fits_only_when_it_is_whole(release: Path, node: Node) -> None:
    mark = f"{release}/.venv/lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages/ivy.pth"
    (release / "requirements.lock").write_text(HASHED)
    (release / ".venv" / "of-the-old-one").touch()
    node.fake("systemd-run", {"*": f"test ! -e {mark} || exit 1"})
    environment.make_anew(release)
    assert environment.fits(release)
    assert not (release / ".venv" / "of-the-old-one").exists()
    node.fake("systemd-run", {"*": "echo 'No matching distribution' >&2; exit 1"})
    with pytest.raises(Rejected):
        environment.make_anew(release)
    assert not environment.fits(release)


def test_what_is_taken_back_is_plain_and_for_everybody_to_read(release: Path) -> None:
    for name, mode in (("set", 0o6755), ("secret", 0o600), ("writable", 0o666), ("sticky", 0o1777)):
        (release / "ivy" / name).touch()
        (release / "ivy" / name).chmod(mode)
    (release / "ivy" / "closed").mkdir(mode=0o700)
    (release / "ivy" / "link").symlink_to("../ivy/secret")
    ownership.take_back(release)
    found = {path.name: stat.S_IMODE(path.lstat().st_mode) for path in (release / "ivy").iterdir()}
    wanted = {"set": 0o755, "secret": 0o644, "writable": 0o644, "sticky": 0o755, "closed": 0o755}
    assert {name: found[name] for name in wanted} == wanted


def _link(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


def _chain(path: Path) -> None:
    (path.parent / "first").symlink_to("second")
    (path.parent / "second").symlink_to("third/fourth")
    (path.parent / "third").mkdir()
    (path.parent / "third" / "fourth").symlink_to("../../..")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (_link("/etc/passwd"), "leads out"),
        (_link("../../outside"), "leads out"),
        (_link("../../1.1.0-evil"), "leads out"),
        (_link("../../1.1.0/../outside"), "leads out"),
        (_link("/"), "leads out"),
        (_chain, "leads out"),
        (os.mkfifo, "is no file"),
        (lambda path: os.mknod(path, stat.S_IFSOCK | 0o600), "is no file"),
    ],
)
def test_what_no_release_can_have_is_not_taken_back(
    release: Path, make: Callable[[Path], None], reason: str
) -> None:
    make(release / "ivy" / "evil")
    with pytest.raises(Rejected, match=reason):
        ownership.take_back(release)


def test_a_link_to_itself_is_no_trap(release: Path) -> None:
    (release / "ivy" / "loop").symlink_to("loop")
    with pytest.raises(Rejected, match="leads nowhere"):
        ownership.take_back(release)
