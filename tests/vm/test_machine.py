"""The image of a card in a machine of its own: it boots, grows, delivers, and comes back from what fells it."""

import json
import time
from collections.abc import Callable

import pytest
from testbed.bed import Machine

from tests.support.recorder import Recorder
from tests.vm.card import wait_for_new_samples

GIB = 1024**3
Record = Callable[[str, object], None]


def test_it_is_a_node(seen: Machine) -> None:
    status = json.loads(seen.run(["ivy", "status", "--json"], check=False).stdout)
    assert status["queue"]["length"] < 100
    failed = seen.run(["systemctl", "list-units", "--failed", "--plain", "--no-legend"]).stdout
    assert failed == ""


def test_the_data_have_what_the_card_has_left(seen: Machine) -> None:
    size = seen.run(["df", "--output=size", "--block-size=1", "/var/lib/ivy"]).stdout.split()[-1]
    assert int(size) > 2 * GIB  # of 8, where the system has 4.5


def test_nobody_comes_in_by_a_password(seen: Machine) -> None:
    shadow = seen.run(["cat", "/etc/shadow"]).stdout.splitlines()
    assert {line.split(":")[1][:1] for line in shadow} <= {"*", "!"}
    effective = seen.run(["/usr/sbin/sshd", "-T"]).stdout
    assert "passwordauthentication no" in effective and "kbdinteractiveauthentication no" in effective


def test_only_root_reads_what_lies_on_the_boot_partition(seen: Machine) -> None:
    assert seen.run(["stat", "--format=%a %U", "/boot/firmware"]).stdout == "700 root\n"


def test_it_is_back_after_a_power_cut(node: Machine, recorder: Recorder, record_property: Record) -> None:
    before = node.boot_id()
    node.cut()
    began = time.monotonic()
    node.start()
    node.wait_booted(but_not=before)
    record_property("seconds to boot", round(time.monotonic() - began))
    wait_for_new_samples(recorder, "samples after the power cut")
    record_property("seconds to deliver", round(time.monotonic() - began))


@pytest.mark.parametrize("fate", ["panic", "freeze"])
def test_it_comes_back_by_itself(fate: str, node: Machine, recorder: Recorder, record_property: Record) -> None:
    """A kernel that panics reboots; a PID 1 that does nothing any more is ended by the watchdog."""
    before, began = node.boot_id(), time.monotonic()
    event = node.panic_until_reset() if fate == "panic" else node.freeze_until_reset()
    record_property("event", event)
    record_property("seconds to reset", round(time.monotonic() - began))
    node.wait_booted(but_not=before)
    record_property("seconds to boot", round(time.monotonic() - began))
    wait_for_new_samples(recorder, f"samples after {fate}")
    record_property("seconds to deliver", round(time.monotonic() - began))
    assert event == ("RESET" if fate == "panic" else "WATCHDOG")
