"""Nodes for the tests: real systemd in containers, ivy installed from the .deb, a real Mosquitto on the bridge."""

import json
import os
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from testbed import roots
from testbed.bed import Bed, Node, Snapshot
from testbed.broker import Broker

from tests.support.backend_node import PASSWORD
from tests.support.recorder import Recorder
from tests.support.releases import THIS

pytest.register_assert_rewrite("tests.node.aftermath")
BACKEND_READY_SECONDS = 30


@pytest.fixture(scope="session")
def package() -> Path:
    """The .deb under test, as packaging/build-deb made it."""
    return Path("dist", f"ivy_{THIS.replace('-', '~')}_all.deb")


@pytest.fixture(scope="session")
def bed() -> Generator[Bed, None, None]:
    bed = Bed(os.environ.get("IVY_TESTBED", "tests"))  # another name, to run beside other tests
    bed.down()  # of a run that was killed
    with bed:
        yield bed


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

    made_of = package.read_bytes() + Path(__file__).read_bytes() + str(root).encode()
    return Snapshot("installed", (roots.kept_layer("installed", made_of, make), root))


def install(node: Node, package: Path) -> None:
    """What a user does, on a node that is not disturbed by this machine's other work."""
    be_calm(node)
    inside = f"/root/{package.name}"
    node.copy_in(package, inside)
    node.run(["apt-get", "install", "--yes", inside], timeout=300)


def be_calm(node: Node) -> None:
    """Hide this machine's load, which a container shares and under which the random walk pauses."""
    node.path("/etc").joinpath("calm-loadavg").write_text("0.10 0.10 0.10 1/100 100\n")
    drop_in = node.path("/etc/systemd/system") / "ivy-system-checks.service.d" / "91-calm.conf"
    drop_in.parent.mkdir(exist_ok=True)
    drop_in.write_text("[Service]\nBindReadOnlyPaths=/etc/calm-loadavg:/proc/loadavg\n")


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


def read_config(node: Node) -> dict[str, Any]:
    config: dict[str, Any] = json.loads(node.path("/etc/ivy/config.json").read_text())
    return config


def write_config(node: Node, config: dict[str, Any]) -> None:
    """As an admin's editor would: in place, through the link in /etc."""
    node.path("/etc/ivy/config.json").write_text(json.dumps(config, indent=4))


def use_tenta(node: Node, broker: Broker, **settings: Any) -> None:
    """Configure Tenta and restart, as an admin would; returns when the backend is connected."""
    use_backend(node, "tenta", broker.address, broker.port, **settings)


def use_backend(node: Node, provider: str, host: str, port: int, **settings: Any) -> None:
    """The same for any platform."""
    config = read_config(node)
    config["general"]["system_identifier"] = "n1"
    config["backend"] = {
        "provider": provider,
        "mqtt_connection": {
            "host": host,
            "port": port,
            "client_id": "n1",
            "username": "n1",
            "password": PASSWORD,
        },
        **settings.pop("backend", {}),
    }
    config.update(settings)
    write_config(node, config)
    node.run(["ivy", "restart"])
    wait_until_connected(node, provider)


def wait_until_connected(node: Node, provider: str = "tenta") -> None:
    def connected() -> bool:
        return unit_property(node, f"ivy-{provider}", "StatusText").startswith("connected to")

    node.wait_for(connected, BACKEND_READY_SECONDS, "the backend to connect")


def unit_property(node: Node, unit: str, name: str) -> str:
    """A property of a unit, as `systemctl show` tells it."""
    return node.run(["systemctl", "show", "--value", f"--property={name}", f"{unit}.service"]).stdout.strip()


def queue_length(node: Node) -> int:
    """Messages in the node's queue, by its own account."""
    status = json.loads(node.run(["ivy", "status", "--json"], check=False).stdout)
    return int(status["queue"]["length"])
