"""Environments of releases, and whose their files are. What runs in them is seen on real nodes."""

import hashlib
import os
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ivy.utils.host import commands
from ivy.utils.updates import environment, sandbox
from ivy.utils.updates.errors import InstallTrouble, Rejected
from tests.support.helpers import Node, give_libraries

NEEDED = ["filelock", "paho", "psutil", "pydantic", "pydantic_core", "sdnotify"]
HASHED = "wheel==1.0 --hash=sha256:00\n"


@pytest.fixture(autouse=True)
def path(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fake programs are found first; and no file changes its owner, which only root could see to."""
    monkeypatch.setenv("PATH", node.environment["PATH"])
    monkeypatch.setattr(os, "chown", lambda *_arguments, **_how: None)


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """A release with an environment."""
    release = tmp_path / "1.1.0"
    (release / "ivy").mkdir(parents=True)
    (release / "ivy" / "__init__.py").write_text("WHERE = __file__\n")
    environment.make(release)
    give_libraries(release)
    return release


@pytest.fixture
def dpkg(node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What dpkg remembers of its runs. How often Python is asked is seen by the program that limits its time."""
    directory = tmp_path / "dpkg"
    (directory / "updates").mkdir(parents=True)
    (directory / "status").write_text("Package: python3\n")
    monkeypatch.setenv("DPKG_ADMINDIR", str(directory))
    node.fake("timeout", {"*": 'shift 2; exec /usr/bin/timeout --signal=KILL 60 "$@"'})
    return directory


def packages_of(release: Path) -> Path:
    """Where the libraries of an environment are."""
    [packages] = (release / ".venv" / "lib").glob("*/site-packages")
    return packages


def test_an_environment_runs_its_release_wherever_that_is(release: Path) -> None:
    moved = release.rename(release.with_name("elsewhere"))
    said = commands.run([environment.python_of(moved), "-P", "-c", "import ivy; print(ivy.WHERE)"], timeout=60)
    assert said == f"{moved}/ivy/__init__.py\n"
    assert environment.fits(moved)


def asked(node: Node) -> int:
    """How often Python was asked, where there is a `dpkg`."""
    return sum(call.startswith("timeout ") for call in node.calls())


def lose(release: Path, module: str) -> None:
    """Let a module not be there for the Python of an environment."""
    (packages_of(release) / "lost.pth").write_text(f"import sys; sys.modules[{module!r}] = None\n")


@pytest.mark.parametrize("part", ["bin/python3", "lib/python{}.{}/site-packages/ivy.pth"])
def test_an_environment_of_another_python_does_not_fit(release: Path, part: str) -> None:
    (release / ".venv" / part.format(*sys.version_info)).unlink()
    assert not environment.fits(release)


def test_an_environment_whose_python_is_gone_does_not_fit(release: Path) -> None:
    python = release / ".venv" / "bin" / "python3"
    python.unlink()
    python.symlink_to("/usr/bin/python3.0")
    assert not environment.fits(release)


def test_an_environment_whose_libraries_are_for_another_python_does_not_fit(release: Path) -> None:
    (release / ".venv" / "lib" / f"python3.{sys.version_info.minor}").rename(
        release / ".venv" / "lib" / "python3.2"
    )
    assert not environment.fits(release)


@pytest.mark.parametrize("module", NEEDED)
def test_an_environment_that_lacks_what_ivy_needs_does_not_fit(release: Path, module: str) -> None:
    """As Debian's old interpreter does, which stays behind after an upgrade."""
    lose(release, module)
    assert not environment.fits(release)
    assert module in str(environment.why_not(release))


@pytest.mark.parametrize("file", ["pyvenv.cfg", "lib/python{}.{}/site-packages/ivy.pth"])
@pytest.mark.parametrize("left", [b"", bytes(40), b"home = /usr/bin\n", b"../../..\n"])
def test_an_environment_with_files_that_a_power_cut_left_empty_does_not_fit(
    release: Path, file: str, left: bytes
) -> None:
    assert environment.fits(release)
    (release / ".venv" / file.format(*sys.version_info)).write_bytes(left)
    assert not environment.fits(release)


def test_the_package_ivy_must_be_the_one_of_the_release(release: Path) -> None:
    (packages_of(release) / "ivy").mkdir()
    (packages_of(release) / "ivy" / "__init__.py").touch()
    assert "another ivy" in str(environment.why_not(release))


def test_an_import_that_hangs_is_none(release: Path, node: Node) -> None:
    (packages_of(release) / "filelock.py").write_text("import time\ntime.sleep(600)\n")
    (packages_of(release) / "libraries.pth").rename(packages_of(release) / "zlast.pth")
    node.fake("timeout", {"*": 'shift 2; exec /usr/bin/timeout --signal=KILL 1 "$@"'})
    assert not environment.fits(release)


def test_the_answer_does_not_depend_on_who_asks(release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (release / "elsewhere").mkdir()
    (release / "elsewhere" / "psutil.py").write_text("raise ImportError\n")
    monkeypatch.setenv("PYTHONPATH", str(release / "elsewhere"))
    monkeypatch.setenv("PYTHONHOME", "/nonexistent")
    assert environment.fits(release)


def test_python_is_not_asked_again_until_a_package_was_changed(release: Path, node: Node, dpkg: Path) -> None:
    assert environment.fits(release) and environment.fits(release)
    assert asked(node) == 1
    moved = release.rename(release.with_name("1.1.1"))
    assert environment.fits(moved) and asked(node) == 1
    (dpkg / "status-new").write_text("Package: python3\n")
    (dpkg / "status-new").rename(dpkg / "status")  # as dpkg does at its end
    assert environment.fits(moved) and asked(node) == 2
    (dpkg / "updates" / "0001").touch()  # as it does for each package
    assert environment.fits(moved) and asked(node) == 3
    lose(moved, "psutil")
    assert environment.fits(moved), "nothing tells what was changed by hand"
    (dpkg / "updates" / "0001").unlink()
    assert not environment.fits(moved) and not environment.fits(moved)
    assert asked(node) == 5, "a bad answer is not kept"


def test_an_answer_is_not_that_of_another_interpreter(release: Path, node: Node, dpkg: Path) -> None:
    assert environment.fits(release)
    python = release / ".venv" / "bin" / "python3"
    python.unlink()
    python.symlink_to("/bin/false")
    assert not environment.fits(release) and asked(node) == 2


@pytest.mark.parametrize("left", [b"", bytes(60), b"\n", b"yes\n"])
def test_an_answer_that_a_power_cut_has_emptied_is_none(release: Path, node: Node, dpkg: Path, left: bytes) -> None:
    assert environment.fits(release)
    (release / ".venv" / "fits").write_bytes(left)
    assert environment.fits(release) and environment.fits(release)
    assert asked(node) == 2


def test_nothing_is_kept_in_what_belongs_to_somebody_else(release: Path, node: Node, dpkg: Path) -> None:
    """Who installs libraries may have put a link there."""
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    (release / ".venv" / "fits").symlink_to("../../secret")
    subprocess.run(["chown", "4711", release / ".venv"], check=True)
    assert environment.fits(release) and not (release.parent / "secret").exists()
    subprocess.run(["chown", "0", release / ".venv"], check=True)
    assert environment.fits(release) and not (release.parent / "secret").exists()
    assert (release / ".venv" / "fits").is_file()


def test_without_dpkg_python_is_asked_each_time(release: Path, node: Node, dpkg: Path) -> None:
    (dpkg / "status").unlink()
    assert environment.fits(release) and environment.fits(release)
    assert asked(node) == 2 and not (release / ".venv" / "fits").exists()


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
        f"StateDirectory={os.path.relpath(release, '/var/lib')}/.venv ",
        f"--requirement={release}/.venv/requirements.txt",
        "NoNewPrivileges=yes",
    ):
        assert part in call
    assert (release / ".venv" / "requirements.txt").read_text() == HASHED


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES", Rejected),
        ("ERROR: No matching distribution found for wheel==1.0", Rejected),
        ("WARNING: Retrying (Retry(total=4)) after connection broken", InstallTrouble),
        ("ReadTimeoutError: Read timed out.", InstallTrouble),
        ("", InstallTrouble),  # as a time limit leaves it
    ],
)
def test_why_dependencies_cannot_be_installed(release: Path, node: Node, said: str, error: type[Exception]) -> None:
    node.fake("systemd-run", {"*": f"echo '{said}' >&2; exit 1"})
    (release / "requirements.lock").write_text(HASHED)
    with pytest.raises(error, match="dependencies cannot be"):
        environment.install_dependencies(release)


def test_what_the_package_brought_is_tried_first(release: Path, node: Node, tmp_path: Path) -> None:
    """No network is needed where that is enough; where it is not, it still counts."""
    (tmp_path / "wheels").mkdir()
    (release / "requirements.lock").write_text(HASHED)
    node.fake("systemd-run", {})
    environment.install_dependencies(release, wheels=tmp_path / "wheels")
    [call] = node.calls()
    assert f" --no-index --find-links={tmp_path}/wheels" in call and "--require-hashes" in call
    node.fake("systemd-run", {"*--no-index*": "echo 'No matching distribution' >&2; exit 1"})
    environment.install_dependencies(release, wheels=tmp_path / "wheels")
    *_, first, second = (call for call in node.calls() if call.startswith("systemd-run "))
    assert "--no-index" in first and "--no-index" not in second
    assert f"--find-links={tmp_path}/wheels" in second


def test_a_package_installs_what_it_brought_and_asks_no_network(release: Path, node: Node, tmp_path: Path) -> None:
    (release / "requirements.lock").write_text(HASHED)
    node.fake("systemd-run", {})
    node.fake("systemctl", {})
    environment.install_bundled_dependencies(release, wheels=tmp_path / "wheels", systemd=tmp_path)
    [call] = (call for call in node.calls() if call.startswith("systemd-run "))
    assert f"--no-index --find-links={tmp_path}/wheels" in call and "NoNewPrivileges=yes" in call
    node.fake("systemd-run", {"*": "echo 'No matching distribution found for wheel' >&2; exit 1"})
    with pytest.raises(Rejected, match=f"cannot be installed from {tmp_path}/wheels: No matching"):
        environment.install_bundled_dependencies(release, wheels=tmp_path / "wheels", systemd=tmp_path)


def test_an_environment_that_is_made_anew_fits_only_when_it_is_whole(release: Path, node: Node) -> None:
    mark = f"{release}/.venv/lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages/ivy.pth"
    (release / "requirements.lock").write_text(HASHED)
    (release / ".venv" / "of-the-old-one").touch()
    node.fake("systemd-run", {"*": f"test ! -e {mark} || exit 1"})
    environment.make_again(release)
    give_libraries(release)
    assert environment.fits(release)
    assert not (release / ".venv" / "of-the-old-one").exists()
    node.fake("systemd-run", {"*": "echo 'No matching distribution' >&2; exit 1"})
    with pytest.raises(Rejected):
        environment.make_again(release)
    assert not environment.fits(release)


def test_what_is_taken_back_is_plain_and_for_everybody_to_read(release: Path) -> None:
    for name, mode in (("set", 0o6755), ("secret", 0o600), ("writable", 0o666), ("sticky", 0o1777)):
        (release / "ivy" / name).touch()
        (release / "ivy" / name).chmod(mode)
    (release / "ivy" / "closed").mkdir(mode=0o700)
    (release / "ivy" / "link").symlink_to("../ivy/secret")
    sandbox.take_back(release)
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
        (os.mkfifo, "is not a regular file"),
        (lambda path: os.mknod(path, stat.S_IFSOCK | 0o600), "is not a regular file"),
    ],
)
def test_what_no_release_can_have_is_not_taken_back(
    release: Path, make: Callable[[Path], None], reason: str
) -> None:
    make(release / "ivy" / "evil")
    with pytest.raises(Rejected, match=reason):
        sandbox.take_back(release)


def test_a_link_to_itself_is_no_trap(release: Path) -> None:
    (release / "ivy" / "loop").symlink_to("loop")
    with pytest.raises(Rejected, match="leads nowhere"):
        sandbox.take_back(release)


def test_what_the_admin_wants_of_pip_elsewhere_is_not_done_here(
    release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By /etc/pip.conf: with "user" pip refuses each environment. And what root has at home, a service has not."""
    wheel = tmp_path / "wheels" / "tiny-1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    about = "tiny-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny.py", "")
        archive.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    (release / "requirements.lock").write_text(f"tiny==1.0 --hash=sha256:{digest}\n")
    (tmp_path / "pip.conf").write_text("[install]\nuser = true\n")
    at_home = tmp_path / "home" / "lib" / packages_of(release).parent.name / "site-packages" / about
    at_home.mkdir(parents=True)
    (at_home / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
    monkeypatch.setenv("PYTHONUSERBASE", str(tmp_path / "home"))
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    environment.install_bundled_dependencies(release, wheels=wheel.parent, systemd=tmp_path / "none")
    assert (packages_of(release) / "tiny.py").exists()
