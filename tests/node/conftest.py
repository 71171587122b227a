"""Nodes for the tests: real systemd in containers, ivy installed from the .deb, a real Mosquitto on the bridge."""

from collections.abc import Callable, Generator
from pathlib import Path

import pytest
from testbed import roots
from testbed.bed import Bed, Node, Snapshot
from testbed.broker import Broker

from tests.support import installed as recipe
from tests.support.backend_node import PASSWORD
from tests.support.beds import bed, package
from tests.support.installed import install
from tests.support.recorder import Recorder

__all__ = ["bed", "package"]

pytest.register_assert_rewrite("tests.node.aftermath")


@pytest.fixture(scope="session")
def installed(bed: Bed, package: Path) -> Snapshot:
    """The disk of a node right after `apt install`, powered off; other nodes start from it in a second.

    It is made once for a package: sessions that run beside this one need the same.
    """
    root = roots.node_root()

    def make() -> Path:
        node = bed.node("installer")
        node.boot()
        install(node, package)
        frozen = node.snapshot("installed").layers[0]
        node.destroy()
        return frozen

    made_of = package.read_bytes() + Path(recipe.__file__).read_bytes() + str(root).encode()
    return Snapshot("installed", (roots.kept_layer("installed", made_of, make), root))


@pytest.fixture
def new_node(bed: Bed, installed: Snapshot) -> Generator[Callable[[str], Node], None, None]:
    """Makes running nodes with ivy installed; they are gone after the test."""
    made: list[Node] = []

    def make(name: str) -> Node:
        node = bed.node(name, base=installed)
        made.append(node)
        node.boot()
        return node

    yield make
    for node in made:
        node.destroy()


@pytest.fixture
def node(new_node: Callable[[str], Node]) -> Node:
    """A running node with ivy installed."""
    return new_node("n1")


@pytest.fixture(scope="session")
def ivy_node(bed: Bed, installed: Snapshot) -> Node:
    """A node with ivy installed for tests that only look."""
    node = bed.node("seen", base=installed)
    node.boot()
    return node


@pytest.fixture
def broker(bed: Bed, tmp_path: Path) -> Generator[Broker, None, None]:
    """Mosquitto as a Tenta deployment has it."""
    users = {"n1": PASSWORD, "operator": PASSWORD}
    with Broker(bed.address, 1883, users, directory=tmp_path / "broker") as broker:
        yield broker


@pytest.fixture
def recorder(broker: Broker) -> Generator[Recorder, None, None]:
    """An operator who writes down everything that arrives."""
    recorder = Recorder(broker.address, broker.port, "operator", PASSWORD)
    yield recorder
    recorder.close()
