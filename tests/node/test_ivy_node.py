"""The package ivy-node: a node that has lost its operator or its disk, or ends in a shell, comes back by itself."""

import json
from collections.abc import Generator
from pathlib import Path

import pytest
from testbed.bed import Bed, Node, Snapshot
from testbed.broker import Broker
from testbed.run import BedError

from tests.node import small_disk
from tests.support.installed import read_config, use_tenta, wait_until_connected, write_config
from tests.support.recorder import Recorder

HOUR = 3600
NOTES = "/run/ivy-node"
REPAIR = "/etc/ivy/repair.d/10-modem"
SAYS = "the modem was reset"
REBOOT_SECONDS = 60
TOLD_SECONDS = 30
# What a shell is here, as there is no terminal that it could wait at.
DROP_INS = {
    "emergency.service": "[Service]\nType=simple\nExecStart=\nExecStart=sleep infinity\nStandardInput=null\n",
    "ivy-try-again.timer": "[Timer]\nOnActiveSec=\nOnActiveSec=2s\n",
}


@pytest.fixture(scope="module")
def appliance(bed: Bed, installed: Snapshot, node_package: Path) -> Generator[Node, None, None]:
    """A node with both packages, whose own timer looks at nothing."""
    node = bed.node("appliance", base=installed)
    node.boot()
    before = starts(node)
    install(node, node_package)
    assert starts(node) == before, "a service was restarted"
    node.copy_in(Path("debian/tests/appliance"), "/root/appliance")
    node.run(["/root/appliance"])
    node.run(["systemctl", "disable", "--now", "ivy-lost.timer"])
    yield node
    node.destroy()


def install(node: Node, package: Path) -> None:
    node.copy_in(package, "/root/ivy-node.deb")
    node.run(["apt-get", "install", "--yes", "/root/ivy-node.deb"], timeout=120)


def starts(node: Node) -> str:
    """When each service of ivy was started, and when its target was."""
    wanted = "--property=Id,ActiveEnterTimestampMonotonic,InvocationID"
    units = ["ivy.target", "ivy-dummy-procedure.service", "ivy-system-checks.service"]
    return node.run(["systemctl", "show", wanted, *units]).stdout


def look(node: Node) -> None:
    node.run(["systemctl", "start", "ivy-lost.service"], timeout=120)


def look_and_reboot(node: Node) -> None:
    """What it does takes the node down. Then it is booted, as nothing does that with a container of the bed."""
    node.run(["systemctl", "start", "--no-block", "ivy-lost.service"])
    wait_for_reboot(node)


def let_pass(node: Node, note: str, seconds: int) -> None:
    """Make it so many seconds more since something was noted."""
    path = node.path(NOTES) / note
    path.write_text(f"{int(path.read_text()) - seconds}\n")


def wait_for_reboot(node: Node) -> None:
    node.wait_for(lambda: not node.running, REBOOT_SECONDS, "the node to go down")
    assert "Reached target reboot.target" in node.journal("--lines=100")
    node.boot()


def test_its_settings_are_in_force(appliance: Node) -> None:
    manager = appliance.run(["systemctl", "show", "--property=RuntimeWatchdogUSec,RebootWatchdogUSec"]).stdout
    assert manager.split() == ["RuntimeWatchdogUSec=5min", "RebootWatchdogUSec=10min"]
    for file, setting in (
        ("system.conf", "CrashAction=reboot"),
        ("journald.conf", "SystemMaxUse=200M"),
    ):
        said = appliance.run(["systemd-analyze", "cat-config", f"systemd/{file}"]).stdout
        assert setting in said.splitlines()
    tell = ["env", "SYSTEMD_LOG_LEVEL=debug", "/usr/lib/systemd/systemd-sysctl", "--prefix=kernel.panic"]
    assert "/kernel/panic' to '10'" in appliance.run(tell).stderr
    unknown = [line for line in appliance.journal("--boot").splitlines() if "ivy-node" in line and "nknown" in line]
    assert unknown == []


def test_the_doctor_says_what_is_on(appliance: Node) -> None:
    said = appliance.run(["ivy", "doctor", "--json"], check=False).stdout
    found = {finding["text"] for finding in json.loads(said) if finding["check"] == "machine"}
    assert "a hang is ended by a watchdog: impossible here, as there is no /dev/watchdog" in found
    for what in ("a crash of systemd leads to a reboot", "a boot that ends in a shell is made again"):
        assert f"{what}: on" in found
    assert "the journal is bounded: on, by 200M" in found


def test_a_link_that_is_away_is_repaired_then_the_machine_reboots_and_says_so(
    appliance: Node, broker: Broker, recorder: Recorder
) -> None:
    node = appliance
    program = node.path("/etc/ivy/repair.d") / "10-modem"
    program.write_text(f"#!/bin/sh\necho {SAYS}\necho x >> /var/lib/ran\n")
    program.chmod(0o755)
    ran = node.path("/var/lib/ran")
    config = read_config(node)
    write_config(node, config | {"node": {"hours_until_repair": 1, "hours_until_reboot": 3}})
    use_tenta(node, broker, backend={"max_drain_time": 0})
    look(node)
    assert not (node.path(NOTES) / "away").exists()
    broker.stop()
    node.wait_for(lambda: node.run(["ivy", "link"]).stdout == "away 3600 10800\n", 30, "the link to be missed")
    look(node)
    let_pass(node, "away", HOUR - 100)
    look(node)
    assert not ran.exists()
    let_pass(node, "away", 200)
    for _ in range(2):
        look(node)
        assert ran.read_text() == "x\n", "once an hour at most"
    let_pass(node, "repaired", HOUR)
    look(node)
    assert ran.read_text() == "x\nx\n"
    let_pass(node, "away", 2 * HOUR)
    look_and_reboot(node)
    look(node)
    assert not (node.path(NOTES) / "repaired").exists(), "a boot begins the hours again"
    broker.start()
    wait_until_connected(node)
    look(node)
    for what in (SAYS, "reboots of the machine because the link was away: 1"):
        recorder.wait_for_element("logs", TOLD_SECONDS, f"the operator to read: {what}", what)
    config = read_config(node)
    config["backend"] = None
    write_config(node, config)
    node.run(["ivy", "restart"])
    look(node)
    assert not (node.path(NOTES) / "away").exists(), "without a backend no link can be away"


@pytest.mark.thorough
def test_a_release_that_cannot_tell_of_the_link_is_not_needed(appliance: Node) -> None:
    """As one that is older than the package."""
    older = appliance.path("/usr/local/bin") / "ivy"
    older.write_text("#!/bin/sh\nexit 2\n")
    older.chmod(0o755)
    answer = appliance.path(NOTES) / "answer"
    answer.unlink()
    look(appliance)
    older.unlink()
    assert answer.read_text() == "none 3600 10800\n"


def test_a_disk_that_takes_nothing_is_checked_by_a_reboot_once_a_day(appliance: Node) -> None:
    node = appliance
    small_disk.insert(node)
    tool = node.path("/usr/local/sbin") / "tune2fs"
    tool.write_text('#!/bin/sh\necho "$@" >> /var/lib/checked\n')
    tool.chmod(0o755)
    look(node)
    assert not (node.path(NOTES) / "sick").exists()
    small_disk.fail(node)
    for do in (look_and_reboot, look):  # the second time nothing has mended it, and it is not a day later
        node.wait_for(lambda: node.path("/run/ivy/queue-trouble").exists(), 30, "the disk to be missed")
        look(node)
        let_pass(node, "sick", HOUR)
        do(node)
    assert node.path("/var/lib/checked").read_text().startswith("-E force_fsck /dev/loop")
    assert node.path("/var/lib/checked").read_text().count("\n") == 1


@pytest.mark.thorough
def test_a_boot_that_ends_in_a_shell_is_made_again(appliance: Node) -> None:
    node = appliance
    for unit, text in DROP_INS.items():
        drop_in = node.path("/etc/systemd/system") / f"{unit}.d" / "90-test.conf"
        drop_in.parent.mkdir(exist_ok=True)
        drop_in.write_text(text)
    fstab = node.path("/etc/fstab")
    before = fstab.read_text() if fstab.exists() else ""
    fstab.write_text("nothing /mnt tmpfs no-such-option 0 0\n")
    node.poweroff()
    with pytest.raises(BedError):  # so it ends before it has booted
        node.boot()
    assert "boots again in five minutes" in node.journal("--unit=emergency.service")
    fstab.write_text(before)
    wait_for_reboot(node)


def test_purging_it_undoes_it_and_restarts_nothing(appliance: Node) -> None:
    before = starts(appliance)
    appliance.run(["apt-get", "purge", "--yes", "ivy-node"], timeout=120)
    assert starts(appliance) == before
    manager = appliance.run(["systemctl", "show", "--value", "--property=RuntimeWatchdogUSec"]).stdout
    assert manager == "0\n"
    for name in ("*ivy-node*", "*ivy-lost*", "repair.d"):
        find = ["find", "/etc", "/run", "/usr", "/var", "-name", name, "-not", "-path", "*/dpkg/*"]
        assert appliance.run(find).stdout == ""
