"""What ivy-generator writes for a given release, config and package, run as systemd runs it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
NAMES = sorted(path.stem.replace("_", "-") for path in (PROJECT / "ivy" / "procedures").glob("[!_]*.py"))
PROCEDURES = {f"ivy.target.wants/ivy-{name}.service" for name in NAMES}
BACKENDS = ("tenta", "thingsboard")
TENTA = {"provider": "tenta", "max_drain_time": 33}
NO_RELEASE = "ivy-saw-no-release"


class Machine:
    """The places that the generator looks at, with the package installed, and where it writes."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "root"
        self.bundled = directory / "bundled"
        self.package_units = directory / "package"
        self.output = directory / "output"
        self.root.mkdir()
        self.bundled.mkdir()
        for part in ("ivy/procedures", "ivy/backend", "units"):
            shutil.copytree(PROJECT / part, self.bundled / part)
        shutil.copytree(PROJECT / "units", self.package_units)

    def add_release(self, version: str = "1.1.0") -> Path:
        release = self.root / version
        shutil.copytree(self.bundled, release)
        (release / "config").mkdir()
        (self.root / "current").symlink_to(version)
        self.configure({"backend": None})
        return release

    def configure(self, config: object) -> None:
        (self.root / "current" / "config" / "config.json").write_text(json.dumps(config))

    def generate(self) -> dict[str, str]:
        """Run the generator. Returns: what it wrote by path: a text, or `-> ` and where a link points."""
        shutil.rmtree(self.output, ignore_errors=True)
        self.output.mkdir()
        self.run(str(self.output))
        paths = [path for path in self.output.rglob("*") if path.is_symlink() or path.is_file()]
        return {str(path.relative_to(self.output)): _content(path) for path in paths}

    def run(self, *arguments: str) -> str:
        """Run the generator, which must never fail a boot. Returns: what it complained about."""
        environment = {
            "IVY_ROOT_DIR": str(self.root),
            "IVY_BUNDLED_DIR": str(self.bundled),
            "IVY_PACKAGE_UNITS": str(self.package_units),
        }
        command = [sys.executable, "-IS", str(PROJECT / "units" / "ivy-generator"), *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=10)
        assert done.returncode == 0, done.stderr
        return done.stderr


def _content(path: Path) -> str:
    return f"-> {path.readlink()}" if path.is_symlink() else path.read_text()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_without_a_release_the_packages_procedures_run(machine: Machine) -> None:
    written = machine.generate()
    assert written.keys() == PROCEDURES | {NO_RELEASE}
    unit = machine.package_units / "ivy-system-checks.service"
    assert written["ivy.target.wants/ivy-system-checks.service"] == f"-> {unit}"


def test_a_release_like_the_package_needs_nothing_but_the_wishes(machine: Machine) -> None:
    machine.add_release()
    assert machine.generate().keys() == PROCEDURES


def add_procedure(release: Path) -> None:
    (release / "ivy" / "procedures" / "wind_sensor.py").touch()
    (release / "units" / "ivy-wind-sensor.service").write_text("[Service]\nExecStart=/bin/true\n")


def test_a_release_brings_a_procedure(machine: Machine) -> None:
    add_procedure(machine.add_release())
    written = machine.generate()
    assert written["ivy-wind-sensor.service"] == "[Service]\nExecStart=/bin/true\n"
    assert written["ivy.target.wants/ivy-wind-sensor.service"] == "-> ../ivy-wind-sensor.service"


def test_a_release_changes_a_unit(machine: Machine) -> None:
    release = machine.add_release()
    (release / "units" / "ivy-tenta.service").write_text("[Unit]\nDescription=other\n")
    assert machine.generate()["ivy-tenta.service"] == "[Unit]\nDescription=other\n"


def test_a_procedure_that_a_release_lacks_is_not_wanted(machine: Machine) -> None:
    release = machine.add_release()
    add_procedure(release)  # one without any is damaged, see below
    (release / "ivy" / "procedures" / "system_checks.py").unlink()
    (release / "units" / "ivy-system-checks.service").unlink()
    added = {"ivy-wind-sensor.service", "ivy.target.wants/ivy-wind-sensor.service"}
    assert machine.generate().keys() == PROCEDURES - {"ivy.target.wants/ivy-system-checks.service"} | added


def test_a_unit_that_is_neither_procedure_nor_backend_is_published_but_not_wanted(machine: Machine) -> None:
    release = machine.add_release()
    (release / "units" / "ivy-helper.service").write_text("[Service]\nExecStart=/bin/true\n")
    assert machine.generate().keys() == PROCEDURES | {"ivy-helper.service"}


def test_shared_drop_ins_reach_each_service_by_name_and_never_the_updater(machine: Machine) -> None:
    release = machine.add_release()
    (release / "units" / "ivy-.service.d" / "10-sandbox.conf").write_text("[Service]\nUser=nobody\n")
    (release / "units" / "ivy-updater.service").write_text("broken")
    (release / "units" / "ivy-updater.service.d" / "20-supervision.conf").write_text("broken")
    (release / "units" / "ivy-rollback.service").write_text("broken")
    changed = {f"ivy-{name}.service.d/10-sandbox.conf" for name in (*NAMES, *BACKENDS)}
    assert machine.generate().keys() == PROCEDURES | changed


def test_a_drop_in_of_one_service_wins_over_the_shared_one(machine: Machine) -> None:
    release = machine.add_release()
    (release / "units" / "ivy-tenta.service.d").mkdir()
    (release / "units" / "ivy-tenta.service.d" / "10-sandbox.conf").write_text("[Service]\nUser=tenta\n")
    assert machine.generate()["ivy-tenta.service.d/10-sandbox.conf"] == "[Service]\nUser=tenta\n"


def test_a_drop_in_that_only_the_package_has_does_not_apply(machine: Machine) -> None:
    machine.add_release()
    (machine.package_units / "ivy-.service.d" / "40-later.conf").write_text("[Service]\n")
    assert machine.generate()["ivy-tenta.service.d/40-later.conf"] == "-> /dev/null"


@pytest.mark.parametrize("provider", BACKENDS)
def test_the_backend_of_the_config_is_wanted_and_no_other(machine: Machine, provider: str) -> None:
    machine.add_release()
    machine.configure({"backend": TENTA | {"provider": provider}})
    written = machine.generate()
    drain = f"ivy-{provider}.service.d/30-drain.conf"
    assert written.keys() == PROCEDURES | {f"ivy.target.wants/ivy-{provider}.service", drain}
    assert "TimeoutStopSec=153\n" in written[drain]


@pytest.mark.parametrize(
    ("max_drain_time", "seconds"),
    [(0, 120), (7200, 7320), (10**9, 7320), (-5, 120), ("12", 720), (True, 720), (None, 720), (1.5, 720)],
)
def test_the_time_to_drain_is_bounded(machine: Machine, max_drain_time: object, seconds: int) -> None:
    machine.add_release()
    machine.configure({"backend": TENTA | {"max_drain_time": max_drain_time}})
    assert f"TimeoutStopSec={seconds}\n" in machine.generate()["ivy-tenta.service.d/30-drain.conf"]


@pytest.mark.parametrize(
    "backend",
    [
        {},
        {"provider": None},
        {"provider": ["tenta"]},
        {"provider": "none-such"},
        {"provider": "../tenta"},
        {"provider": "tenta\nX"},
        {"provider": "system-checks"},
        {"provider": "updater"},
        "tenta",
        7,
    ],
)
def test_no_other_backend_is_wanted(machine: Machine, backend: object) -> None:
    machine.add_release()
    machine.configure({"backend": backend})
    assert machine.generate().keys() == PROCEDURES


@pytest.mark.parametrize(
    "text",
    [
        *(b"", b"{", b"\xff\xfe", b"[]", b"null"),
        pytest.param(b"[" * 200_000, id="deep"),
        pytest.param(b"1" * 2_000_000, id="long"),
    ],
)
def test_with_a_broken_config_all_procedures_run(machine: Machine, text: bytes) -> None:
    release = machine.add_release()
    (release / "config" / "config.json").write_bytes(text)
    assert machine.generate().keys() == PROCEDURES
    assert "config.json cannot be read" in machine.run(str(machine.output / "again"))


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("nowhere")])
def test_a_config_that_is_no_file_does_not_block(machine: Machine, make: Callable[[Path], object]) -> None:
    release = machine.add_release()
    (release / "config" / "config.json").unlink()
    make(release / "config" / "config.json")
    assert machine.generate().keys() == PROCEDURES


def _empty_unit(release: Path) -> None:
    (release / "units" / "ivy-tenta.service").write_text("")


def _unit_is_directory(release: Path) -> None:
    (release / "units" / "ivy-tenta.service").unlink()
    (release / "units" / "ivy-tenta.service").mkdir()


def _unit_is_dangling(release: Path) -> None:
    (release / "units" / "ivy-tenta.service").unlink()
    (release / "units" / "ivy-tenta.service").symlink_to("nowhere")


def _huge_unit(release: Path) -> None:
    (release / "units" / "ivy-tenta.service").write_text("#" * 2_000_000)


def _no_units(release: Path) -> None:
    shutil.rmtree(release / "units")


def _no_procedures(release: Path) -> None:
    shutil.rmtree(release / "ivy")


def _drop_in_is_fifo(release: Path) -> None:
    os.mkfifo(release / "units" / "ivy-.service.d" / "50-pipe.conf")


def _nothing(release: Path) -> None:
    shutil.rmtree(release)


@pytest.mark.parametrize(
    "damage",
    [
        _empty_unit,
        _unit_is_directory,
        _unit_is_dangling,
        _huge_unit,
        _no_units,
        _no_procedures,
        _drop_in_is_fifo,
        _nothing,
    ],
)
def test_a_damaged_release_leaves_it_to_the_package(machine: Machine, damage: Callable[[Path], None]) -> None:
    release = machine.add_release()
    (release / "units" / "ivy-system-checks.service").write_text("[Unit]\nDescription=other\n")
    damage(release)
    assert machine.generate().keys() == PROCEDURES  # and nothing of the half that could be read


def test_current_may_be_no_link_at_all(machine: Machine) -> None:
    (machine.root / "current").write_text("what is this")
    assert machine.generate().keys() == PROCEDURES


@pytest.mark.parametrize(
    "name",
    [
        "evil.service",
        "ivy-.service",
        "ivy--a.service",
        "ivy-A.service",
        "ivy-ä.service",
        "ivy-a b.service",
        "ivy-a\n.service",
        "ivy-a@.service",
        "ivy-a.service.bak",
        "ivy-a.socket",
        ".ivy-a.service",
    ],
)
def test_other_names_are_not_published(machine: Machine, name: str) -> None:
    release = machine.add_release()
    (release / "units" / name).write_text("[Service]\nExecStart=/bin/true\n")
    assert machine.generate().keys() == PROCEDURES


def test_it_never_fails_a_boot(machine: Machine, tmp_path: Path) -> None:
    assert "failed" in machine.run()
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    assert "failed" in machine.run(str(in_the_way))
    shutil.rmtree(machine.bundled)
    assert "failed" in machine.run(str(machine.output))
