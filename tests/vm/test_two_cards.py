"""From card to telemetry: two cards of one image with one file of the fleet's, one of them with a mistake in it."""

import json
import re
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
from testbed.bed import Bed, Machine
from testbed.waiting import wait_for

from tests.support.platforms import ThingsBoardPlatform, judged
from tests.support.provisioning import Provisioning
from tests.vm.card import CALM, identity

CARD = "/boot/firmware"
KEY, SECRET = "profile-key", "profile-secret"
REBOOT_SECONDS = 300
TRIAL_SECONDS = 600
Record = Callable[[str, object], None]


@pytest.fixture
def platform(bed: Bed) -> Generator[ThingsBoardPlatform, None, None]:
    """A ThingsBoard that knows no device, and lets whoever has the key and the secret register."""
    with judged(ThingsBoardPlatform(bed.address)) as platform:
        platform.server.provisioning = Provisioning(KEY, SECRET)
        yield platform


@contextmanager
def card(bed: Bed, image: Path, name: str, file: str) -> Generator[Machine, None, None]:
    """A machine with a card that has this `ivy.json`. One at a time, as each takes the whole processor where it is
    emulated."""
    machine = bed.machine(name, image, {"ivy.json": file.encode()})
    try:
        yield machine
    finally:
        machine.destroy()


def report(machine: Machine) -> str:
    """What is on its card for whoever looks after it; empty if there is nothing yet."""
    return machine.run(["cat", f"{CARD}/ivy-report.txt"], check=False).stdout.removeprefix("\N{BOM}")


def check_mistake(machine: Machine) -> None:
    said = report(machine)
    assert "WRONG" in said and re.search(r"ivy\.json: is not valid JSON: line \d+", said), said
    assert SECRET not in said


def correct(machine: Machine, file: str) -> None:
    """At a desk somebody would do that."""
    before = machine.boot_id()
    machine.run(["sh", "-c", f"cat >{CARD}/ivy.json && sync {CARD}/ivy.json"], input=file)
    machine.run_until_reset("systemctl reboot", REBOOT_SECONDS)
    machine.wait_booted(but_not=before)


def wait_for_telemetry(machine: Machine, platform: ThingsBoardPlatform) -> None:
    """It has registered, and says so; its secrets are on the card no more; and the platform has its samples."""
    wait_for(
        lambda: "this node is registered, and delivers" in report(machine),
        TRIAL_SECONDS,
        "the report to say that the node is registered",
        interval=2,
    )
    assert "All is well." in report(machine)
    assert "ivy.json" not in machine.run(["ls", CARD]).stdout.split()
    before = len(platform.samples())
    wait_for(lambda: len(platform.samples()) > before, TRIAL_SECONDS, "its samples", interval=1)


def test_two_cards_of_one_image_are_two_nodes(
    bed: Bed, image: Path, platform: ThingsBoardPlatform, record_property: Record
) -> None:
    server = {"host": platform.address, "port": platform.port, "tls": {"enabled": False}}
    provision = {**server, "provision_key": KEY, "provision_secret": SECRET}
    file = json.dumps({"provision": provision, **CALM}, indent=4)
    found = []
    for name, written in (("second", file.replace('"provision_key"', '"provision_key')), ("third", file)):
        with card(bed, image, name, written) as machine:
            began = time.monotonic()
            machine.boot()
            record_property(f"{name}: seconds to boot", round(time.monotonic() - began))
            if written != file:
                check_mistake(machine)
                correct(machine, file)
                record_property(f"{name}: seconds to boot again", round(time.monotonic() - began))
            wait_for_telemetry(machine, platform)
            record_property(f"{name}: seconds to deliver", round(time.monotonic() - began))
            found.append(identity(machine))
    one, other = found
    assert one.keys() == other.keys()
    for what in one:
        assert one[what] and other[what] and not one[what] & other[what], what
    registered = platform.server.provisioning
    assert registered is not None
    assert set(registered.devices) == one["host name"] | other["host name"]
