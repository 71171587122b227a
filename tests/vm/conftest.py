"""Machines with a kernel of their own, from the image that packaging/image --board generic made; minutes each."""

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from card.layout import Layout
from testbed.bed import Bed, Machine
from testbed.broker import OPERATOR, Broker
from testbed.emulation import architecture

from tests.support.backend_node import PASSWORD
from tests.support.beds import bed
from tests.support.recorder import Recorder
from tests.support.releases import THIS
from tests.vm.card import FIRST, offer

__all__ = ["bed"]


@pytest.fixture(scope="session")
def image() -> Path:
    card = Layout(THIS.replace("-", "~"), "generic", architecture())
    found = Path("dist", f"{card.name}.img.xz").absolute()
    if not found.exists():
        pytest.fail(f"there is no {found.name}: packaging/image --board generic --arch {card.arch} makes it")
    return found


@pytest.fixture(scope="session")
def broker(bed: Bed) -> Generator[Broker, None, None]:
    users = {OPERATOR: PASSWORD, FIRST: PASSWORD}
    with Broker(bed.address, users=users, directory=bed.directory / "broker") as broker:
        yield broker


@pytest.fixture(scope="session")
def recorder(broker: Broker) -> Recorder:
    return Recorder(broker.address, broker.port, OPERATOR, PASSWORD)


@pytest.fixture(scope="session")
def first(bed: Bed, image: Path) -> Machine:
    return bed.machine("first", image, {})


@pytest.fixture(scope="session")
def delivering(first: Machine, broker: Broker, recorder: Recorder) -> Machine:
    """The first machine, which sends; and a snapshot `delivering`, to come back to."""
    first.boot()
    offer(first, broker, FIRST)
    recorder.wait_for_element("measurements", 120, "a sample of the machine", '"')
    first.save("delivering")
    return first


@pytest.fixture
def node(delivering: Machine, recorder: Recorder) -> Generator[Machine, None, None]:
    """The same, as it was then."""
    delivering.cut()
    delivering.boot("delivering")
    yield delivering
    delivering.cut()


@pytest.fixture
def seen(delivering: Machine) -> Machine:
    """The same for tests that only look, which may come after others."""
    if not delivering.running:
        delivering.boot("delivering")
    return delivering


def pytest_terminal_summary(terminalreporter: Any) -> None:
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            terminalreporter.line(f"{report.nodeid.rpartition('::')[2]}: {name}: {json.dumps(value)}")
