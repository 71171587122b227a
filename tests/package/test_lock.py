"""What packaging/lock writes, against an index of wheels that are made here; and what a package installs of it."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import locking
import pytest
from locking import NotLocked
from testbed.package_index import PackageIndex, write_wheel
from testbed.run import BedError

from ivy.utils.updates import environment, requirements

ARMHF, ARM64 = "cp313-cp313-manylinux_2_31_armv7l", "cp313-cp313-manylinux_2_17_aarch64"
AMD64 = "cp313-abi3-manylinux_2_17_x86_64.manylinux2014_x86_64"
PROJECT = '[project]\nname = "{name}"\ndependencies = ["pydantic>=2.10,<3"]\n[tool.{name}]\n{nodes}\n'
ONE_KIND = 'architectures = ["amd64"]'

Make = Callable[[str], str]


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where pip looks, and nowhere else."""
    (tmp_path / "index").mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    return tmp_path / "index"


@pytest.fixture
def project(tmp_path: Path, index: Path) -> Path:
    """A project that wants nothing yet, for nodes of one kind, which is quicker."""
    project = tmp_path / "project"
    (project / "packaging").mkdir(parents=True)
    describe(project, ONE_KIND)
    return project


def describe(project: Path, nodes: str = "") -> None:
    """Let this be what is said of nodes; if nothing is, they are of all kinds."""
    (project / "pyproject.toml").write_text(PROJECT.format(name="forked", nodes=nodes))


@pytest.fixture
def make(project: Path) -> Make:
    """Locks what is wanted, as a node reads it."""

    def make(wanted: str) -> str:
        (project / "requirements.in").write_text(wanted)
        (project / "requirements.lock").write_text(locking.make(project))
        return "\n".join(requirements.read(project))

    return make


def digest(wheel: Path) -> str:
    """As a lock names it."""
    return f"--hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}"


def test_what_is_wanted_is_locked_with_what_it_needs_for_all_nodes(index: Path, project: Path, make: Make) -> None:
    describe(project)
    sun = write_wheel(index, "Sun_Shine", {}, needs=("rain>=1",))
    drops = [write_wheel(index, "rain", {}, version="2.0", tag=tag) for tag in (AMD64, ARM64, ARMHF)]
    write_wheel(index, "rain", {}, version="2.0", tag="cp311-cp311-manylinux_2_17_x86_64")  # another Python
    write_wheel(index, "rain", {}, version="2.0", tag="cp313-cp313-win_amd64")
    assert make("# why\nsun-shine  # because\n").splitlines() == [
        f"rain==2.0 {' '.join(sorted(map(digest, drops)))}",
        f"sun-shine==1.0 {digest(sun)}",
    ]


def test_nothing_is_wanted(make: Make) -> None:
    assert make("# nothing\n\n") == ""


def test_the_version_is_one_that_all_nodes_can_have(index: Path, project: Path, make: Make) -> None:
    describe(project)
    old = write_wheel(index, "rain", {}, version="1.9", tag="py3-none-any")
    for tag in (AMD64, ARM64):
        write_wheel(index, "rain", {}, version="1.10", tag=tag)
    assert make("rain\n") == f"rain==1.9 {digest(old)}"


def test_what_only_some_nodes_need_has_a_marker(index: Path, project: Path, make: Make) -> None:
    """That this machine is of another kind, and has another Python, makes no difference."""
    describe(project)
    write_wheel(index, "pin", {}, needs=('of_arm; platform_machine == "armv7l"', 'old; python_version < "3.13"'))
    arm = write_wheel(index, "of_arm", {}, tag=ARMHF)
    assert f'of-arm==1.0 ; platform_machine == "armv7l" {digest(arm)}' in make("pin\n").splitlines()


def test_what_debian_has_is_not_locked_nor_what_it_would_bring(index: Path, project: Path, make: Make) -> None:
    """Without a wheel of it for any node."""
    describe(project, f'{ONE_KIND}\ndebian = ["python3-numbers", "i2c-tools"]')
    pins = "pydantic==2.10.6\nnumbers==1.5\nrain==0.1\n"
    (project / "packaging" / "requirements-test.txt").write_text(pins)
    write_wheel(index, "pydantic", {}, version="2.12", needs=("rust",))
    write_wheel(index, "rain", {}, needs=("pydantic>=2", "numbers>=1.2"))
    assert locking.names_in(make("rain\n")) == {"rain"}


def test_a_wheel_that_is_missing_is_named_with_the_nodes_and_debians_package(
    index: Path, project: Path, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "apt-cache").write_text('#!/bin/sh\ntest "$*" = "show python3-serialize" || exit 100\n')
    (tmp_path / "apt-cache").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    describe(project)
    for tag in (AMD64, ARM64):
        write_wheel(index, "pyserialize", {}, tag=tag)
    write_wheel(index, "rain", {}, needs=("of_amd64",))
    write_wheel(index, "of_amd64", {}, tag=AMD64)
    with pytest.raises(NotLocked) as said:
        make("pyserialize>=1\nrain\nsnwo\n")
    first, second, third = str(said.value).splitlines()
    assert (
        "of_amd64 (which rain needs): no wheel for arm64 with Python 3.13, armhf with Python 3.13; Debian" in first
    )
    assert "has no python3-of-amd64: choose another" in first
    assert second.startswith(
        "pyserialize>=1: no wheel for armhf with Python 3.13; Debian has python3-serialize: name"
    )
    assert third.startswith("snwo: the index does not know it")
    assert not (project / "requirements.lock").exists()
    describe(project, ONE_KIND)
    assert locking.names_in(make("pyserialize>=1\nrain\n")) == {"pyserialize", "rain", "of-amd64"}


@pytest.mark.parametrize(
    "line",
    ["./rain", "-r other", "rain @ http://host/rain.whl", "--index-url=http://host", "rain 1.0"],
)
def test_what_is_no_name_of_a_library_is_refused_with_its_place(make: Make, line: str) -> None:
    with pytest.raises(NotLocked, match=r"requirements\.in, line 2: must name a library"):
        make(f"# wanted\n{line}\n")


@pytest.mark.parametrize(
    "nodes", ['architectures = ["i386"]', "architectures = []", "pythons = [3]", "pythons = []"]
)
def test_nodes_of_no_known_kind_are_refused(project: Path, make: Make, nodes: str) -> None:
    describe(project, nodes)
    with pytest.raises(NotLocked, match=r"pyproject\.toml: (architectures|pythons): must be"):
        make("rain\n")


def test_several_pythons_have_a_hash_each(index: Path, project: Path, make: Make) -> None:
    describe(project, f'{ONE_KIND}\npythons = ["3.13", "3.14"]')
    wheels = [
        write_wheel(index, "rain", {}, tag=f"{tag}-{tag}-manylinux_2_28_x86_64") for tag in ("cp313", "cp314")
    ]
    assert make("rain\n") == f"rain==1.0 {' '.join(sorted(map(digest, wheels)))}"
    assert [wheel.name for wheel in locking.fetch(project, project)] == [wheel.name for wheel in wheels]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can take what was installed")
def test_what_was_locked_is_fetched_for_a_package_and_installed_without_systemd_and_network(
    index: Path, project: Path, make: Make, tmp_path: Path
) -> None:
    """As where an image is made."""
    write_wheel(index, "rain", {"rain.py": "MILLIMETRES = 8\n"})
    make("rain\n")
    (tmp_path / "wheels").mkdir()
    assert [wheel.name for wheel in locking.fetch(tmp_path / "wheels", project)] == ["rain-1.0-py3-none-any.whl"]
    for wheel in index.iterdir():
        wheel.unlink()
    environment.make(project)
    nowhere = tmp_path / "no-systemd"
    environment.install_bundled_dependencies(project, wheels=tmp_path / "wheels", systemd=nowhere)
    assert list(project.glob(".venv/lib/python3.*/site-packages/rain.py"))


def test_the_index_of_the_test_bed_is_one_for_pip(index: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes later is seen, too."""
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    with PackageIndex("127.0.0.1", index, port=0) as served:
        monkeypatch.setenv("PIP_INDEX_URL", served.url)
        for name in ("Sun_Shine", "sun", "rain"):
            write_wheel(index, name, {})
        assert locking.names_in(make("sun.shine\nrain\n")) == {"sun-shine", "rain"}
        with pytest.raises(NotLocked, match="snow: the index does not know it"):
            make("snow\n")


def test_an_index_needs_a_directory(tmp_path: Path) -> None:
    with pytest.raises(BedError, match="there is no directory"):
        PackageIndex("127.0.0.1", tmp_path / "wheels", port=0)


def test_a_wheel_that_is_another_one_by_now_is_not_fetched(index: Path, project: Path, make: Make) -> None:
    write_wheel(index, "rain", {"rain.py": "MILLIMETRES = 8\n"})
    make("rain\n")
    write_wheel(index, "rain", {"rain.py": "MILLIMETRES = 9\n"})
    with pytest.raises(NotLocked, match="DO NOT MATCH THE HASHES"):
        locking.fetch(project, project)


def test_who_forgets_to_lock_is_told(project: Path) -> None:
    (project / "requirements.in").write_text("rain>=2\nsun\n")
    (project / "requirements.lock").write_text(f"sun==1 --hash=sha256:{'0' * 64}\n")
    assert locking.not_locked(project) == ["rain"]
    assert locking.not_locked() == [], "run packaging/lock"
