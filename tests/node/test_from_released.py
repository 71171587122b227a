"""A node that runs ivy 1.0.0 as it was released gets this package, and goes back: with all that it had stored."""

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from testbed.bed import Bed, Node, Snapshot
from testbed.broker import Broker
from testbed.run import PATIENCE

from tests.node import released
from tests.support.backend_node import PASSWORD, SENSOR
from tests.support.installed import fill_queue, install, queue_length, read_config, unit_property, use_tenta
from tests.support.recorder import Recorder
from tests.support.releases import THIS
from tests.support.update_site import wait_for_sample

BACKLOG = 10_000
SECONDS_TO_DRAIN = 120


@pytest.fixture
def node(bed: Bed, furnished: Snapshot) -> Generator[Node, None, None]:
    """A node as the first ivy has left it."""
    node = bed.node("of-old", base=furnished)
    node.boot()
    install(node, released.package())
    yield node
    node.destroy()


def archived_messages(node: Node) -> list[dict[str, Any]]:
    """What `ivy messages` shows; 1.0.0 does not say by which schema."""
    lines = node.run(["ivy", "messages", "--json"]).stdout.splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != "schema"} for line in lines]


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
    archived = archived_messages(node)
    install(node, package)
    assert version_of(node) == THIS
    assert queue_length(node) >= BACKLOG
    assert archived_messages(node)[: len(archived)] == archived
    config = read_config(node)
    assert config["general"]["software_version"] == THIS
    assert config["backend"]["mqtt_connection"]["password"] == "***"
    assert config["dummy_procedure"] == {"seconds_between_datapoints": 2}
    broker.start()
    node.wait_for(lambda: len(backlog(recorder)) == BACKLOG, SECONDS_TO_DRAIN, "the backlog to arrive")
    wait_for_sample(node, recorder)
    node.run(["ivy", "releases", "--wait", str(PATIENCE * 120)], timeout=150)
    old = node.path("/var/lib/ivy/1.0.0/config/config.json")
    assert old.stat().st_mode & 0o077 == 0, "it has the password inside"
    node.run(["ivy", "rollback"], timeout=300)
    assert version_of(node) == "1.0.0"
    wait_for_sample(node, recorder)
    whole = read_config(node)["backend"]
    assert whole["mqtt_connection"]["password"] == PASSWORD
    # It still hears its operator: its flag is seen although this package's own is elsewhere.
    general = {"config_revision": 7, "software_version": "1.0.0"}
    offer = {
        **config,
        "backend": whole,
        "general": {**config["general"], **general},
        "dummy_procedure": {"seconds_between_datapoints": 1},
    }
    recorder.publish(f"configurations/{SENSOR}", json.dumps({"revision": 7, "configuration": offer}), retain=True)
    node.wait_for(lambda: read_config(node)["general"]["config_revision"] == 7, 60, "the offer to be activated")
    node.wait_for(lambda: unit_property(node, "ivy-updater", "SubState") == "dead", 60, "the pass to end")
    assert read_config(node)["dummy_procedure"] == {"seconds_between_datapoints": 1}
    wait_for_sample(node, recorder)
    later = archived_messages(node)
    assert later[: len(archived)] == archived and len(later) > len(archived)
    node.run(["apt-get", "install", "--yes", "--reinstall", f"/root/{package.name}"], timeout=300)
    node.run(["ivy", "releases", "--wait", str(PATIENCE * 120)], timeout=150)
    assert version_of(node) == THIS
    wait_for_sample(node, recorder)
    assert PASSWORD not in node.path("/var/lib/ivy/current/config/config.json").read_text()
    wrong = ["(", "-not", "-perm", "-0660", "-o", "-not", "-group", "ivy", ")"]
    owned = node.run(["find", "/var/lib/ivy/data", "-not", "-name", "state.json", *wrong]).stdout
    assert owned == "" and unit_property(node, "ivy-tenta", "User") == "ivy-backend"


@pytest.mark.thorough
def test_an_offer_that_waits_is_decided_about_by_this_version(
    node: Node, broker: Broker, recorder: Recorder, package: Path
) -> None:
    use_tenta(node, broker, dummy_procedure={"seconds_between_datapoints": 1})
    node.wait_for(lambda: unit_property(node, "ivy-updater", "SubState") == "dead", 60, "the pass to end")
    node.run(["systemctl", "stop", "ivy-updater.timer", "ivy-updater.path"])  # which a pass that ends has started
    node.wait_for(
        lambda: unit_property(node, "ivy-updater", "SubState") == "dead", 60, "no other pass to have begun"
    )
    config = read_config(node)
    config["general"] |= {"config_revision": 7, "software_version": THIS}
    config["dummy_procedure"] = {"seconds_between_datapoints": 2}
    recorder.publish(f"configurations/{SENSOR}", json.dumps({"revision": 7, "configuration": config}))
    state = node.path("/var/lib/ivy/data/state.json")
    node.wait_for(lambda: '"config_revision": 7' in state.read_text(), 30, "the offer to be stored")
    install(node, package)
    decision = recorder.wait_for_element("acknowledgments", 90, "the decision", '"revision": 7')
    assert decision["success"], recorder.elements("logs")
    assert read_config(node)["dummy_procedure"] == {"seconds_between_datapoints": 2}
