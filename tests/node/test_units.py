"""The units as systemd itself sees them: no complaint, a tight sandbox, and what follows release and config."""

import re
import resource
from pathlib import Path

import pytest
from testbed.bed import Node

from tests.support.installed import read_config, unit_property, write_config
from tests.support.sampling import release_file

MOST_EXPOSURE = {
    "ivy-dummy-procedure": 0.7,
    "ivy-system-checks": 0.7,
    "ivy-tenta": 1.3,
    "ivy-thingsboard": 1.3,
    "ivy-updater": 2.5,
    "ivy-rollback": 2.5,
    "ivy-restart": 2.5,
    "ivy-report@x": 0.7,
}
GENERATOR = "/usr/lib/systemd/system-generators/ivy-generator"
TENTA = {
    "provider": "tenta",
    "max_drain_time": 33,
    "mqtt_connection": {"host": "127.0.0.1", "port": 1, "client_id": "n", "username": "n", "password": "n"},
}

LIBRARIES_USER = Path(__file__).parents[1] / "libraries_user.py"
LIBRARIES_UNIT = """
[Unit]
PartOf=ivy.target

[Service]
ExecStart=/usr/bin/ivy run libraries-user
PrivateNetwork=yes
"""


def test_systemd_has_nothing_to_say_about_the_units(ivy_node: Node) -> None:
    # What follows from the target, too: a path unit names its service, and that one the last resort.
    units = [*(f"{unit}.service" for unit in MOST_EXPOSURE), "ivy-updater.path", "ivy-restart.path"]
    files = [f"/usr/lib/systemd/system/{unit}" for unit in units]
    # A minimal node has no man, which would be asked for each Documentation=.
    said = ivy_node.run(["systemd-analyze", "verify", "--man=no", "/usr/lib/systemd/system/ivy.target", *files])
    assert said.stdout + said.stderr == ""


@pytest.mark.parametrize(("unit", "bound"), list(MOST_EXPOSURE.items()))
def test_the_sandbox_is_tight(ivy_node: Node, unit: str, bound: float) -> None:
    said = ivy_node.run(["systemd-analyze", "security", "--no-pager", f"{unit}.service"]).stdout
    exposure = re.search(r"Overall exposure level for .*: ([0-9.]+)", said)
    assert exposure is not None
    assert float(exposure[1]) <= bound, said


def test_the_sandbox_of_updates_is_tight_for_this_systemd_too(ivy_node: Node) -> None:
    """It has no unit files; those that systemd-run makes have the same settings."""
    ivy_node.run(["sh", "-c", "mkdir /tmp/sandbox && cp -r /usr/lib/ivy/units/ivy_sandbox-*.d /tmp/sandbox"])
    for step in ("fetch", "list", "install", "test"):
        unit = f"/tmp/sandbox/ivy_sandbox-{step}.service"
        ivy_node.path("/tmp/sandbox").joinpath(Path(unit).name).write_text("[Service]\nExecStart=/bin/true\n")
        said = ivy_node.run(["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", unit])
        assert said.stdout + said.stderr == ""
        said = ivy_node.run(["systemd-analyze", "security", "--no-pager", "--offline=yes", unit])
        exposure = re.search(r"Overall exposure level for .*: ([0-9.]+)", said.stdout)
        assert exposure is not None
        print(step, exposure[1])
        assert float(exposure[1]) <= (0.8 if step == "test" else 1.5), said.stdout


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


def test_the_delays_between_restarts_begin_anew_after_a_good_run(node: Node) -> None:
    script = node.path("/usr/lib/ivy/units/ivy-reset-backoff")
    script.write_text(re.sub("^enough=.*", "enough=0", script.read_text(), flags=re.MULTILINE))
    for _ in range(3):
        killed = unit_property(node, "ivy-dummy-procedure", "MainPID")
        node.run(["systemctl", "kill", "--kill-whom=main", "-s", "KILL", "ivy-dummy-procedure"])
        node.wait_for(lambda pid=killed: _runs_again(node, pid), 10, "the restart")  # type: ignore[misc]
        assert unit_property(node, "ivy-dummy-procedure", "NRestarts") == "1"


def _runs_again(node: Node, killed: str) -> bool:
    if unit_property(node, "ivy-dummy-procedure", "SubState") != "running":
        return False
    return unit_property(node, "ivy-dummy-procedure", "MainPID") != killed


def test_offers_are_seen_again_after_the_path_unit_has_failed(node: Node) -> None:
    """Stopped stands for failed here: for the timer it is the same."""
    drop_in = node.path("/etc/systemd/system") / "ivy-updater.timer.d" / "often.conf"
    drop_in.parent.mkdir()
    drop_in.write_text("[Timer]\nOnCalendar=*:*:0/1\nAccuracySec=100ms\n")
    node.run(["systemctl", "daemon-reload"])
    node.run(["systemctl", "restart", "ivy-updater.timer"])
    path = ["systemctl", "is-active", "ivy-updater.path"]
    for _ in range(2):
        node.run(["systemctl", "stop", "ivy-updater.path"])
        node.wait_for(lambda: node.run(path, check=False).returncode == 0, 20, "the path unit")


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
    node.run(
        ["touch", "/run/ivy/restart-updater", "/run/ivy/restart-ivy.target", "/run/ivy/restart-dummy-procedure"]
    )
    node.wait_for(
        lambda: unit_property(node, "ivy-dummy-procedure", "MainPID") not in (old["ivy-dummy-procedure"], "0"),
        15,
        "the restart",
    )
    node.wait_for(lambda: not list(node.path("/run/ivy").glob("restart-*")), 5, "all files to be taken away")
    assert unit_property(node, "ivy-system-checks", "MainPID") == old["ivy-system-checks"]


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
    node.path(release_file(node, "units/ivy-libraries-user.service")).write_text(LIBRARIES_UNIT)
    node.run(["ivy", "start"])
    sent = ["ivy", "messages", "--key", "pydantic", "--json"]
    node.wait_for(lambda: '"pydantic"' in node.run(sent).stdout, 10, "its message")
    assert unit_property(node, "ivy-libraries-user", "NRestarts") == "0"
