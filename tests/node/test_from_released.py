"""A node that runs ivy 1.0.0 as it was released gets this package, and goes back: with all that it had stored."""

import json
from collections.abc import Generator
from pathlib import Path

import pytest
from testbed.bed import Bed, Node
from testbed.broker import Broker

from tests.node import released
from tests.support.installed import fill_queue, install, queue_length, read_config, unit_property, use_tenta
from tests.support.recorder import Recorder
from tests.support.releases import THIS
from tests.support.update_site import wait_for_sample

BACKLOG = 10_000
SECONDS_TO_DRAIN = 120


@pytest.fixture
def node(bed: Bed) -> Generator[Node, None, None]:
    """A node as the first ivy has left it."""
    node = bed.node("of-old")
    node.boot()
    install(node, released.package())
    yield node
    node.destroy()


def version_of(node: Node) -> str:
    """The version that runs, by its own account."""
    return str(json.loads(node.run(["ivy", "status", "--json"], check=False).stdout)["version"])


def backlog(recorder: Recorder) -> set[int]:
    """What of it has arrived."""
    elements = recorder.elements("measurements")
    return {element["value"]["backlog"] for element in elements if "backlog" in element["value"]}


def test_nothing_is_lost_on_the_way_to_this_version_and_back(
    node: Node, broker: Broker, recorder: Recorder, package: Path
) -> None:
    use_tenta(node, broker, dummy_procedure={"seconds_between_datapoints": 2})
    wait_for_sample(node, recorder)
    broker.stop()
    node.wait_for(
        lambda: not unit_property(node, "ivy-tenta", "StatusText").startswith("connected"), 30, "the outage"
    )
    fill_queue(node, BACKLOG)
    archived = node.run(["ivy", "messages", "--json"]).stdout.splitlines()
    install(node, package)
    assert version_of(node) == THIS
    assert queue_length(node) >= BACKLOG
    assert node.run(["ivy", "messages", "--json"]).stdout.splitlines()[: len(archived)] == archived
    config = read_config(node)
    assert config["general"]["software_version"] == THIS
    assert config["dummy_procedure"] == {"seconds_between_datapoints": 2}
    broker.start()
    node.wait_for(lambda: len(backlog(recorder)) == BACKLOG, SECONDS_TO_DRAIN, "the backlog to arrive")
    wait_for_sample(node, recorder)
    node.run(["ivy", "rollback"], timeout=300)
    assert version_of(node) == "1.0.0"
    wait_for_sample(node, recorder)
    later = node.run(["ivy", "messages", "--json"]).stdout.splitlines()
    assert later[: len(archived)] == archived and len(later) > len(archived)
    node.run(["apt-get", "install", "--yes", "--reinstall", f"/root/{package.name}"], timeout=300)
    assert version_of(node) == THIS
    wait_for_sample(node, recorder)
