"""What takes a node away from its operator: without anybody's help it is back, or goes on meanwhile."""

import time
from collections.abc import Callable

from testbed.bed import Machine
from testbed.waiting import wait_for

from tests.support.installed import unit_property
from tests.support.recorder import Recorder
from tests.support.sampling import procedure_unit
from tests.vm.card import wait_for_new_samples, write

HUNGRY = '''\
"""Takes memory until there is none."""

from ivy.types.config import Config
from ivy.utils import notify
from ivy.utils.logger import Logger


def run(config: Config, logger: Logger) -> None:
    taken = []
    while True:
        taken.append(b"x" * 2**20)
        notify.sleep(0.01)
'''
OTHERS = ("ivy-dummy-procedure", "ivy-system-checks", "ivy-tenta")
NOTES = "/run/ivy-node"
DATA = "/var/lib/ivy"
LONG_AGO = -1_000_000  # seconds, by the kernel's clock
REBOOT_SECONDS = 300
TOLD_SECONDS = 120
Record = Callable[[str, object], None]


def properties(machine: Machine, name: str) -> dict[str, str]:
    return {unit: unit_property(machine, unit, name) for unit in OTHERS}


def test_a_procedure_that_eats_memory_is_ended_and_the_node_samples_on(
    node: Machine, recorder: Recorder, record_property: Record
) -> None:
    release = node.run(["readlink", "--canonicalize", f"{DATA}/current"]).stdout.strip()
    write(node, f"{release}/ivy/procedures/hungry_procedure.py", HUNGRY)
    write(node, f"{release}/units/ivy-hungry-procedure.service", procedure_unit("hungry-procedure"))
    # Or what differs from it were taken for damage.
    node.run(["rm", "--force", f"{release}/manifest", f"{release}/manifest.bytecode"])
    before, began = properties(node, "MainPID"), time.monotonic()
    node.run(["ivy", "start"])

    def restarts() -> int:
        return int(unit_property(node, "ivy-hungry-procedure", "NRestarts") or 0)

    wait_for(lambda: restarts() >= 2, 120, "the procedure to be started twice more", interval=1)
    record_property("seconds to the second restart", round(time.monotonic() - began))
    kernel = node.run(["journalctl", "--dmesg", "--boot", "--output=cat", "--grep=oom-kill:"]).stdout
    assert "constraint=CONSTRAINT_MEMCG" in kernel and "ivy-hungry-procedure.service" in kernel
    assert "constraint=CONSTRAINT_NONE" not in kernel, (
        "the machine's memory was at an end, not what the unit may take"
    )
    assert properties(node, "MainPID") == before, "only that procedure was ended"
    wait_for_new_samples(recorder, "samples beside a procedure that eats memory")
    told = recorder.wait_for_element("logs", TOLD_SECONDS, "the operator to read of it", "hungry-procedure")
    record_property("the operator reads", told["message"])


def comes_back(machine: Machine, recorder: Recorder, record: Record, before: str, began: float) -> None:
    """After its reset it boots and delivers; `before` is the boot that ended, `began` when its trouble did."""
    record("seconds to reset", round(time.monotonic() - began))
    machine.wait_booted(but_not=before)
    record("seconds to boot", round(time.monotonic() - began))
    wait_for_new_samples(recorder, "samples after the reboot")
    record("seconds to deliver", round(time.monotonic() - began))


def test_a_lost_network_ends_in_a_reboot(node: Machine, recorder: Recorder, record_property: Record) -> None:
    """The cable is out until then. Half a day without a link is what a note says, as the test has none."""
    looks = f"until test -e {NOTES}/away; do systemctl start ivy-lost; sleep 5; done"
    hurry = f"{looks}; echo {LONG_AGO} >{NOTES}/away; systemctl start ivy-lost"
    wait_for_new_samples(recorder, "samples while the cable is in")
    before, began = node.boot_id(), time.monotonic()
    node.run(["systemd-run", "--quiet", "--unit=hurry", "sh", "-c", hurry])
    node.link(False)
    try:
        assert node.wait_for_reset(REBOOT_SECONDS * 3) == "RESET"
    finally:
        node.link(True)
    comes_back(node, recorder, record_property, before, began)
    node.run(["systemctl", "start", "ivy-lost"])
    said = "reboots of the machine because the link was away: 1"
    recorder.wait_for_element("logs", TOLD_SECONDS, "the operator to read of it", said)


def give_up(place: str) -> str:
    """A shell command that lets the kernel find an error of the file system there. It prints the name of the device
    before, as nothing may be read from then on."""
    device = f"$(findmnt --noheadings --output=SOURCE --target {place})"
    return f"device={device}; echo $device; echo test >/sys/fs/ext4/${{device##*/}}/trigger_fs_error"


def is_sound(machine: Machine, device: str) -> bool:
    """As after a check, and not before."""
    head = machine.run(["dumpe2fs", "-h", device]).stdout
    return "Filesystem state:         clean" in head and "FS Error count" not in head


def test_data_that_the_kernel_gives_up_are_checked_at_a_reboot(
    node: Machine, recorder: Recorder, record_property: Record
) -> None:
    """From the error on that file system takes nothing, and the node delivers; then the machine reboots."""
    before, began = node.boot_id(), time.monotonic()
    device = node.run(["sh", "-c", give_up(DATA)]).stdout.strip()
    assert node.run(["touch", f"{DATA}/written"], check=False).returncode != 0
    trouble = ["test", "-e", "/run/ivy/queue-trouble"]
    wait_for(lambda: node.run(trouble, check=False).returncode == 0, 120, "the trouble to be noted", interval=1)
    wait_for_new_samples(recorder, "samples while the card takes nothing")
    node.run(["systemctl", "start", "ivy-lost"])
    node.run(["sh", "-c", f"for note in sick began; do echo {LONG_AGO} >{NOTES}/$note; done"])
    assert node.run_until_reset("systemctl start ivy-lost", REBOOT_SECONDS) == "RESET"
    comes_back(node, recorder, record_property, before, began)
    assert is_sound(node, device)
    node.run(["touch", f"{DATA}/written"])


def look_in_a_hurry(machine: Machine) -> None:
    """Seconds between what are minutes else. The timer must not come to the limit alone."""
    service = "[Service]\nRestartSec=2s\nTimeoutStartSec=10s\nTimeoutStopSec=1s\n"
    timer = "[Timer]\nOnUnitActiveSec=\nOnActiveSec=1s\nOnUnitActiveSec=1min\n"
    for kind, text in (("service", service), ("timer", timer)):
        drop_in = f"/run/systemd/system/ivy-programs.{kind}.d"
        machine.run(["mkdir", "-p", drop_in])
        write(machine, f"{drop_in}/90-hurry.conf", text)
    machine.run(["sh", "-c", "systemctl daemon-reload; systemctl restart ivy-programs.timer"])


def test_a_system_that_the_kernel_gives_up_is_reset_and_checked(
    node: Machine, recorder: Recorder, record_property: Record
) -> None:
    """Debian 13's kernel reads nothing of it from then on: nobody comes in, and no program starts."""
    before, began = node.boot_id(), time.monotonic()
    look_in_a_hurry(node)
    device = node.run(["findmnt", "--noheadings", "--output=SOURCE", "/"]).stdout.strip()
    assert node.run_until_reset(give_up("/"), REBOOT_SECONDS) == "RESET"
    comes_back(node, recorder, record_property, before, began)
    assert is_sound(node, device)
    node.run(["touch", "/written"])


def test_a_disk_that_answers_no_more_ends_in_a_reset(
    node: Machine, recorder: Recorder, record_property: Record
) -> None:
    """The kernel's own threads hang, too. Where systemd waits for the disk itself, as it does here when it starts
    what is not in memory, the watchdog bites; else it counts the starts that come to nothing."""
    before, began = node.boot_id(), time.monotonic()
    look_in_a_hurry(node)
    record_property("event", node.hang_disk_until_reset(REBOOT_SECONDS * 3))
    comes_back(node, recorder, record_property, before, began)
