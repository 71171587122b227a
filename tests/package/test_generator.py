"""What ivy-generator writes for a given release, config and package, run as systemd runs it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from ivy.constants import Provider
from ivy.utils.host import hold

PROJECT = Path(__file__).parents[2]
NAMES = sorted(path.stem.replace("_", "-") for path in (PROJECT / "ivy" / "procedures").glob("[!_]*.py"))
PROCEDURES = {f"ivy.target.wants/ivy-{name}.service" for name in NAMES}
BACKENDS = get_args(Provider)
TENTA = {"provider": "tenta", "max_drain_time": 33}
NO_RELEASE = "ivy-saw-no-release"


class Machine:
    """The places that the generator looks at, with the package installed, and where it writes."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "root"
        self.bundled = directory / "bundled"
        self.package_units = directory / "package"
        self.output = directory / "output"
        self.unusable_config = directory / "unusable-config"
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
        self.config_file.write_text(json.dumps(config))

    def accept(self, config: object) -> None:
        self.config_file.with_name("config.accepted.json").write_text(json.dumps(config))

    @property
    def config_file(self) -> Path:
        return self.root / "current" / "config" / "config.json"

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
            "IVY_UNUSABLE_CONFIG": str(self.unusable_config),
        }
        command = [sys.executable, "-IS", str(PROJECT / "units" / "ivy-generator"), *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
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


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('{"stop": true}', {"ivy.target.wants/ivy-system-checks.service"} & PROCEDURES),
        ('{"stop": false}', PROCEDURES),
        ('{"stop": "true"}', PROCEDURES),
        ("{", PROCEDURES),
        ("[]", PROCEDURES),
        ("", PROCEDURES),
    ],
)
def test_a_hold_may_stop_all_but_what_looks_after_the_node(machine: Machine, text: str, wanted: set[str]) -> None:
    release = machine.add_release()
    (machine.root / "hold.json").write_text(text)
    assert machine.generate().keys() == PROCEDURES, "the release does not know of holds, and would never end one"
    for name in ("ivy/utils/host/hold.py",):
        (release / name).parent.mkdir(parents=True)
        shutil.copy(PROJECT / name, release / name)
    assert machine.generate().keys() == wanted


def test_nothing_that_a_hold_names_is_another_one_than_in_the_code() -> None:
    text = (PROJECT / "units" / "ivy-generator").read_text(encoding="utf-8")
    assert f'"{hold.KEPT}"' in text and f'"{os.path.basename(hold.FILE)}"' in text


def add_procedure(release: Path) -> None:
    (release / "ivy" / "procedures" / "wind_sensor.py").touch()
    (release / "units" / "ivy-wind-sensor.service").write_text("[Service]\nExecStart=/bin/true\n")


def test_a_release_brings_a_procedure(machine: Machine) -> None:
    add_procedure(machine.add_release())
    written = machine.generate()
    assert written["ivy-wind-sensor.service"] == "[Service]\nExecStart=/bin/true\n"
    assert written["ivy.target.wants/ivy-wind-sensor.service"] == "-> ../ivy-wind-sensor.service"


def add_trigger(release: Path, kind: str, name: str = "wind-sensor") -> str:
    text = f"[{kind.capitalize()}]\n# of a {kind}\n[Unit]\nPartOf=ivy.target\n"
    (release / "units" / f"ivy-{name}.{kind}").write_text(text)
    return text


@pytest.mark.parametrize("kind", ["timer", "path", "socket"])
def test_a_release_brings_what_starts_its_procedure_when_it_is_time(machine: Machine, kind: str) -> None:
    release = machine.add_release()
    add_procedure(release)
    text = add_trigger(release, kind)
    written = machine.generate()
    assert written[f"ivy-wind-sensor.{kind}"] == text
    assert written[f"ivy.target.wants/ivy-wind-sensor.{kind}"] == f"-> ../ivy-wind-sensor.{kind}"
    assert "ivy-wind-sensor.service" in written and "ivy.target.wants/ivy-wind-sensor.service" not in written
    machine.configure({"backend": None, "procedures": {"wind_sensor": {"enabled": False}}})
    assert f"ivy.target.wants/ivy-wind-sensor.{kind}" not in machine.generate()


def test_a_package_brings_it_too(machine: Machine) -> None:
    add_procedure(machine.bundled)
    add_trigger(machine.bundled, "timer")
    shutil.copy(machine.bundled / "units" / "ivy-wind-sensor.timer", machine.package_units)
    written = machine.generate()
    link = f"-> {machine.package_units / 'ivy-wind-sensor.timer'}"
    assert written["ivy.target.wants/ivy-wind-sensor.timer"] == link and "ivy-wind-sensor.timer" not in written


@pytest.mark.parametrize("name", ["updater", "tenta", "no-procedure", "wind-sensor-2", "owners"])
def test_a_release_can_start_only_its_own_procedures_so(machine: Machine, name: str) -> None:
    release = machine.add_release()
    add_procedure(release)
    before = machine.generate()
    for kind in ("timer", "path", "socket"):
        add_trigger(release, kind, name)
    assert machine.generate() == before


def test_a_trigger_that_cannot_be_read_makes_a_release_unusable(machine: Machine) -> None:
    release = machine.add_release()
    add_procedure(release)
    (release / "units" / "ivy-wind-sensor.timer").symlink_to("/dev/zero")
    assert machine.generate().keys() == PROCEDURES
    assert "is not a regular file" in machine.run(str(machine.output))


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
    (release / "units" / "ivy-tenta.service.d").mkdir(exist_ok=True)
    (release / "units" / "ivy-tenta.service.d" / "10-sandbox.conf").write_text("[Service]\nUser=tenta\n")
    assert machine.generate()["ivy-tenta.service.d/10-sandbox.conf"] == "[Service]\nUser=tenta\n"


def test_the_flags_of_a_release_without_a_user_for_backends_are_looked_for(machine: Machine) -> None:
    release = machine.add_release()
    assert not [name for name in machine.generate() if ".path.d/" in name]
    (release / "units" / "ivy-owners.service").unlink()
    written = machine.generate()
    assert "PathExists=/run/ivy/pending-config\n" in written["ivy-updater.path.d/50-of-1.0.conf"]
    assert "PathExistsGlob=/run/ivy/restart-*\n" in written["ivy-restart.path.d/50-of-1.0.conf"]


def test_a_drop_in_that_only_the_package_has_does_not_apply(machine: Machine) -> None:
    machine.add_release()
    (machine.package_units / "ivy-.service.d" / "40-later.conf").write_text("[Service]\n")
    assert machine.generate()["ivy-tenta.service.d/40-later.conf"] == "-> /dev/null"


def test_a_procedure_that_the_config_switches_off_is_not_wanted(machine: Machine) -> None:
    machine.add_release()
    sections = [name.replace("-", "_") for name in NAMES]
    machine.configure({"procedures": {sections[0]: {"enabled": False}}})
    assert machine.generate().keys() == PROCEDURES - {f"ivy.target.wants/ivy-{NAMES[0]}.service"}
    machine.configure({"procedures": {section: {"enabled": False} for section in sections}})
    assert not any(path.startswith("ivy.target.wants/") for path in machine.generate())


FIRST = NAMES[0].replace("-", "_")


@pytest.mark.parametrize(
    "procedures",
    [None, [], "all", {"nobody": {"enabled": False}}, {FIRST: {}}, {FIRST: {"enabled": 0}}, {FIRST: False}],
)
def test_what_is_not_just_off_is_on(machine: Machine, procedures: object) -> None:
    machine.add_release()
    machine.configure({"procedures": procedures})
    assert machine.generate().keys() == PROCEDURES


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


TENTA_IS_WANTED = {"ivy.target.wants/ivy-tenta.service", "ivy-tenta.service.d/30-drain.conf"}


@pytest.mark.parametrize("text", [None, b"", b"{", b"\0" * 851, b"\xff\xfe", b"[]", b"null"])
def test_where_the_config_cannot_be_read_the_accepted_one_counts(machine: Machine, text: bytes | None) -> None:
    machine.add_release()
    machine.accept({"backend": TENTA})
    machine.config_file.unlink() if text is None else machine.config_file.write_bytes(text)
    assert machine.generate().keys() == PROCEDURES | TENTA_IS_WANTED
    assert "config.json cannot be read" in machine.run(str(machine.output / "again"))
    machine.config_file.with_name("config.accepted.json").write_bytes(b"\0")
    assert machine.generate().keys() == PROCEDURES


def test_a_config_that_can_be_read_counts_whatever_was_accepted(machine: Machine) -> None:
    machine.add_release()
    machine.accept({"backend": TENTA | {"provider": "thingsboard"}})
    machine.config_file.write_text("\ufeff" + json.dumps({"backend": TENTA}))
    assert machine.generate().keys() == PROCEDURES | TENTA_IS_WANTED


def test_of_a_config_that_is_wrong_the_updater_leaves_word_until_it_is_another(machine: Machine) -> None:
    machine.add_release()
    machine.accept({"backend": TENTA})
    status = machine.config_file.stat()
    machine.unusable_config.write_text(f"{status.st_ino} {status.st_mtime_ns} {status.st_size}")
    assert machine.generate().keys() == PROCEDURES | TENTA_IS_WANTED
    assert "config.json cannot be used" in machine.run(str(machine.output / "again"))
    machine.configure({"backend": None, "corrected": True})
    assert machine.generate().keys() == PROCEDURES


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
