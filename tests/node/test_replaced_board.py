"""A node goes from one board to another while it runs, and from a dead board's card: nothing is lost on the way."""

import json
from collections.abc import Callable

import pytest
from testbed.bed import Node
from testbed.broker import Broker
from testbed.run import run

from tests.support.backend_node import SENSOR
from tests.support.installed import queue_length, read_config, use_tenta, wait_until_connected
from tests.support.recorder import Recorder

OFTEN = {"system_checks": {"seconds_between_checks": 1}}
SECONDS = 60
_LISTED = """
import sqlite3
queue = sqlite3.connect("/var/lib/ivy/data/active-message-queue.sqlite3", timeout=30)
print(queue.execute("SELECT COUNT(*) FROM QUEUE").fetchone()[0])
"""


def waiting(node: Node) -> int:
    """How many messages wait."""
    return int(node.run(["/usr/bin/python3", "-c", _LISTED]).stdout)


def samples(node: Node) -> set[float]:
    """When the samples of its archive were taken."""
    said = node.run(["ivy", "messages", "--since", "2020-01-01", "--kind", "data", "--json"]).stdout
    return {json.loads(line)["timestamp"] for line in said.splitlines()}


def arrived(recorder: Recorder) -> set[float]:
    return {element["timestamp"] for element in recorder.elements("measurements")}


def owners(node: Node) -> set[str]:
    """Of all that is in the data directory."""
    found = node.run(["find", "/var/lib/ivy/data", "-not", "-type", "s", "-printf", "%g %M %p\\n"])
    return {line for line in found.stdout.splitlines() if not line.startswith("ivy ")}


def wait_for_more(node: Node, count: int) -> None:
    node.wait_for(lambda: waiting(node) >= count, SECONDS, f"{count} messages in the queue")


def check(old: Node, new: Node, taken: set[float], own: set[float], recorder: Recorder) -> None:
    """The new board is the node, sends what the old one could not, and has kept its own."""
    assert read_config(new)["general"]["system_identifier"] == SENSOR
    assert taken <= samples(new) and own <= samples(new)
    assert owners(new) == set()
    wait_until_connected(new)
    new.wait_for(lambda: taken | own <= arrived(recorder), SECONDS, "all samples of both boards at the broker")
    new.wait_for(lambda: queue_length(new) < 5, SECONDS, "a queue that is sent")
    assert json.loads(new.run(["ivy", "status", "--json"], check=False).stdout)["system_identifier"] == SENSOR


def test_a_running_node_goes_to_another_board(
    new_node: Callable[[str], Node], broker: Broker, recorder: Recorder
) -> None:
    old, new = new_node("old"), new_node("new")
    use_tenta(old, broker, **OFTEN)
    old.wait_for(lambda: arrived(recorder), SECONDS, "a first sample")
    old.link(up=False)
    before = waiting(old)
    wait_for_more(old, before + 5)
    own = samples(new)
    assert own  # it samples since it was installed, and has no backend
    taken = samples(old)  # while it is exported, more are
    old.run(["ivy", "export", "--secrets", "/root/old.tar"])
    assert "active" in old.run(["systemctl", "is-active", "ivy-system-checks"]).stdout
    exported = old.path("/root/old.tar")
    old.run(["systemctl", "disable", "--now", "ivy.target"])
    new.copy_in(exported, "/root/old.tar")
    print(new.run(["ivy", "import", "/root/old.tar"], timeout=SECONDS).stdout)
    check(old, new, taken, own, recorder)


@pytest.mark.thorough
def test_a_board_that_died_is_replaced_by_its_card(
    new_node: Callable[[str], Node], broker: Broker, recorder: Recorder
) -> None:
    old, new = new_node("dead"), new_node("fresh")
    use_tenta(old, broker, **OFTEN)
    old.link(up=False)
    wait_for_more(old, 5)
    taken = samples(old)
    old.cut()
    own = samples(new)
    for directory in ("var/lib", "etc"):
        new.path(f"/mnt/{directory}").mkdir(parents=True)
        run(["cp", "--archive", old.path(f"/{directory}/ivy"), new.path(f"/mnt/{directory}")])
    said = new.run(
        ["ivy", "messages", "--since", "2020-01-01", "--kind", "data", "--json", "--data", "/mnt"]
    ).stdout
    assert {json.loads(line)["timestamp"] for line in said.splitlines()} >= {max(taken)}
    print(new.run(["ivy", "import", "--from", "/mnt"], timeout=SECONDS).stdout)
    check(old, new, taken, own, recorder)
