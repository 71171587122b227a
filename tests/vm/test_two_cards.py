"""A second card of the same image, with a mistake in its ivy.json: another machine, which says so, and takes the
corrected one."""

import json
import re
import time
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
from testbed.bed import Bed, Machine
from testbed.broker import Broker
from testbed.waiting import wait_for

from tests.support.backend_node import PASSWORD
from tests.support.recorder import Recorder
from tests.vm.card import SECOND, identity, tenta

CARD = "/boot/firmware"
REBOOT_SECONDS = 120
TRIAL_SECONDS = 240
Record = Callable[[str, object], None]


@pytest.fixture(scope="module")
def good(broker: Broker) -> str:
    return json.dumps(tenta(broker, SECOND), indent=4)


@pytest.fixture(scope="module")
def second(bed: Bed, image: Path, good: str) -> Generator[Machine, None, None]:
    """Not booted: one machine at a time, as each takes the whole processor where it is emulated."""
    machine = bed.machine("second", image, {"ivy.json": good.replace('"tenta",', '"tenta"').encode()})
    yield machine
    machine.destroy()


def report(machine: Machine) -> str:
    """What is on its card for whoever looks after it; empty if there is nothing yet."""
    return machine.run(["cat", f"{CARD}/ivy-report.txt"], check=False).stdout.removeprefix("\N{BOM}")


def test_two_cards_of_one_image_are_two_machines(node: Machine, second: Machine) -> None:
    one = identity(node)
    node.cut()
    second.boot()
    other = identity(second)
    assert one.keys() == other.keys()
    for what in one:
        assert one[what] and other[what] and not one[what] & other[what], what


def test_what_is_wrong_with_its_config_is_on_the_card_until_it_is_corrected(
    second: Machine, good: str, recorder: Recorder, record_property: Record
) -> None:
    second.boot()
    said = report(second)
    assert "WRONG" in said and re.search(r"ivy\.json: is not valid JSON: line \d+", said), said
    assert PASSWORD not in said
    second.run(["sh", "-c", f"cat >{CARD}/ivy.json && sync {CARD}/ivy.json"], input=good)
    before, began = second.boot_id(), time.monotonic()
    second.run_until_reset("systemctl reboot", REBOOT_SECONDS)
    second.wait_booted(but_not=before)
    record_property("seconds to boot", round(time.monotonic() - began))

    def is_taken() -> bool:
        return "ivy.json: the config of this node" in report(second)

    wait_for(is_taken, TRIAL_SECONDS, "the report to say that the config was taken in", interval=2)
    record_property("seconds to take it in", round(time.monotonic() - began))
    assert "WRONG" not in report(second)
    assert "ivy.json" not in second.run(["ls", CARD]).stdout.split()
    wait_for(
        lambda: any(arrival.topic == f"measurements/{SECOND}" for arrival in recorder.arrivals),
        TRIAL_SECONDS,
        "a sample of the second card",
    )
    record_property("seconds to deliver", round(time.monotonic() - began))
