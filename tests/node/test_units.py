"""The units as systemd itself sees them: no complaint, a tight sandbox, and what follows release and config."""

import json
import os
import re
import resource
from pathlib import Path
from typing import Any

import pytest
from testbed.bed import Node

from tests.support.installed import read_config, say_busy, unit_property, write_config
from tests.support.sampling import procedure_unit, release_file

MOST_EXPOSURE = {
    "ivy-dummy-procedure": 0.7,
    "ivy-system-checks": 0.7,
    "ivy-tenta": 1.3,
    "ivy-thingsboard": 1.3,
    "ivy-updater": 2.5,
    "ivy-provision": 2.5,
    "ivy-rollback": 2.5,
    "ivy-repair": 2.5,
    "ivy-restart": 2.5,
    "ivy-call@logs": 2.5,
    "ivy-call@doctor": 2.5,
    "ivy-owners": 2.5,
    "ivy-report@x": 0.7,
    "ivy-salvage": 0.7,
}
GENERATOR = "/usr/lib/systemd/system-generators/ivy-generator"
TENTA: dict[str, Any] = {
    "provider": "tenta",
    "max_drain_time": 33,
    "mqtt_connection": {"host": "127.0.0.1", "port": 1, "client_id": "n", "username": "n", "password": "n"},
}

LIBRARIES_USER = Path(__file__).parents[1] / "libraries_user.py"


def test_systemd_has_nothing_to_say_about_the_units(ivy_node: Node) -> None:
    # What follows from the target, too: a path unit names its service, and that one the last resort.
    paths = [f"ivy-{name}.path" for name in ("updater", "restart", "salvage", "call@logs")]
    mounts = ["run-ivy.mount", r"run-ivy\x2dbackend.mount"]
    units = [*(f"{unit}.service" for unit in MOST_EXPOSURE), "ivy-report@x.timer", *paths, *mounts]
    files = [f"/usr/lib/systemd/system/{unit}" for unit in units]
    # A minimal node has no man, which would be asked for each Documentation=.
    said = ivy_node.run(["systemd-analyze", "verify", "--man=no", "/usr/lib/systemd/system/ivy.target", *files])
    assert said.stdout + said.stderr == ""


EXPOSURE_OF_STEPS = {"fetch": 1.7, "list": 1.7, "install": 1.7, "take": 1.0, "test": 1.0}


@pytest.mark.parametrize(("unit", "bound"), list(MOST_EXPOSURE.items()))
def test_the_sandbox_is_tight(ivy_node: Node, unit: str, bound: float) -> None:
    said = ivy_node.run(["systemd-analyze", "security", "--no-pager", f"{unit}.service"]).stdout
    exposure = re.search(r"Overall exposure level for .*: ([0-9.]+)", said)
    assert exposure is not None
    assert float(exposure[1]) <= bound, said


def test_no_service_needs_a_user_namespace(ivy_node: Node) -> None:
    """A kernel may give none. This one is shared by all nodes, so what the services have got is looked at."""
    outside = ivy_node.run(["readlink", "/proc/1/ns/user"]).stdout
    for unit in ("ivy-dummy-procedure", "ivy-system-checks"):
        process = unit_property(ivy_node, unit, "MainPID")
        assert ivy_node.run(["readlink", f"/proc/{process}/ns/user"]).stdout == outside


@pytest.mark.parametrize(
    "unit",
    [
        "ivy-dummy-procedure",
        "ivy-system-checks",
        "ivy-tenta",
        "ivy-thingsboard",
        "ivy-updater",
        "ivy-rollback",
        "ivy-provision",
        "ivy-report@x",
        "ivy-restart",
        "ivy-call@rollback",
    ],
)
def test_each_service_has_limits(ivy_node: Node, unit: str) -> None:
    assert 0 < int(unit_property(ivy_node, unit, "MemoryMax")) <= 512 << 20
    assert 0 < int(unit_property(ivy_node, unit, "TasksMax")) <= 128


def test_the_sandbox_of_updates_is_tight_for_this_systemd_too(ivy_node: Node) -> None:
    """It has no unit files; those that systemd-run makes have the same settings."""
    ivy_node.run(["sh", "-c", "mkdir /tmp/sandbox && cp -r /usr/lib/ivy/units/ivy_sandbox-*.d /tmp/sandbox"])
    for step in EXPOSURE_OF_STEPS:
        unit = f"/tmp/sandbox/ivy_sandbox-{step}.service"
        ivy_node.path("/tmp/sandbox").joinpath(Path(unit).name).write_text("[Service]\nExecStart=/bin/true\n")
        said = ivy_node.run(["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", unit])
        assert said.stdout + said.stderr == ""
        said = ivy_node.run(["systemd-analyze", "security", "--no-pager", "--offline=yes", unit])
        exposure = re.search(r"Overall exposure level for .*: ([0-9.]+)", said.stdout)
        assert exposure is not None
        print(step, exposure[1])
        assert float(exposure[1]) <= EXPOSURE_OF_STEPS[step], said.stdout


def test_doctor_names_what_is_beyond_the_sandbox(ivy_node: Node) -> None:
    said = ivy_node.run(["ivy", "doctor"], check=False).stdout
    [line] = [line for line in said.splitlines() if " sandbox " in line]
    print(line)
    assert "every service is without rights" in line
    assert 'but for ExecStopPost by root, /bin/sh -c test "$SERVICE_RESULT"' in line and "(each)" in line
    assert "writing" not in line and "network" not in line, "no backend is configured"


def test_what_a_release_needs_below_run_is_made_without_the_package(ivy_node: Node) -> None:
    """As for one that came over the air to a package that knows nothing of it."""
    ivy_node.run(["rm", "-rf", "/run/ivy-restarted", "/run/ivy-samples"])
    ivy_node.run(["systemctl", "restart", "ivy-owners.service"])
    said = ivy_node.run(
        ["stat", "--format=%n %F %U %a", "/run/ivy-restarted", "/run/ivy-samples/ivy-dummy-procedure"]
    )
    assert said.stdout.splitlines() == [
        "/run/ivy-restarted directory root 755",
        "/run/ivy-samples/ivy-dummy-procedure fifo ivy 600",
    ]


def test_root_does_what_an_operator_asks_for_and_nothing_else(ivy_node: Node) -> None:
    ivy_node.path("/var/lib/ivy/.env").write_text(f"SOME_TOKEN={SECRET}\n")
    entry = f"MESSAGE=the token is {SECRET}\\nOBJECT_SYSTEMD_UNIT=ivy-system-checks.service\\n"
    ivy_node.run(["sh", "-ec", f"printf '{entry}' | logger --journald; journalctl --sync"])
    lines = call(ivy_node, "logs", {"name": "system-checks", "lines": 200})["result"]["lines"]
    ivy_node.run(["rm", "/var/lib/ivy/.env"])
    assert any("the token is ***" in line for line in lines) and SECRET not in str(lines)
    assert 1 < len(call(ivy_node, "logs", {"lines": 3})["result"]["lines"]) <= 3
    assert '"ssh"' in call(ivy_node, "logs", {"name": "ssh"})["error"]
    findings = call(ivy_node, "doctor")["result"]["findings"]
    assert "too soon" in call(ivy_node, "doctor")["error"]
    by_hand = json.loads(ivy_node.run(["ivy", "doctor", "--json"], check=False).stdout)
    same = ("config", "permissions", "sandbox", "machine", "python", "files")
    of_call, of_hand = ([each["text"] for each in found if each["check"] in same] for found in (findings, by_hand))
    assert sorted(of_call) == sorted(of_hand), "it sees the machine as it is"
    assert call(ivy_node, "rollback")["error"].startswith("there is nothing to go back to")
    assert "backend: is null" in call(ivy_node, "resend", {"since": "-1h"})["error"]
    assert call(ivy_node, "update_now")["result"].startswith(("begun", "a pass is under way"))
    # What is no call is taken away, and starts nothing time and again.
    bad = ["ln -s /etc/shadow call-logs", "mkfifo call-doctor", "mkdir -p call-reboot/x", "echo x >call-rollback"]
    ivy_node.run(["runuser", "-u", "ivy-backend", "--", "sh", "-ec", f"cd /run/ivy-backend; {'; '.join(bad)}"])
    flags = ivy_node.path("/run/ivy-backend")
    ivy_node.wait_for(lambda: not list(flags.glob("call-*")), 30, "all flags to be taken away")
    assert ivy_node.path("/etc/shadow").exists()
    said = ["runuser", "-u", "ivy", "--", "cat", "/run/ivy-answers/logs"]
    assert "Permission denied" in ivy_node.run(said, check=False).stderr, "answers are for backends"


SECRET = "a-secret-of-the-broker"


def call(node: Node, method: str, params: dict[str, object] | None = None) -> dict[str, Any]:
    """What root answers to a call, of which a backend leaves word; as that one reads it."""
    token = os.urandom(8).hex()
    asked = json.dumps({"token": token, "params": params or {}})
    flag = f"/run/ivy-backend/call-{method}"
    leave = f"printf %s '{asked}' >/run/ivy-backend/asked; mv /run/ivy-backend/asked {flag}"
    node.run(["runuser", "-u", "ivy-backend", "--", "sh", "-ec", leave])

    def answer() -> dict[str, Any] | None:
        said = node.run(["runuser", "-u", "ivy-backend", "--", "cat", f"/run/ivy-answers/{method}"], check=False)
        found = json.loads(said.stdout) if said.returncode == 0 else {}
        return found["answer"] if found.get("token") == token else None

    return node.wait_for(answer, 120, f"the answer to {method}")


@pytest.mark.thorough
def test_a_reboot_that_an_operator_asks_for_waits_for_who_is_not_to_be_disturbed(node: Node) -> None:
    methods = node.path("/usr/lib/ivy/ivy/types/calls.py")  # the node was booted just now
    methods.write_text(methods.read_text().replace("pause=600", "pause=0"))
    say_busy(node, "ivy-system-checks", 3600)
    answer = call(node, "reboot")
    assert answer["success"] and "when it may disturb system-checks until " in answer["result"]

    def waits() -> bool:
        found = json.loads(node.run(["ivy", "status", "--json"], check=False).stdout)["update_waits"] or {}
        return bool((found.get("what"), found.get("procedures")) == ("reboot", ["system-checks"]))

    node.wait_for(waits, 60, "the reboot to wait")
    assert "\nreboot:   waits for system-checks, until " in node.run(["ivy", "status"], check=False).stdout
    say_busy(node, "ivy-system-checks", 0)
    node.wait_for(lambda: not node.running, 120, "the node to go down")
    assert "Reached target reboot.target" in node.journal("--lines=100")


def test_a_boot_does_not_wait_for_the_generator(ivy_node: Node) -> None:
    seconds = []
    for _ in range(10):
        before = _processor_seconds()
        ivy_node.run([GENERATOR, "/tmp/generated"])
        seconds.append(_processor_seconds() - before)
        ivy_node.run(["rm", "-r", "/tmp/generated"])
    print(f"{min(seconds) * 1000:.0f} ms")
    assert min(seconds) < 0.1


def _processor_seconds() -> float:
    """What all programs run so far have used; how long they took is up to this machine's other work as well."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.thorough
def test_the_delays_between_restarts_begin_anew_after_a_good_run(node: Node) -> None:
    script = node.path("/usr/lib/ivy/units/ivy-reset-backoff")
    script.write_text(re.sub("^enough=.*", "enough=0", script.read_text(), flags=re.MULTILINE))
    # Before, its main process is one of systemd's, that makes the sandbox.
    node.wait_for(lambda: _runs_again(node, "0"), 30, "the procedure to run")
    for _ in range(3):
        killed = unit_property(node, "ivy-dummy-procedure", "MainPID")
        node.run(["systemctl", "kill", "--kill-whom=main", "-s", "KILL", "ivy-dummy-procedure"])
        node.wait_for(lambda pid=killed: _runs_again(node, pid), 30, "the restart")  # type: ignore[misc]
        assert unit_property(node, "ivy-dummy-procedure", "NRestarts") == "1"


def _runs_again(node: Node, killed: str) -> bool:
    if unit_property(node, "ivy-dummy-procedure", "SubState") != "running":
        return False
    return unit_property(node, "ivy-dummy-procedure", "MainPID") != killed


@pytest.mark.thorough
def test_offers_are_seen_again_after_the_path_unit_has_failed(node: Node) -> None:
    """Stopped stands for failed here: for the timer it is the same."""
    drop_in = node.path("/etc/systemd/system") / "ivy-updater.timer.d" / "often.conf"
    drop_in.parent.mkdir()
    drop_in.write_text("[Timer]\nOnCalendar=*:*:0/1\nAccuracySec=100ms\n")
    node.run(["systemctl", "daemon-reload"])
    node.run(["systemctl", "restart", "ivy-updater.timer"])
    path = ["systemctl", "is-active", "ivy-updater.path"]
    stop = ["systemctl", "stop", "ivy-updater.path"]  # canceled, where it is just being armed again
    for _ in range(2):
        node.wait_for(lambda: node.run(stop, check=False).returncode == 0, 20, "a stop in between")
        node.wait_for(lambda: node.run(path, check=False).returncode == 0, 20, "the path unit")


@pytest.mark.thorough
def test_offers_are_seen_where_the_file_system_of_their_flag_cannot_be_made(node: Node) -> None:
    """Nor is it made later, over flags that are there."""
    unit = node.path("/usr/lib/systemd/system/run-ivy\\x2dbackend.mount")
    text = unit.read_text()
    unit.write_text(text.replace("uid=ivy-backend", "uid=nobody-is-called-so"))
    node.reboot()
    path = ["systemctl", "is-active", "ivy-updater.path"]
    node.wait_for(lambda: node.run(path, check=False).returncode == 0, 60, "the path unit, after the first pass")
    unit.write_text(text)
    node.run(["systemctl", "daemon-reload"])
    node.run(["systemctl", "restart", "ivy-system-checks"])
    assert node.run(["mountpoint", "--quiet", "/run/ivy-backend"], check=False).returncode != 0
    before = unit_property(node, "ivy-updater", "InvocationID")
    node.run(["touch", "/run/ivy-backend/pending-config"])
    node.wait_for(lambda: unit_property(node, "ivy-updater", "InvocationID") != before, 30, "a pass")


def test_the_units_follow_the_release(node: Node) -> None:
    # The pass at boot would take a copy that nothing points at for an old release.
    node.wait_for(lambda: unit_property(node, "ivy-updater", "ActiveState") == "inactive", 30, "the pass at boot")
    node.run(["cp", "-a", "/var/lib/ivy/current/", "/var/lib/ivy/9.0.0"])
    release = node.path("/var/lib/ivy/9.0.0")
    (release / "ivy" / "procedures" / "dummy_procedure.py").rename(release / "ivy" / "procedures" / "wind.py")
    unit = release / "units" / "ivy-dummy-procedure.service"
    unit.rename(unit.with_name("ivy-wind.service"))
    (release / "units" / "ivy-.service.d" / "60-new.conf").write_text("[Service]\nTimeoutStartSec=77\n")
    node.run(["ln", "-sfn", "9.0.0", "/var/lib/ivy/current"])
    node.run(["systemctl", "daemon-reload"])
    wanted = node.run(["systemctl", "show", "--value", "--property=Wants", "ivy.target"]).stdout
    services = sorted(unit for unit in wanted.split() if unit.endswith(".service"))
    assert services == ["ivy-system-checks.service", "ivy-updater.service", "ivy-wind.service"]
    assert unit_property(node, "ivy-wind", "TimeoutStartUSec") == "1min 17s"
    assert unit_property(node, "ivy-wind", "User") == "ivy"
    for path in unit_property(node, "ivy-updater", "DropInPaths").split():
        assert path.startswith("/usr/lib/systemd/system/"), "the updater must not depend on a release"


def test_a_procedure_is_restarted_by_a_file_and_nothing_else_is(node: Node) -> None:
    old = {unit: unit_property(node, unit, "MainPID") for unit in ("ivy-dummy-procedure", "ivy-system-checks")}
    names = ("updater", "ivy.target", "dummy-procedure")
    node.run(["touch", *(f"/run/ivy-backend/restart-{name}" for name in names)])
    node.wait_for(
        lambda: unit_property(node, "ivy-dummy-procedure", "MainPID") not in (old["ivy-dummy-procedure"], "0"),
        15,
        "the restart",
    )
    node.wait_for(
        lambda: not list(node.path("/run/ivy-backend").glob("restart-*")), 5, "all files to be taken away"
    )
    assert unit_property(node, "ivy-system-checks", "MainPID") == old["ivy-system-checks"]
    assert "too soon" in call(node, "reboot")["error"], "it was booted just now"


@pytest.mark.thorough
def test_a_node_whose_data_is_on_a_file_system_of_its_own(node: Node) -> None:
    """Generators run before it is mounted, so the backend is not known yet; the updater's pass looks again."""
    config = read_config(node)
    write_config(node, config | {"backend": TENTA})
    node.run(["systemctl", "stop", "ivy.target"])
    node.run(["mv", "/var/lib/ivy", "/srv/ivy"])
    node.run(["mkdir", "/var/lib/ivy"])
    node.path("/etc/fstab").write_text("/srv/ivy /var/lib/ivy none bind 0 0\n")
    node.reboot()
    node.wait_for(lambda: unit_property(node, "ivy-tenta", "SubState") == "running", 30, "the backend to start")
    assert unit_property(node, "ivy-tenta", "TimeoutStopUSec") == "2min 33s"
    assert unit_property(node, "ivy-dummy-procedure", "SubState") == "running"


def test_a_procedure_may_use_any_library(node: Node) -> None:
    node.copy_in(LIBRARIES_USER, release_file(node, "ivy/procedures/libraries_user.py"))
    node.path(release_file(node, "units/ivy-libraries-user.service")).write_text(procedure_unit("libraries-user"))
    node.run(["ivy", "start"])
    sent = ["ivy", "messages", "--key", "pydantic", "--json"]
    node.wait_for(lambda: '"pydantic"' in node.run(sent).stdout, 10, "its message")
    assert unit_property(node, "ivy-libraries-user", "NRestarts") == "0"
