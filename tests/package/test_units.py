"""The unit files agree with the code and with each other, and the programs beside them do what they say."""

import fnmatch
import os
import re
import shutil
import stat
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from ivy import constants
from ivy.types import calls
from ivy.types.config import BackendConfig
from ivy.utils.host import busy, package_manager, units
from ivy.utils.updates import activation, damage, manifest, sandbox
from tests.support.examples import example

PROJECT = Path(__file__).parents[2]
UNITS = PROJECT / "units"
SHARED = sorted((UNITS / "ivy-.service.d").iterdir())
PROCEDURES = {path.stem.replace("_", "-") for path in (PROJECT / "ivy" / "procedures").glob("[!_]*.py")}
BACKENDS = {path.stem.removesuffix("_backend") for path in (PROJECT / "ivy" / "backend").glob("*_backend.py")}
SERVICES = sorted(PROCEDURES | BACKENDS)
# Each has a /tmp of its own in memory, which is better than the PrivateTmp= that the tool looks for.
SANDBOX_STEPS = {
    "fetch": 1.9,
    "list": 1.9,
    "install": 1.9,
    "take": 1.1,
    "test": 1.1,
    "ask": 1.1,
    "unpack": 1.1,
    "compile": 1.1,
}
"""What is done in the sandbox, and the exposure that `systemd-analyze security` may find."""
PACKAGE_ONLY = {"updater", "rollback", "repair", "restart", "report@", "call@", "salvage", "provision"}
NO_PROCEDURES = {*PACKAGE_ONLY, "owners"}


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
    assert {path.stem.removeprefix("ivy-") for path in UNITS.glob("*.service")} == {*SERVICES, *NO_PROCEDURES}


@pytest.mark.parametrize("name", SERVICES)
def test_a_unit_says_only_what_is_its_own(name: str) -> None:
    unit = of_service(name)
    lists_that_grow = {"RestrictAddressFamilies", "After", "ExecStopPost", "RestartPreventExitStatus"}
    repeated = unit.keys() & settings(*SHARED).keys() - lists_that_grow
    assert not repeated, "stands in a shared drop-in, which wins"
    assert unit["ExecStart"] == [f"/usr/bin/ivy run {name}"]
    assert unit["PartOf"] == ["ivy.target"]
    assert unit["Documentation"] == ["man:ivy(1)"]


@pytest.mark.parametrize("name", sorted(PROCEDURES))
def test_a_procedure_has_no_network_unless_it_says_so(name: str) -> None:
    unit = of_service(name)
    assert (unit.get("PrivateNetwork") == ["yes"]) != ("RestrictAddressFamilies" in unit)


@pytest.mark.parametrize("name", sorted(BACKENDS))
def test_a_backend_has_the_internet_and_does_not_wait_for_it(name: str) -> None:
    assert of_service(name)["RestrictAddressFamilies"] == ["AF_INET AF_INET6"]
    assert of_service(name)["After"] == ["network.target"]


def test_all_backends_are_alike() -> None:
    drop_ins = {(UNITS / f"ivy-{name}.service.d" / "15-backend.conf").read_text() for name in BACKENDS}
    assert len(drop_ins) == 1


def test_backends_are_a_user_of_their_own_with_directories_that_it_owns() -> None:
    backend = settings(UNITS / "ivy-tenta.service.d" / "15-backend.conf")
    assert (backend["User"], backend["SupplementaryGroups"]) == ([constants.BACKEND_USER], [constants.NAME])
    owners = dict(re.findall(r"^d (\S+) +\d+ +(\S+)", (UNITS / "ivy.tmpfiles").read_text(), re.MULTILINE))
    assert backend["ReadWritePaths"] == ["/var/lib/ivy/backend /run/ivy-backend"]
    assert {owners[place] for place in backend["ReadWritePaths"][0].split()} == {constants.BACKEND_USER}
    assert (owners["/var/lib/ivy"], owners["/run/ivy-updater"]) == ("root", "root")
    assert re.findall(r"^u (\S+)", (UNITS / "ivy.sysusers").read_text(), re.MULTILINE)[:2] == ["ivy", "ivy-backend"]


def test_what_services_write_below_run_has_a_size() -> None:
    """But for their pipes, which hold nothing, and what is root's."""
    mounts = {settings(path)["Where"][0]: path for path in UNITS.glob("*.mount")}
    sandbox, backend = UNITS / "ivy-.service.d/10-sandbox.conf", UNITS / "ivy-tenta.service.d/15-backend.conf"
    written = " ".join(settings(sandbox, backend)["ReadWritePaths"]).split()
    assert {place for place in written if place.startswith("/run/")} == mounts.keys()
    wanted = settings(UNITS / "ivy-.service.d" / "05-mounts.conf")["WantsMountsFor"]
    postinst = (PROJECT / "debian" / "ivy.postinst").read_text()
    packed = "".join((PROJECT / "debian" / name).read_text() for name in ("ivy.install", "rules"))
    owners = re.findall(r"^d (\S+) +(\d+) +(\S+) +(\S+)", (UNITS / "ivy.tmpfiles").read_text(), re.MULTILINE)
    for place, mode, user, group in (line for line in owners if line[0] in mounts):
        path = mounts.pop(place)
        assert path.name == place[1:].replace("/", "-") + ".mount"
        options = settings(path)["Options"][0].split(",")
        assert {f"mode={mode}", f"uid={user}", f"gid={group}", "nosuid", "nodev", "noexec"} <= set(options)
        assert {option.split("=")[0] for option in options} >= {"size", "nr_inodes"}
        name = place[1:].replace("-", r"\x2d").replace("/", "-") + ".mount"  # the package's
        assert place in " ".join(wanted).split() and name in postinst and name in packed
    assert not mounts


def test_owners_are_put_right_before_any_service_starts_and_come_with_each_release() -> None:
    assert settings(UNITS / "ivy-.service.d" / "06-owners.conf")["After"] == ["ivy-owners.service"]
    assert settings(UNITS / "ivy-owners.service.d" / "06-owners.conf") == {}
    assert of_service("owners")["PartOf"] == ["ivy.target"]
    assert "ReadOnlyPaths" not in settings(UNITS / "ivy-owners.service.d" / "15-limits.conf"), (
        "it writes below /run"
    )
    lines = (PROJECT / "debian" / "ivy.install").read_text().splitlines()
    carried = {line.split()[0] for line in lines if line.split()[1] == "usr/lib/ivy/units"}
    assert {"units/ivy.sysusers", "units/ivy.tmpfiles", "units/ivy-*.service"} <= carried


def test_no_unit_needs_a_user_namespace() -> None:
    """Where the kernel gives none (user.max_user_namespaces=0), it would loop on 217/USER from then on."""
    needing = {
        path.relative_to(UNITS).as_posix()
        for path in UNITS.rglob("*")
        if path.is_file() and "yes" in settings(path).get("PrivateUsers", [])
    }
    assert needing == set()


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
    assert set(activation.PACKAGE_ONLY) == PACKAGE_ONLY - {"report@", "call@"}


@pytest.mark.parametrize("name", ["rollback", "call@"])
def test_what_may_as_much_as_the_updater_is_in_the_same_sandbox(name: str) -> None:
    of_updater, own = (settings(UNITS / f"ivy-{each}.service.d" / "10-sandbox.conf") for each in ("updater", name))
    assert own == of_updater != {}


def test_a_new_node_registers_where_a_file_says_how_and_holds_nobody_up() -> None:
    unit = of_service("provision")
    there = "/etc/ivy/provision.json"
    assert unit["ConditionPathExists"] == [there]
    assert unit["ExecStart"] == [f"/usr/bin/ivy setup --provision-file {there}"]
    assert f'PROVISION_FILE: str = "{there}"' in (PROJECT / "ivy" / "constants.py").read_text()
    assert unit["Type"] == ["exec"], "a oneshot delays the boot"
    assert "PartOf" not in unit, "the trial that it begins restarts the services"
    # Only where nobody answered it is tried again, less and less often, and never given up.
    assert unit["RestartForceExitStatus"] == [str(constants.EXIT_TRY_AGAIN)] and "Restart" not in unit
    assert units.seconds_of(unit["RestartSec"][0]) < units.seconds_of(unit["RestartMaxDelaySec"][0])
    assert unit["StartLimitIntervalSec"] == ["0"]
    assert settings(UNITS / "ivy-provision.service.d" / "20-supervision.conf") == {}
    assert "--package=ivy ivy.target ivy-provision.service\n" in (PROJECT / "debian" / "rules").read_text()


def test_who_registers_is_in_the_updaters_sandbox_with_a_network() -> None:
    own, updater = (
        settings(UNITS / f"ivy-{name}.service.d" / "10-sandbox.conf") for name in ("provision", "updater")
    )
    assert updater.pop("PrivateNetwork") == ["yes"]
    assert own.pop("RestrictAddressFamilies") == [f"{updater.pop('RestrictAddressFamilies')[0]} AF_INET AF_INET6"]
    beyond = set(" ".join(own.pop("ReadWritePaths")).split()) - set(" ".join(updater.pop("ReadWritePaths")).split())
    assert beyond == {"-/boot/firmware"}
    assert own == updater


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
    assert steps == {"fetch", "list", "install", "take", "test"}
    with_network = {name for name, found in own.items() if "PrivateNetwork" in found}
    assert with_network == {f"ivy_sandbox-{step}.service.d" for step in ("fetch", "list", "install")}
    for found in own.values():
        assert 0 < int(found["RuntimeMaxSec"][0]) <= sandbox.SECONDS_AT_MOST
    assert 0 < int(shared["RuntimeMaxSec"][0]) <= sandbox.SECONDS_AT_MOST


def test_what_a_service_may_not_its_release_is_not_tested_with() -> None:
    service = settings(UNITS / "ivy-.service.d" / "10-sandbox.conf")
    tested = settings(*sandbox_files("test"))
    # Who it is, where it writes (the /tmp of a test is a mount), and what systemd-run knows from version 257 on.
    others = {"User", "Group", "UMask", "EnvironmentFile", "Environment", "ReadWritePaths", "PrivateTmp"}
    walls = {name: values for name, values in service.items() if name not in others | {"PrivatePIDs"}}
    assert {name: tested.get(name) for name in walls} == walls


def test_the_sandbox_comes_with_each_release_and_not_from_the_packages_units() -> None:
    """Else code that came over the air would run foreign code in what an older package has: nothing."""
    lines = (PROJECT / "debian" / "ivy.install").read_text().splitlines()
    assert [line.split()[1] for line in lines if "ivy_sandbox" in line] == ["usr/lib/ivy/units"]


def test_each_party_that_updates_meet_is_a_user_of_its_own() -> None:
    """The one that verifies is none of those that speak to strangers or run their code."""
    users = {step: settings(*sandbox_files(step))["User"][-1] for step in SANDBOX_STEPS}
    assert {step for step, user in users.items() if user == "ivy-updater"} == {"take", "ask", "unpack", "compile"}
    others = {users[step] for step in ("fetch", "install", "test")}
    assert len(others) == 3 and users["list"] == users["fetch"]
    made = re.findall(r"^u (\S+)", (UNITS / "ivy.sysusers").read_text(), re.MULTILINE)
    assert {*users.values(), constants.NAME, constants.BACKEND_USER} == set(made)


def sandbox_files(step: str) -> list[Path]:
    """In the order in which their settings are handed to systemd."""
    shared = UNITS / "ivy_sandbox-.service.d" / "10-sandbox.conf"
    return [shared, *sorted((UNITS / f"ivy_sandbox-{step}.service.d").glob("*.conf"))]


@pytest.mark.parametrize("containing", ["PrivateDevices=no", "SuccessExitStatus=", "OnCalendar=", "on-failure"])
def test_systemd_understands_the_units_that_the_guide_shows(tmp_path: Path, containing: str) -> None:
    text = example(containing).replace("NAME", "wind")
    kind = "timer" if "[Timer]" in text else "service"
    start = "" if "ExecStart" in text or kind == "timer" else "ExecStart=/bin/true\n"
    (tmp_path / "wind.service").write_text("[Service]\nExecStart=/bin/true\n")
    (tmp_path / f"wind.{kind}").write_text((text + start).replace("/usr/bin/ivy run", "/bin/true"))
    command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(tmp_path / f"wind.{kind}")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stderr.strip() == "", done.stderr


def test_what_starts_a_pass_is_seen_where_it_is_left() -> None:
    flags = [constants.PENDING_CONFIG_FLAG, package_manager.FLAG]
    there = [flag.replace(constants.IVY_RUN_DIR, "/run/ivy") for flag in flags]
    assert there[0].startswith("/run/ivy-backend/") and there[1].startswith("/run/ivy-updater/")
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
    assert path["PathExistsGlob"] == ["/run/ivy-backend/restart-*"]
    assert constants.RESTART_FLAG.removeprefix(constants.BACKEND_RUN_DIR) == "/restart-"
    assert "ivy-restart.path" in settings(UNITS / "ivy.target")["Wants"]
    assert settings(UNITS / "ivy-restart.service.d" / "20-supervision.conf") == {}
    assert of_service("restart")["ExecStart"] == ["+/usr/lib/ivy/units/ivy-restart"]


def test_a_call_for_root_is_seen_where_the_backend_leaves_it() -> None:
    path, service = settings(UNITS / "ivy-call@.path"), of_service("call@")
    assert path["PathExists"] == [f"/run/ivy-backend/{constants.CALL_FLAG.rpartition('/')[2]}%i"]
    assert constants.CALL_FLAG.startswith(f"{constants.BACKEND_RUN_DIR}/")
    wanted = {unit for units in settings(UNITS / "ivy.target")["Wants"] for unit in units.split()}
    calls_of_target = {unit for unit in wanted if unit.startswith("ivy-call@")}
    assert calls_of_target == {f"ivy-call@{method}.path" for method in calls.BY_ROOT}
    [command] = service["ExecStart"]
    assert command.startswith("/usr/bin/env PYTHONPATH=/usr/lib/ivy /usr/bin/python3 "), "the package's own code"
    assert command.endswith(" -m ivy call %i")
    assert "PartOf" not in service, "a way back restarts the target"
    # No number of calls ends the asking, nor can one that is not taken away make this start without a pause.
    assert (service["StartLimitIntervalSec"], path["TriggerLimitIntervalSec"]) == (["0"], ["0"])
    [after] = service["ExecStopPost"]
    assert f"rm -rf {path['PathExists'][0]}" in after and after.endswith("exec sleep 1'")
    lines = [line.split() for line in (UNITS / "ivy.tmpfiles").read_text(encoding="utf-8").splitlines()]
    assert ["d", "/run/ivy-answers", "0750", "root", constants.BACKEND_USER, "-"] in lines
    assert service["ReadWritePaths"] == ["-/run/ivy-answers"]


def test_a_damaged_queue_is_seen_where_it_is_moved_to() -> None:
    [pattern] = settings(UNITS / "ivy-salvage.path")["PathExistsGlob"]
    damaged = "/var/lib/ivy/data/active-message-queue.sqlite3.aside-1700000000"
    assert fnmatch.fnmatch(damaged, pattern) and not fnmatch.fnmatch(f"{damaged}-wal", pattern)
    assert "ivy-salvage.path" in settings(UNITS / "ivy.target")["Wants"]
    assert of_service("salvage")["ExecStart"] == ["/usr/bin/ivy salvage"]
    assert of_service("salvage")["StartLimitIntervalSec"] == ["0"]
    assert settings(UNITS / "ivy-salvage.path")["TriggerLimitIntervalSec"] == ["0"]


def test_only_procedures_of_the_release_are_restarted(tmp_path: Path) -> None:
    run, wants, procedures = tmp_path / "run", tmp_path / "wants", tmp_path / "current" / "ivy" / "procedures"
    for directory in (run, wants, procedures, tmp_path / "current" / "units"):
        directory.mkdir(parents=True)
    (tmp_path / "current" / "units" / "ivy-owners.service").touch()
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
        "IVY_BACKEND_RUN_DIR": str(run),
        "IVY_RUN_DIR": str(tmp_path / "of-1.0"),
        "IVY_TARGET_WANTS": str(wants),
        "IVY_ROOT_DIR": str(tmp_path),
        "IVY_RESTARTED_DIR": str(tmp_path),
        "IVY_END_STOPS": "/bin/true",
    }
    subprocess.run(["/bin/sh", str(UNITS / "ivy-restart")], env=environment, check=True, cwd=run)
    assert (tmp_path / "calls").read_text() == "restart --no-block ivy-wind-sensor.service\n"
    assert [path.name for path in run.iterdir()] == ["link.json"]
    assert len(list(procedures.iterdir())) == 2
    # Again at once, it is not restarted a second time; after the pause, it is.
    for seconds in (0, constants.SECONDS_BETWEEN_RESTARTS + 1):
        (run / "restart-wind-sensor").touch()
        note = tmp_path / "wind-sensor"
        note.write_text(str(int(note.read_text()) - seconds))
        subprocess.run(["/bin/sh", str(UNITS / "ivy-restart")], env=environment, check=True, cwd=run)
    assert len((tmp_path / "calls").read_text().splitlines()) == 2


def test_a_procedure_that_is_not_to_be_disturbed_is_restarted_later_and_holds_up_no_other(tmp_path: Path) -> None:
    run, wants, procedures = tmp_path / "run", tmp_path / "wants", tmp_path / "current" / "ivy" / "procedures"
    for directory in (run, wants, procedures, tmp_path / "times", tmp_path / "current" / "units"):
        directory.mkdir(parents=True)
    (tmp_path / "current" / "units" / "ivy-owners.service").touch()
    for name in ("co2", "wind", "late"):
        (wants / f"ivy-{name}.service").touch()
        (procedures / f"{name}.py").touch()
        (run / f"restart-{name}").touch()
    # While the script rests, an hour goes by each time; and at the second, co2 has come to its end.
    fakes = {
        "systemctl": f'echo "$@" >> {tmp_path}/calls',
        "ivy-busy": f"test $1 != ivy-wind && {{ test $1 != ivy-co2 || test ! -e {tmp_path}/over; }}",
        "sleep": f"""echo "rests $1" >> {tmp_path}/calls
read -r now _ < {tmp_path}/uptime
[ $now = 5000 ] || touch {tmp_path}/over {run}/restart-wind
echo "$((now + 3600)) 0.0" > {tmp_path}/uptime""",
    }
    for name, work in fakes.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{work}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "uptime").write_text("5000 0.0\n")
    environment = {
        "PATH": f"{tmp_path}:/usr/bin:/bin",
        "IVY_BACKEND_RUN_DIR": str(run),
        "IVY_TARGET_WANTS": str(wants),
        "IVY_ROOT_DIR": str(tmp_path),
        "IVY_RESTARTED_DIR": str(tmp_path / "times"),
        "IVY_BUSY": str(tmp_path / "ivy-busy"),
        "IVY_UPTIME": str(tmp_path / "uptime"),
        "IVY_END_STOPS": "/bin/true",
    }
    subprocess.run(["/bin/sh", str(UNITS / "ivy-restart")], env=environment, check=True, cwd=run)
    assert (tmp_path / "calls").read_text().splitlines() == [
        "restart --no-block ivy-wind.service",
        "rests 5",
        "rests 5",
        # Whoever has stopped them meanwhile wants that.
        "try-restart --no-block ivy-co2.service",
        "try-restart --no-block ivy-late.service",
        "restart --no-block ivy-wind.service",
    ]
    assert sorted(path.name for path in (tmp_path / "times").iterdir()) == ["co2", "late", "wind"]


def test_no_procedure_is_restarted_while_somebody_holds_the_node(tmp_path: Path) -> None:
    """Also one for which a request waits since before."""
    run, wants, procedures = tmp_path / "run", tmp_path / "wants", tmp_path / "current" / "ivy" / "procedures"
    for directory in (run, wants, procedures, tmp_path / "times", tmp_path / "current" / "units"):
        directory.mkdir(parents=True)
    (tmp_path / "current" / "units" / "ivy-owners.service").touch()
    for name in ("co2", "wind"):
        (wants / f"ivy-{name}.service").touch()
        (procedures / f"{name}.py").touch()
    (run / "restart-co2").touch()
    (tmp_path / "times" / "wind.waits").write_text("4000\n")
    (tmp_path / "uptime").write_text("5000 0.0\n")
    systemctl = tmp_path / "systemctl"
    systemctl.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n')
    systemctl.chmod(0o755)
    environment = {
        "PATH": f"{tmp_path}:/usr/bin:/bin",
        "IVY_BACKEND_RUN_DIR": str(run),
        "IVY_TARGET_WANTS": str(wants),
        "IVY_ROOT_DIR": str(tmp_path),
        "IVY_RESTARTED_DIR": str(tmp_path / "times"),
        "IVY_BUSY": "/bin/false",
        "IVY_HELD": "/bin/true",
        "IVY_UPTIME": str(tmp_path / "uptime"),
        "IVY_END_STOPS": "/bin/true",
    }
    subprocess.run(["/bin/sh", str(UNITS / "ivy-restart")], env=environment, check=True, cwd=run)
    assert not (tmp_path / "calls").exists() and not list((tmp_path / "times").iterdir())


def test_nobody_waits_for_longer_than_a_procedure_may_ask_for() -> None:
    most = int(busy.MOST_SECONDS)
    for script in (UNITS / "ivy-busy", UNITS / "ivy-restart"):
        assert f"\nmost={most} " in script.read_text(encoding="utf-8")
    lost = (UNITS.parent / "packaging" / "ivy-node" / "ivy-lost").read_text(encoding="utf-8")
    assert f"$(({most // 3600} * hour))" in lost
    assert of_service("restart")["TimeoutStartSec"] == ["5h"], "more than twice as long"


def test_the_last_resort_goes_back_without_a_reload_if_it_must(tmp_path: Path) -> None:
    """As where /run has too little room for that."""
    for version in ("1.0.0", "1.1.0"):
        (tmp_path / version / "config").mkdir(parents=True)
    (tmp_path / "previous").symlink_to("1.0.0")
    (tmp_path / "current").symlink_to("1.1.0")
    systemctl = tmp_path / "systemctl"
    systemctl.write_text(
        f"""#!/bin/sh
echo "$@" >> {tmp_path}/calls
case $1 in show) echo 2 ;; daemon-reload) exit 1 ;; esac
"""
    )
    systemctl.chmod(0o755)
    environment = {
        "PATH": f"{tmp_path}:/usr/bin:/bin",
        "IVY_ROOT_DIR": str(tmp_path),
        "IVY_UPDATER_RUN_DIR": str(tmp_path),
    }
    subprocess.run(["/bin/sh", str(UNITS / "ivy-rollback")], env=environment, check=True, capture_output=True)
    assert (tmp_path / "current").readlink() == Path("1.0.0") and not (tmp_path / "previous").is_symlink()
    assert "restart ivy.target" in (tmp_path / "calls").read_text().splitlines()
    assert (tmp_path / "reload-refused").exists(), "the next pass sees to it"


def test_the_last_resort_stops_a_procedure_that_is_to_be_gone_before_it_is(tmp_path: Path) -> None:
    """Afterwards nothing could leave its hardware safe: its unit and its code are of the release that goes."""
    for version in ("1.0.0", "1.1.0"):
        for directory in ("config", "units", "ivy/procedures"):
            (tmp_path / version / directory).mkdir(parents=True)
    for name in ("rain_gauge", "wind"):
        (tmp_path / "1.1.0" / "ivy" / "procedures" / f"{name}.py").touch()
    (tmp_path / "1.0.0" / "units" / "ivy-wind.service").touch()
    (tmp_path / "previous").symlink_to("1.0.0")
    (tmp_path / "current").symlink_to("1.1.0")
    running = "printf 'ivy-%s.service loaded active\\n' rain-gauge wind updater owners of-the-admin"
    systemctl = tmp_path / "systemctl"
    systemctl.write_text(
        f"""#!/bin/sh
echo "$(readlink {tmp_path}/current): $@" >> {tmp_path}/calls
case "$*" in show*) echo 2 ;; *--state=active,activating,deactivating*) {running} ;; esac
"""
    )
    systemctl.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "IVY_ROOT_DIR": str(tmp_path)}
    subprocess.run(["/bin/sh", str(UNITS / "ivy-rollback")], env=environment, check=True, capture_output=True)
    said = (tmp_path / "calls").read_text().splitlines()
    assert [call for call in said if ": stop" in call] == ["1.1.0: stop ivy-rain-gauge.service"]
    assert "1.0.0: restart ivy.target" in said


OVERDUE = "StateChangeTimestampMonotonic=0\\nTimeoutStopUSec=1min 2.5s\\n"
IN_TIME = "StateChangeTimestampMonotonic=0\\nTimeoutStopUSec=infinity\\n"


@pytest.mark.parametrize(("said", "is_killed"), [(OVERDUE, True), (IN_TIME, False)])
def test_a_stop_without_an_end_is_ended(tmp_path: Path, said: str, is_killed: bool) -> None:
    systemctl = tmp_path / "systemctl"
    systemctl.write_text(
        f"""#!/bin/sh
echo "$@" >> {tmp_path}/calls
case $1 in
list-units) [ -e {tmp_path}/looked ] || echo "ivy-wind.service loaded deactivating"; touch {tmp_path}/looked ;;
show) printf '{said}' ;;
esac
"""
    )
    systemctl.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    subprocess.run(["/bin/sh", str(UNITS / "ivy-end-stops"), "1"], env=environment, check=True)
    killed = "kill --signal=KILL -- ivy-wind.service"
    assert (killed in (tmp_path / "calls").read_text().splitlines()) is is_killed


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.skipif(shutil.which("systemd-tmpfiles") is None, reason="systemd is not installed here")
def test_what_services_read_is_made_readable_and_what_is_secret_is_not(tmp_path: Path) -> None:
    """As after `chmod -R 700`, or a backup that knew no modes: each service would end with 78."""
    root = tmp_path / "root"
    release = root / "var/lib/ivy/1.1.0"
    code = release / "ivy/types/config.py"
    kept = {
        "config.template.json": 0o644,
        "config.json": 0o640,
        "config.accepted.json": 0o640,
        "secrets.json": 0o600,
        "secrets.copy.json": 0o600,
    }
    config = release / "config"
    lock = root / "var/lib/ivy/automation.lock"
    for path in (lock, code, release / "manifest", release / "units/ivy-busy", *map(config.joinpath, kept)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(0o600)
    (root / "etc").mkdir()
    (root / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\nivy:x:991:991::/:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nivy:x:991:\n")
    (root / "var/lib/ivy/current").symlink_to(release.name)
    for directory in (release, *(path for path in release.rglob("*") if path.is_dir())):
        directory.chmod(0o700)
    (release / "units/ivy-busy").chmod(0o700)
    (config / "secrets.json").chmod(0o644)
    (config / "config.json").chmod(0)
    for path in (code, lock):
        os.chown(path, 1000, 1000)
    lines = (UNITS / "ivy.tmpfiles").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if re.match(r"[zZ] /var/lib/ivy/(current|\[0-9\]|automation)", line)]
    (tmp_path / "rules.conf").write_text("\n".join([*rules, ""]))
    subprocess.run(["systemd-tmpfiles", "--create", f"--root={root}", tmp_path / "rules.conf"], check=True)

    def found(path: Path) -> tuple[int, int, int]:
        status = path.stat()
        return stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid

    assert {name: found(config / name) for name in kept} == {
        name: (mode, 0, 991 if mode == 0o640 else 0) for name, mode in kept.items()
    }
    assert found(lock) == (0o600, 0, 0)
    assert found(code) == found(release / "manifest") == (0o644, 0, 0)
    assert found(release / "units/ivy-busy") == (0o755, 0, 0)
    assert {found(path) for path in (release, config, code.parent)} == {(0o755, 0, 0)}


@pytest.mark.parametrize(
    ("active", "is_started"),
    [
        ("ivy.target", True),  # dpkg was killed
        ("ivy.target ivy-updater.timer", False),  # it was not
        ("ivy-updater.timer", False),
        ("", False),  # somebody has stopped all of it
    ],
)
def test_what_an_upgrade_has_stopped_is_started_when_dpkg_was_killed(
    tmp_path: Path, active: str, is_started: bool
) -> None:
    lock = "/var/lib/dpkg/lock"
    fakes = {
        "systemctl": f"""echo "$@" >>{tmp_path}/calls
case $1$2 in --quietis-active) case " {active} " in *" $3 "*) ;; *) exit 1 ;; esac ;; esac""",
        "stat": f'[ "$3" = {lock} ] && echo 4711',
        # The second look, and the third, find it locked.
        "sleep": f"""echo x >>{tmp_path}/looks
case $(wc -l <{tmp_path}/looks) in 2 | 3) held=4711 ;; *) held=14711 ;; esac
echo "1: POSIX  ADVISORY  WRITE 77 fe:00:$held 0 EOF" >{tmp_path}/locks""",
    }
    for name, text in fakes.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "IVY_LOCKS": f"{tmp_path}/locks"}
    subprocess.run(["/bin/sh", str(UNITS / "ivy-resume"), "1"], env=environment, check=True)
    assert (tmp_path / "looks").read_text().count("x") == 5
    calls = (tmp_path / "calls").read_text().splitlines()
    assert ("start --no-block ivy.target" in calls) is is_started


def test_what_an_upgrade_stops_is_seen_to_should_dpkg_be_killed() -> None:
    """By a timer that nothing else stops, and that the target has started again."""
    prerm = (PROJECT / "debian" / "ivy.prerm").read_text(encoding="utf-8")
    before, _, after = prerm.partition("units/ivy-resume")
    assert (
        "stop ivy-updater.timer" in after.replace("deb-systemd-invoke ", "") and "ivy-updater.timer" not in before
    )
    assert "ivy-updater.timer" in settings(UNITS / "ivy.target")["Wants"]


def test_the_time_limits_of_stops_and_restarts_are_those_of_the_code() -> None:
    ends, restart = ((UNITS / name).read_text(encoding="utf-8") for name in ("ivy-end-stops", "ivy-restart"))
    assert f"\nbeyond={units.SECONDS_BEYOND_A_STOP:.0f} " in ends
    assert f"\npause={constants.SECONDS_BETWEEN_RESTARTS} " in restart
    lines = (UNITS / "ivy.tmpfiles").read_text(encoding="utf-8").splitlines()
    assert ["d", "/run/ivy-restarted", "0755", "root", "root", "-"] in [line.split() for line in lines]


def test_no_number_of_commands_ends_the_watching_for_offers() -> None:
    assert settings(UNITS / "ivy-updater.path")["StartLimitIntervalSec"] == ["0"]


def test_no_number_of_requests_ends_the_asking() -> None:
    assert of_service("restart")["StartLimitIntervalSec"] == ["0"]
    assert settings(UNITS / "ivy-restart.path")["TriggerLimitIntervalSec"] == ["0"]


def test_a_pass_that_must_be_made_again_has_not_failed() -> None:
    status = [str(constants.EXIT_TRY_AGAIN)]
    updater = of_service("updater")
    assert updater["SuccessExitStatus"] == updater["RestartForceExitStatus"] == status
    assert of_service("rollback")["SuccessExitStatus"] == status


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


FAILED = {"SERVICE_RESULT": "exit-code", "EXIT_CODE": "exited", "EXIT_STATUS": "1", "INVOCATION_ID": "0a1b"}


class Ends:
    """What `ivy-report-end` is called with, and what it asks of systemd."""

    def __init__(self, home: Path) -> None:
        self.counted = home / "ends" / "ivy-x.service"
        self._environment = {"PATH": f"{home}:/usr/bin:/bin", "IVY_ENDS_DIR": str(home / "ends")}
        systemctl = home / "systemctl"
        systemctl.write_text('#!/bin/sh\necho "$@"\n')
        systemctl.chmod(0o755)

    def fail(self, **more: str) -> list[str]:
        """Fail once. Returns how systemd was called."""
        command = ["/bin/sh", str(UNITS / "ivy-report-end"), "ivy-x.service"]
        environment = {**self._environment, **FAILED, **more}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        return done.stdout.splitlines()

    def was(self, *, began: int, last: int, told: int, count: int) -> None:
        """Let so many have been counted before, in seconds ago."""
        now = int(time.clock_gettime(time.CLOCK_BOOTTIME))
        self.counted.parent.mkdir(exist_ok=True)
        self.counted.write_text(f"{now - began} {now - last} {now - told} {count} signal:killed:KILL\n")


@pytest.fixture
def ends(tmp_path: Path) -> Ends:
    return Ends(tmp_path)


def reports(calls: list[str]) -> list[str]:
    """What is told by them: the last part of the report's name, up to the run."""
    found = [re.fullmatch(r"start --no-block ivy-report@ivy-x\.service:(.*):0a1b\.service", call) for call in calls]
    return [match[1] for match in found if match]


def test_the_first_ends_are_told_each_and_nobody_is_waited_for(ends: Ends) -> None:
    calls = [ends.fail() for _ in range(6)]
    assert [len(reports(each)) for each in calls] == [1, 1, 1, 0, 0, 0]
    assert re.fullmatch("exit-code:exited:1:1:[0-9]+", reports(calls[0])[0])
    assert [each for call in calls for each in call if "--no-block" not in each] == []
    assert ends.counted.read_text().split()[3:] == ["6", "exit-code:exited:1"]


def test_each_end_of_a_loop_puts_off_the_news_that_it_is_over(ends: Ends) -> None:
    again = "restart --no-block ivy-report@ivy-x.service.timer"
    assert [again in ends.fail() for _ in range(5)] == [False, False, False, True, True]
    timer = settings(UNITS / "ivy-report@.timer")
    assert timer["Unit"] == ["ivy-report@%i:over.service"]
    script = (UNITS / "ivy-report-end").read_text()
    calm = re.search(r"^calm=([0-9]+)", script, re.MULTILINE)
    told_each = re.search(r"^told_each=([0-9]+)", script, re.MULTILINE)
    assert calm is not None and units.seconds_of(timer["OnActiveSec"][0]) == int(calm[1])
    assert (
        told_each is not None and f"_TOLD_EACH = {told_each[1]}\n" in (PROJECT / "ivy/cli/internal.py").read_text()
    )


@pytest.mark.parametrize(
    ("last", "told", "found"),
    [
        (20, 1800, []),
        (20, 3700, ["exit-code:exited:1:101:7…"]),
        (950, 1800, ["exit-code:exited:1:1:0"]),  # another loop
    ],
)
def test_a_loop_is_told_once_an_hour(ends: Ends, last: int, told: int, found: list[str]) -> None:
    ends.was(began=7000, last=last, told=told, count=100)
    assert [re.sub(r":7\d\d\d$", ":7…", each) for each in reports(ends.fail())] == found
    assert len(reports(ends.fail())) == (last > 900), "the next hour begins with what was told"


def test_a_service_that_never_ran_has_an_end_too(ends: Ends) -> None:
    [call] = ends.fail(SERVICE_RESULT="timeout", EXIT_CODE="", EXIT_STATUS="")
    assert "ivy-x.service:timeout:::1:0:" in call


def test_where_nothing_can_be_counted_each_end_is_told(ends: Ends) -> None:
    ends.counted.parent.write_text("no directory")
    command = ["/bin/sh", str(UNITS / "ivy-report-end"), "ivy-x.service"]
    environment = {"PATH": f"{ends.counted.parents[1]}:/usr/bin:/bin", "IVY_ENDS_DIR": str(ends.counted.parent)}
    for _ in range(4):
        done = subprocess.run(command, env={**environment, **FAILED}, capture_output=True, text=True)
        assert len(reports(done.stdout.splitlines())) == 1


def test_whoever_fails_is_counted_by_root_and_the_report_waits_for_nobody() -> None:
    for supervision in (SHARED[-1], UNITS / "ivy-updater.service.d" / "20-supervision.conf"):
        command = settings(supervision)["ExecStopPost"][0]
        assert command.startswith("-+/bin/sh ") and " /usr/lib/ivy/units/ivy-report-end %n" in command
    assert "units/ivy-report-end      usr/lib/ivy/units\n" in (PROJECT / "debian" / "ivy.install").read_text()
    assert of_service("report@")["SupplementaryGroups"] == ["systemd-journal"]


@pytest.mark.parametrize(("restarts", "is_looked"), [(0, False), (1, False), (2, True), (700, True)])
def test_the_third_crash_in_a_row_has_somebody_look_for_damage(
    tmp_path: Path, restarts: int, is_looked: bool
) -> None:
    systemctl = tmp_path / "systemctl"
    systemctl.write_text(f'#!/bin/sh\nif [ "$1" = show ]; then echo NRestarts={restarts}; else echo "$@"; fi\n')
    systemctl.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SERVICE_RESULT": "exit-code"}
    command = ["/bin/sh", str(UNITS / "ivy-reset-backoff"), "ivy-x.service"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == ("start --no-block ivy-repair.service\n" if is_looked else "")


def test_there_is_a_daily_pass() -> None:
    timer = settings(UNITS / "ivy-repair.timer")
    assert (timer["OnCalendar"], timer["Unit"]) == (["daily"], ["ivy-updater.service"])
    assert "ivy-repair.timer" in settings(UNITS / "ivy.target")["Wants"]
    assert of_service("repair")["ExecStart"] == ["+/bin/sh /usr/lib/ivy/units/ivy-repair"]
    assert settings(UNITS / "ivy-repair.service.d" / "20-supervision.conf") == {}


def launch(
    root: Path,
    bundled: Path = PROJECT,
    arguments: Sequence[str] = ("info", "two words"),
    programs: str = "/usr/bin",
) -> subprocess.CompletedProcess[str]:
    command = ["/bin/sh", str(PROJECT / "debian" / "ivy.sh"), *arguments]
    environment = {"PATH": f"{programs}:/usr/bin:/bin", "IVY_ROOT_DIR": str(root), "IVY_BUNDLED_DIR": str(bundled)}
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
    assert called == [f"{release}/.venv/bin/python3", "-P", "-s", "-m", "ivy", "info", "two words"]


def test_a_command_is_spared_what_a_service_is(release: Path) -> None:
    (release.parent / "python3.99").write_text("#!/bin/sh\nexec env\n")
    of_services = {word for words in settings(*SHARED)["Environment"] for word in words.split()}
    spared = {word for word in of_services if word.startswith(("PYDANTIC_", "PYTHONTZPATH="))}
    assert len(spared) == 3 and spared <= set(launch(release.parent).stdout.splitlines())


@pytest.mark.parametrize("script", [None, "", "if then", "exit 77"])
def test_the_command_runs_the_current_release_whatever_became_of_the_package(
    release: Path, tmp_path: Path, script: str | None
) -> None:
    (release / "ivy").mkdir()
    shutil.copy(PROJECT / "ivy" / "fits.sh", release / "ivy")
    bundled = tmp_path / "bundled"
    (bundled / "ivy").mkdir(parents=True)
    if script is not None:
        (bundled / "ivy" / "fits.sh").write_text(script)
    assert launch(release.parent, bundled).stdout.startswith(f"{release}/.venv/bin/python3\n")


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


@pytest.fixture
def damaged(release: Path) -> Path:
    """The same release with a list of checksums, of which one is wrong."""
    (release / "ivy").mkdir()
    (release / "ivy" / "agent.py").write_text("SECONDS = 10\n")
    manifest.write(release)
    assert launch(release.parent).stdout.startswith(f"{release}/")
    (release / "ivy" / "agent.py").write_bytes(bytes(13))
    return release


@pytest.mark.parametrize("is_of_1_0", [False, True])
def test_what_is_on_probation_is_judged_by_the_release_before_but_by_the_package_where_that_is_1_0(
    release: Path, is_of_1_0: bool
) -> None:
    (release / "units").mkdir()
    if not is_of_1_0:
        (release / "units" / "ivy-owners.service").touch()
    (release.parent / "current").unlink()
    (release.parent / "current").symlink_to("2.0.0")
    (release.parent / "previous").symlink_to("1.1.0")
    called = launch(release.parent, arguments=["run", "updater"]).stdout
    assert called.startswith(f"{release}/") == (not is_of_1_0)


COMMANDS = [("info",), ("run", "updater"), ("status",)]


@pytest.mark.parametrize("arguments", COMMANDS)
def test_commands_and_the_updater_are_the_packages_where_the_release_is_damaged(
    damaged: Path, arguments: tuple[str, ...]
) -> None:
    assert str(damaged) not in launch(damaged.parent, arguments=arguments).stdout


def test_a_service_goes_on_with_what_there_is(damaged: Path) -> None:
    """Most damage is not in what it uses."""
    assert launch(damaged.parent, arguments=["run", "wind"]).stdout.startswith(f"{damaged}/")


@pytest.mark.parametrize("arguments", COMMANDS)
def test_a_damaged_release_is_better_than_a_package_that_is_damaged_too(
    damaged: Path, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "dpkg").write_text(f"#!/bin/sh\necho '??5??????   {PROJECT}/ivy/service.py'\nexit 1\n")
    (programs / "dpkg").chmod(0o755)
    said = launch(damaged.parent, arguments=arguments, programs=str(programs)).stdout
    assert said.startswith(f"{damaged}/")


def look_for_damage(release: Path, calls: Path) -> str:
    """As ivy-repair.service does. Returns what systemd was told."""
    systemctl = release.parent / "systemctl"
    systemctl.write_text(f'#!/bin/sh\necho "$@" >>{calls}\n')
    systemctl.chmod(0o755)
    calls.write_text("")
    environment = {
        "PATH": f"{release.parent}:/usr/bin:/bin",
        "IVY_ROOT_DIR": str(release.parent),
        "IVY_BUNDLED_DIR": str(PROJECT),
        "IVY_UPDATER_RUN_DIR": str(release.parent),
    }
    subprocess.run(["/bin/sh", str(UNITS / "ivy-repair")], env=environment, check=True, capture_output=True)
    return calls.read_text()


def test_damage_starts_a_pass_once(damaged: Path, tmp_path: Path) -> None:
    """The pass that repairs may not be ended by the next crash."""
    assert look_for_damage(damaged, tmp_path / "calls") == "restart --no-block ivy-updater.service\n"
    assert look_for_damage(damaged, tmp_path / "calls") == ""
    assert (damaged.parent / os.path.basename(damage.FLAG)).is_dir()
    (damaged.parent / os.path.basename(damage.FLAG)).rmdir()
    assert look_for_damage(damaged, tmp_path / "calls") != ""


def test_a_release_that_is_whole_is_left_alone(release: Path, tmp_path: Path) -> None:
    assert look_for_damage(release, tmp_path / "calls") == ""
    (release / "ivy").mkdir()
    (release / "ivy" / "agent.py").touch()
    manifest.write(release)
    assert look_for_damage(release, tmp_path / "calls") == ""


def test_a_lost_release_is_damage(release: Path, tmp_path: Path) -> None:
    (release.parent / "current").unlink()
    assert look_for_damage(release, tmp_path / "calls") != ""
