"""The unit files agree with the code and with each other, and the programs beside them do what they say."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ivy import constants
from ivy.types.config import BackendConfig
from ivy.utils.host import package_manager
from ivy.utils.updates import activation, sandbox

PROJECT = Path(__file__).parents[2]
UNITS = PROJECT / "units"
SHARED = sorted((UNITS / "ivy-.service.d").iterdir())
PROCEDURES = {path.stem.replace("_", "-") for path in (PROJECT / "ivy" / "procedures").glob("[!_]*.py")}
BACKENDS = {path.stem.removesuffix("_backend") for path in (PROJECT / "ivy" / "backend").glob("*_backend.py")}
SERVICES = sorted(PROCEDURES | BACKENDS)
SANDBOX_STEPS = {"fetch": 1.7, "list": 1.7, "install": 1.7, "test": 1.0, "ask": 1.0, "unpack": 1.0, "compile": 1.0}
"""What is done in the sandbox, and the exposure that `systemd-analyze security` may find."""
PACKAGE_ONLY = {"updater", "rollback", "restart", "report@"}


def settings(*paths: Path) -> dict[str, list[str]]:
    """All settings of unit files, each with its values in the order in which they stand."""
    found: dict[str, list[str]] = {}
    for path in paths:
        text = path.read_text(encoding="utf-8").replace("\\\n", " ")
        for name, value in re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE):
            found.setdefault(name, []).append(value)
    return found


def of_service(name: str) -> dict[str, list[str]]:
    return settings(UNITS / f"ivy-{name}.service")


def test_each_procedure_and_backend_has_a_unit_and_each_unit_something_to_run() -> None:
    assert {path.stem.removeprefix("ivy-") for path in UNITS.glob("*.service")} == {*SERVICES, *PACKAGE_ONLY}


@pytest.mark.parametrize("name", SERVICES)
def test_a_unit_says_only_what_is_its_own(name: str) -> None:
    unit = of_service(name)
    repeated = unit.keys() & settings(*SHARED).keys() - {"RestrictAddressFamilies"}  # which is a list that grows
    assert not repeated, "stands in a shared drop-in, which wins"
    assert unit["ExecStart"] == [f"/usr/bin/ivy run {name}"]
    assert unit["PartOf"] == ["ivy.target"]
    assert unit["Documentation"] == ["man:ivy(1)"]


@pytest.mark.parametrize("name", sorted(PROCEDURES))
def test_a_procedure_has_no_network(name: str) -> None:
    assert of_service(name)["PrivateNetwork"] == ["yes"]
    assert "RestrictAddressFamilies" not in of_service(name)


@pytest.mark.parametrize("name", sorted(BACKENDS))
def test_a_backend_has_the_internet_and_does_not_wait_for_it(name: str) -> None:
    assert of_service(name)["RestrictAddressFamilies"] == ["AF_INET AF_INET6"]
    assert of_service(name)["After"] == ["network.target"]


def test_the_updater_outlives_the_target() -> None:
    assert "PartOf" not in of_service("updater")
    assert of_service("updater")["Type"] == ["notify"]
    replaced = settings(UNITS / "ivy-updater.service.d" / "20-supervision.conf")
    assert replaced.keys() == {"ExecStopPost"}


def test_the_updater_may_wait_for_days_and_is_never_given_up() -> None:
    updater = of_service("updater")
    assert updater["Type"] == ["notify"]  # a oneshot has no watchdog
    assert updater["WatchdogSec"] == [str(constants.WATCHDOG_SECONDS)]
    assert "RuntimeMaxSec" not in updater
    assert updater["StartLimitIntervalSec"] == ["0"]
    assert updater["Restart"] == ["on-failure"]
    assert updater["OnFailure"] == ["ivy-rollback.service"]


def test_the_last_resort_is_the_packages_own_and_outlives_the_target() -> None:
    rollback = of_service("rollback")
    assert rollback["ExecStart"] == ["/usr/lib/ivy/units/ivy-rollback"]
    assert "PartOf" not in rollback
    assert settings(UNITS / "ivy-rollback.service.d" / "20-supervision.conf") == {}
    # Which of them are the package's own, the code, the generator and this test must agree upon.
    assert set(activation.PACKAGE_ONLY) == PACKAGE_ONLY - {"report@"}


def test_the_updater_and_the_last_resort_are_in_the_same_sandbox() -> None:
    sandboxes = [settings(UNITS / f"ivy-{name}.service.d" / "10-sandbox.conf") for name in ("updater", "rollback")]
    assert sandboxes[0] == sandboxes[1] != {}


@pytest.fixture
def sandboxes(tmp_path: Path) -> Path:
    """The units of the sandbox as files, which systemd-run makes on a node of the same settings."""
    for directory in UNITS.glob("ivy_sandbox-*.service.d"):
        shutil.copytree(directory, tmp_path / directory.name)
    for step in SANDBOX_STEPS:
        (tmp_path / f"ivy_sandbox-{step}.service").write_text("[Service]\nExecStart=/bin/true\n")
    return tmp_path


def analyze(verb: str, *arguments: str) -> str:
    done = subprocess.run(["systemd-analyze", verb, *arguments], capture_output=True, text=True)
    return done.stdout + done.stderr


needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed here")


@needs_systemd
def test_systemd_has_nothing_to_say_about_the_sandbox(sandboxes: Path) -> None:
    assert analyze("verify", "--recursive-errors=no", *map(str, sorted(sandboxes.glob("*.service")))) == ""


@needs_systemd
@pytest.mark.parametrize(("step", "bound"), SANDBOX_STEPS.items())
def test_the_sandbox_is_tight(sandboxes: Path, step: str, bound: float) -> None:
    said = analyze("security", "--offline=yes", "--no-pager", str(sandboxes / f"ivy_sandbox-{step}.service"))
    exposure = re.search(r"Overall exposure level for .*: ([0-9.]+)", said)
    assert exposure is not None, said
    assert float(exposure[1]) <= bound, said


def test_a_step_has_no_network_but_to_fetch_and_no_more_time_than_somebody_waits() -> None:
    shared = settings(UNITS / "ivy_sandbox-.service.d" / "10-sandbox.conf")
    assert shared["PrivateNetwork"] == ["yes"] and shared["RestrictAddressFamilies"] == ["AF_UNIX"]
    own = {path.parent.name: settings(path) for path in UNITS.glob("ivy_sandbox-?*.service.d/20-*.conf")}
    steps = {name.removeprefix("ivy_sandbox-").removesuffix(".service.d") for name in own}
    assert steps == {"fetch", "list", "install", "test"}
    for name, found in own.items():
        assert ("PrivateNetwork" in found) == (name != "ivy_sandbox-test.service.d")
        assert 0 < int(found["RuntimeMaxSec"][0]) <= sandbox.SECONDS_AT_MOST
    assert 0 < int(shared["RuntimeMaxSec"][0]) <= sandbox.SECONDS_AT_MOST


def test_the_sandbox_comes_with_each_release_and_not_from_the_packages_units() -> None:
    """Else code that came over the air would run foreign code in what an older package has: nothing."""
    lines = (PROJECT / "debian" / "ivy.install").read_text().splitlines()
    assert [line.split()[1] for line in lines if "ivy_sandbox" in line] == ["usr/lib/ivy/units"]


def test_what_starts_a_pass_is_seen_where_it_is_left() -> None:
    flags = [constants.PENDING_CONFIG_FLAG, package_manager.FLAG]
    there = [flag.replace(constants.IVY_RUN_DIR, "/run/ivy") for flag in flags]
    assert settings(UNITS / "ivy-updater.path")["PathExists"] == there
    assert f"mkdir -p {there[1]} " in (PROJECT / "debian" / "ivy.postinst").read_text()
    taken = f" {os.path.basename(package_manager.FLAG)} {os.path.basename(package_manager.TAKEN)} "
    assert any(taken in command for command in of_service("updater")["ExecStartPre"])
    assert "ivy-updater.path" in settings(UNITS / "ivy.target")["Wants"]


def test_the_supervision_is_that_of_the_code() -> None:
    shared = settings(*SHARED)
    assert shared["WatchdogSec"] == [str(constants.WATCHDOG_SECONDS)]
    assert shared["TimeoutStopSec"] == [str(constants.SECONDS_PER_GRACEFUL_PROCEDURE_TEARDOWN)]
    assert shared["RestartPreventExitStatus"] == [str(constants.EXIT_CONFIG_ERROR)]
    assert shared["User"] == [constants.NAME]


def test_the_generators_drain_time_is_that_of_the_config() -> None:
    generator = settings_of_generator()
    assert generator["DEFAULT_DRAIN_TIME"] == BackendConfig.model_fields["max_drain_time"].default
    bounds = BackendConfig.model_json_schema()["properties"]["max_drain_time"]
    assert generator["LONGEST_DRAIN_TIME"] == bounds["maximum"]


def settings_of_generator() -> dict[str, int]:
    text = (UNITS / "ivy-generator").read_text(encoding="utf-8")
    return {name: int(value) for name, value in re.findall(r"^([A-Z_]+) = ([0-9_]+)$", text, re.MULTILINE)}


def test_backoff_begins_anew_only_after_twice_the_longest_delay() -> None:
    script = (UNITS / "ivy-reset-backoff").read_text(encoding="utf-8")
    enough = re.search(r"^enough=([0-9]+)", script, re.MULTILINE)
    assert enough is not None
    assert int(enough[1]) == 2 * int(settings(*SHARED)["RestartMaxDelaySec"][0]) * 10**6


def test_the_wish_to_restart_is_seen_where_the_backend_leaves_it() -> None:
    path = settings(UNITS / "ivy-restart.path")
    assert path["PathExistsGlob"] == ["/run/ivy/restart-*"]
    assert constants.RESTART_FLAG.removeprefix(constants.IVY_RUN_DIR) == "/restart-"
    assert "ivy-restart.path" in settings(UNITS / "ivy.target")["Wants"]
    assert settings(UNITS / "ivy-restart.service.d" / "20-supervision.conf") == {}
    assert of_service("restart")["ExecStart"] == ["+/usr/lib/ivy/units/ivy-restart"]


def test_only_procedures_of_the_release_are_restarted(tmp_path: Path) -> None:
    run, wants, procedures = tmp_path / "run", tmp_path / "wants", tmp_path / "current" / "ivy" / "procedures"
    for directory in (run, wants, procedures):
        directory.mkdir(parents=True)
    for name in ("wind-sensor", "tenta"):
        (wants / f"ivy-{name}.service").touch()
    for module in ("wind_sensor", "unwanted"):
        (procedures / f"{module}.py").touch()
    for name in ("wind-sensor", "unwanted", "tenta", "", "no such", "$(touch x)", "a\nb", "-x", "wind_sensor"):
        (run / f"restart-{name}").touch()
    (run / "restart-directory").mkdir()
    (run / "restart-link").symlink_to(procedures)
    (run / "link.json").touch()
    systemctl = tmp_path / "systemctl"
    systemctl.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n')
    systemctl.chmod(0o755)
    environment = {
        "PATH": f"{tmp_path}:/usr/bin:/bin",
        "IVY_RUN_DIR": str(run),
        "IVY_TARGET_WANTS": str(wants),
        "IVY_ROOT_DIR": str(tmp_path),
    }
    subprocess.run(["/bin/sh", str(UNITS / "ivy-restart")], env=environment, check=True, cwd=run)
    assert (tmp_path / "calls").read_text() == "restart --no-block ivy-wind-sensor.service\n"
    assert [path.name for path in run.iterdir()] == ["link.json"]
    assert len(list(procedures.iterdir())) == 2


MINUTE = 60 * 10**6


@pytest.mark.parametrize(
    ("result", "began", "entered", "left", "begins_anew"),
    [
        ("signal", 5, 10, 30 * MINUTE, True),
        ("watchdog", 5, 10, 10 + 2 * MINUTE, True),
        ("signal", 5, 10, 2 * MINUTE, False),
        ("exit-code", 40 * MINUTE, 10, 30 * MINUTE, False),  # it did not start; the times are those of a run before
        ("timeout", 5, 0, 0, False),  # it has never been active
        ("success", 5, 10, 30 * MINUTE, False),
    ],
)
def test_backoff_begins_anew_after_a_good_run(
    tmp_path: Path, result: str, began: int, entered: int, left: int, begins_anew: bool
) -> None:
    properties = (
        f"InactiveExitTimestampMonotonic={began}\n"
        f"ActiveEnterTimestampMonotonic={entered}\n"
        f"ActiveExitTimestampMonotonic={left}\n"
    )
    systemctl = tmp_path / "systemctl"
    systemctl.write_text(f'#!/bin/sh\nif [ "$1" = show ]; then echo "{properties}"; else echo "$@"; fi\n')
    systemctl.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SERVICE_RESULT": result}
    command = ["/bin/sh", str(UNITS / "ivy-reset-backoff"), "ivy-x.service"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == ("reset-failed ivy-x.service\n" if begins_anew else "")


def launch(root: Path) -> subprocess.CompletedProcess[str]:
    command = ["/bin/sh", str(PROJECT / "debian" / "ivy.sh"), "info", "two words"]
    environment = {"PATH": "/usr/bin:/bin", "IVY_ROOT_DIR": str(root), "IVY_BUNDLED_DIR": str(PROJECT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """A release whose interpreter only says how it was called: it can import anything."""
    environment = tmp_path / "1.1.0" / ".venv"
    (environment / "bin").mkdir(parents=True)
    (environment / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = true\n")
    (environment / "lib" / "python3.99" / "site-packages").mkdir(parents=True)
    (environment / "lib" / "python3.99" / "site-packages" / "ivy.pth").write_text("../../../..\n")
    interpreter = tmp_path / "python3.99"
    interpreter.write_text('#!/bin/sh\necho "$0"; printf "%s\\n" "$@"\n')
    interpreter.chmod(0o755)
    (environment / "bin" / "python3").symlink_to(interpreter)
    (tmp_path / "current").symlink_to("1.1.0")
    return tmp_path / "1.1.0"


def test_the_command_runs_the_current_release(release: Path) -> None:
    called = launch(release.parent).stdout.splitlines()
    assert called == [f"{release}/.venv/bin/python3", "-P", "-m", "ivy", "info", "two words"]


@pytest.mark.parametrize("lost", ["current", "python3.99", "1.1.0/.venv/lib/python3.99/site-packages/ivy.pth"])
def test_the_command_does_not_run_a_release_that_cannot_be_run(release: Path, lost: str) -> None:
    (release.parent / lost).unlink()
    assert str(release) not in launch(release.parent).stdout


@pytest.mark.parametrize("file", ["pyvenv.cfg", "lib/python3.99/site-packages/ivy.pth"])
@pytest.mark.parametrize("left", ["", "\0" * 30])
def test_the_command_does_not_run_what_a_power_cut_has_emptied(release: Path, file: str, left: str) -> None:
    (release / ".venv" / file).write_text(left)
    assert str(release) not in launch(release.parent).stdout


def test_the_command_does_not_run_a_release_whose_python_cannot_import_what_it_needs(release: Path) -> None:
    (release.parent / "python3.99").write_text('#!/bin/sh\necho "$0"\ncase "$*" in *pydantic*) exit 1 ;; esac\n')
    assert str(release) not in launch(release.parent).stdout
