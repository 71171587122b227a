"""A backlog does not flood the platform, and live samples do not wait behind it."""

import time

import pytest
from testbed.broker import Broker
from testbed.waiting import wait_for

from tests.support.backend_node import MakeNode, Node, data_message
from tests.support.recorder import Recorder

SPEED = 200
BACKLOG = 1200


def test_a_backlog_is_sent_at_the_speed_of_the_config_and_live_samples_at_once(
    make_node: MakeNode, broker: Broker, recorder: Recorder
) -> None:
    node = make_node(broker.port, max_messages_per_second=SPEED)
    node.fill(data_message(number=number) for number in range(BACKLOG))
    node.start()
    node.wait_until_connected()
    for number in range(3):
        before, began = node.queue_length(), time.monotonic()
        node.add(data_message(live=number))
        recorder.wait_for_element("measurements", 5, "the live sample", f'"live": {number}')
        assert node.queue_length() > before - SPEED * (2 + time.monotonic() - began), "it did not come last"
    node.wait_until_empty(60)
    assert _seconds_connected(node) >= BACKLOG / SPEED - 2


def _seconds_connected(node: Node) -> float:
    """By the node's own account: this process may see it late."""
    return time.time() - float(node.link["since"])


@pytest.mark.usefixtures("recorder")
def test_tenta_is_not_flooded_by_a_config_that_says_nothing(make_node: MakeNode, broker: Broker) -> None:
    node = make_node(broker.port, max_messages_per_second=None)
    node.fill(data_message(number=number) for number in range(4000))
    node.start()
    node.wait_until_connected()
    wait_for(lambda: node.queue_length() == 0, 60, "the queue to be empty")
    assert _seconds_connected(node) >= 2.5
