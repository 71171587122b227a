"""Nodes for the tests: real systemd in containers, ivy installed from the .deb, a real Mosquitto on the bridge."""

from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path

import pytest
from testbed import roots
from testbed.bed import Bed, Node, Snapshot
from testbed.broker import Broker

from tests.support import installed as recipe
from tests.support.backend_node import PASSWORD, SENSOR
from tests.support.beds import bed, furnished, node_package, package
from tests.support.installed import install, keep_answer
from tests.support.recorder import Recorder
from tests.support.update_site import UpdateSite, with_tenta

__all__ = ["bed", "furnished", "node_package", "package"]

pytest.register_assert_rewrite("tests.node.aftermath", "tests.node.hostile_site")


@pytest.fixture(scope="session")
def installed(bed: Bed, package: Path, furnished: Snapshot) -> Snapshot:
    """The disk of a node right after `apt install`, powered off; other nodes start from it in a second.

    It is made once for a package: sessions that run beside this one need the same.
    """

    def make() -> Path:
        node = bed.node("installer", base=furnished)
        node.boot()
        install(node, package)
        keep_answer(node)
        frozen = node.snapshot("installed").layers[0]
        node.destroy()
        return frozen

    made_of = package.read_bytes() + Path(recipe.__file__).read_bytes() + str(furnished.layers).encode()
    return Snapshot("installed", (roots.kept_layer("installed", made_of, make), *furnished.layers))


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
def site(bed: Bed, node: Node, tmp_path: Path) -> Generator[UpdateSite, None, None]:
    """Where a connected node gets its updates, with Tenta as its platform."""
    with closing(with_tenta(bed, node, tmp_path)) as site:
        site.connect()
        yield site


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
    users = {SENSOR: PASSWORD, "operator": PASSWORD}
    with Broker(bed.address, 1883, users, directory=tmp_path / "broker") as broker:
        yield broker


@pytest.fixture
def recorder(broker: Broker) -> Generator[Recorder, None, None]:
    """An operator who writes down everything that arrives."""
    recorder = Recorder(broker.address, broker.port, "operator", PASSWORD)
    yield recorder
    recorder.close()
