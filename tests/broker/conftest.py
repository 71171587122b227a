"""A real Mosquitto on loopback, set up like a Tenta deployment, and nodes that talk to it."""

from collections.abc import Generator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from testbed.broker import Broker

from tests.support.backend_node import PASSWORD, SENSOR, MakeNode, Node, free_port
from tests.support.recorder import Recorder


@pytest.fixture
def broker(tmp_path: Path) -> Generator[Broker, None, None]:
    """A running broker that knows the node and an operator."""
    users = {SENSOR: PASSWORD, "operator": PASSWORD}
    with Broker("127.0.0.1", free_port(), users, directory=tmp_path / "broker") as broker:
        yield broker


@pytest.fixture
def recorder(broker: Broker) -> Generator[Recorder, None, None]:
    """An operator who writes down everything that arrives at the broker."""
    recorder = Recorder(broker.address, broker.port, "operator", PASSWORD)
    yield recorder
    recorder.close()


@pytest.fixture
def make_node(tmp_path: Path) -> Generator[MakeNode, None, None]:
    """Makes nodes: arguments as for `Node`, without the directory."""
    with ExitStack() as stack:

        def make(port: int, **backend: Any) -> Node:
            return stack.enter_context(Node(tmp_path / "node", port, **backend))

        yield make


@pytest.fixture
def node(make_node: MakeNode, broker: Broker) -> Node:
    """A node, configured for the broker, with its backend not started yet."""
    return make_node(broker.port)
