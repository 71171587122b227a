"""Delivered means that somebody has it: a Tenta that is away behind a broker that is there, brokers that say no.

The recorder must not be here: where somebody subscribes to everything, a broker always has somebody to give it to.
"""

import json
import math
import time
from collections.abc import Generator
from typing import Any

import pytest
from testbed.broker import OPERATOR, Broker
from testbed.waiting import wait_for

from ivy.cli.doctor import checks_network
from ivy.types import link_report
from tests.broker.configs import config_for
from tests.broker.fake import Broker5
from tests.support.backend_node import PASSWORD, SENSOR, MakeNode, Node, config_message, data_message, ended
from tests.support.tenta_server import TentaServer

NOBODY = "nobody listens at the broker: is the server running?"
HASTY = {"to_try_again": 0.02}
SOON = {"to_probe": 0.1, "longest_to_probe": 0.4}
LOG = {"variant": "log", "level": "ERROR", "subject": "s", "body": "b"}
SECONDS_AWAY = 6


@pytest.fixture
def server(broker: Broker) -> Generator[TentaServer, None, None]:
    """A server that runs."""
    server = TentaServer(broker.address, broker.port, OPERATOR, PASSWORD)
    server.start()
    yield server
    server.close()


def _sample(node: Node, first: int, count: int, seconds: float = 0.0) -> None:
    for number in range(first, first + count):
        node.add(data_message(number=number))
        time.sleep(seconds / count)


def _wait_for(server: TentaServer, count: int) -> None:
    wait_for(lambda: set(server.numbers()) == set(range(count)), 90, f"{count} samples to be stored", interval=0.2)


def _wait_for_trouble(node: Node, text: str) -> None:
    wait_for(lambda: any(text in trouble for trouble in node.link.get("troubles", [])), 20, f"the trouble {text!r}")


def test_a_server_that_is_away_costs_no_sample(node: Node, server: TentaServer) -> None:
    node.start()
    _sample(node, 0, 50)
    _wait_for(server, 50)
    server.stop()
    _sample(node, 50, 200, seconds=SECONDS_AWAY)
    _wait_for_trouble(node, NOBODY)
    assert node.link["connected"] and node.link["nobody_listens"]
    assert node.queue_length() >= 190
    server.start()
    _sample(node, 250, 50)
    _wait_for(server, 300)
    node.wait_until_empty(20)
    wait_for(lambda: not node.link["troubles"] and not node.link["nobody_listens"], 10, "the end of the trouble")
    assert len(server.numbers()) == 300, "and nothing comes twice"


def test_a_broker_that_is_restarted_costs_no_sample(node: Node, broker: Broker, server: TentaServer) -> None:
    node.start()
    _sample(node, 0, 50)
    _wait_for(server, 50)
    broker.restart()
    _sample(node, 50, 50)
    wait_for(server.is_connected, 30, "the server to come back")
    _wait_for_trouble(node, NOBODY)
    assert node.queue_length() == 50
    server.subscribe()
    _wait_for(server, 100)
    node.wait_until_empty(20)


def test_both_at_once_cost_no_sample(node: Node, broker: Broker, server: TentaServer) -> None:
    node.start(hurry=HASTY)
    _sample(node, 0, 50)
    _wait_for(server, 50)
    server.stop()
    _sample(node, 50, 50, seconds=1)
    broker.restart()
    _sample(node, 100, 50, seconds=1)
    server.start()
    _wait_for(server, 150)
    broker.restart()
    wait_for(server.is_connected, 30, "the server to come back")
    _sample(node, 150, 50)
    _wait_for_trouble(node, NOBODY)
    server.stop()
    server.start()
    _wait_for(server, 200)
    node.wait_until_empty(20)


def test_of_a_backlog_one_message_asks_and_the_others_wait(node: Node, broker: Broker) -> None:
    server = TentaServer(broker.address, broker.port, OPERATOR, PASSWORD)
    node.fill(data_message(number=number) for number in range(5000))
    node.start(hurry=SOON | {"between_reports": 0.1})
    _wait_for_trouble(node, NOBODY)
    asked = _publications(broker)
    wait_for(lambda: _publications(broker) >= asked + 3, 20, "further questions")
    lines = [line for line in broker.log.read_text().splitlines() if "Received PUBLISH" in line]
    assert all("bytes" in line and int(line.rpartition("(")[2].split()[0]) < 200 for line in lines[-3:])
    assert node.queue_length() == 5000
    assert any(NOBODY in text for text in node.status.texts), "systemctl status shows it"
    assert node.log.count(NOBODY) == 1, "and the journal once"
    server.start()
    _wait_for(server, 5000)
    server.close()


def _publications(broker: Broker) -> int:
    return broker.log.read_text().count("Received PUBLISH")


def test_what_nobody_wants_keeps_nothing_else_from_being_sent(node: Node, broker: Broker) -> None:
    """Topic by topic: here nobody subscribes to logs and acknowledgments, of which there are more than a window."""
    server = TentaServer(broker.address, broker.port, OPERATOR, PASSWORD, kinds=("measurements",))
    server.start()
    node.fill(data_message(number=number) for number in range(100))
    node.fill([config_message("accepted", 2), LOG] * 200)
    node.start(hurry=SOON)
    _wait_for(server, 100)
    node.add(data_message(number=100))
    _wait_for(server, 101)
    wait_for(lambda: node.queue_length() == 400, 20, "the samples to leave the queue")
    assert {trouble.split("/")[0] for trouble in node.link["troubles"]} == {"logs", "acknowledgments"}
    server.stop()
    _sample(node, 101, 10)
    wait_for(lambda: len(node.link["troubles"]) == 3, 20, "the third topic to be closed")
    other = TentaServer(broker.address, broker.port, OPERATOR, PASSWORD, kinds=("logs",))
    other.start()
    wait_for(lambda: len(other.elements("logs")) == 200, 30, "the logs")
    other.close()
    wait_for(lambda: node.queue_length() == 210, 20, "the logs to leave the queue")


def test_a_backend_that_is_told_to_stop_does_not_wait_for_a_server(make_node: MakeNode, broker: Broker) -> None:
    node = make_node(broker.port, max_drain_time=600)
    node.add(data_message(number=1))
    process = node.start()
    _wait_for_trouble(node, NOBODY)
    process.terminate()
    assert ended(process) == 0
    assert node.queue_length() == 1


def test_doctor_says_that_nobody_listens(node: Node, broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    node.add(data_message(number=1))
    node.start()
    _wait_for_trouble(node, NOBODY)
    monkeypatch.setattr(link_report, "LINK_REPORT_FILE", str(node.data / "run-backend" / "link.json"))
    [login] = [each for each in checks_network.backend(config_for(broker.port)) if each.check == "login"]
    assert not login.ok and NOBODY in login.text and f"measurements/{SENSOR}" in login.text


class Judging(Broker5):
    """Answers with a code that the test chooses."""

    code: int | None = 0

    def __init__(self) -> None:
        self.judged: list[tuple[float, int]] = []
        """When publications came, monotonic, and of how many messages."""
        super().__init__()

    def judge(self, topic: str, elements: list[Any]) -> int | None:
        self.judged.append((time.monotonic(), len(elements)))
        return self.code

    def bursts(self, seconds_between: float) -> list[tuple[float, int]]:
        """The same of those that came together."""
        found: list[tuple[float, int]] = []
        last = -math.inf
        for at, count in list(self.judged):
            if at - last > seconds_between:
                found.append((at, 0))
            found[-1] = (found[-1][0], found[-1][1] + count)
            last = at
        return found


def test_a_topic_that_is_forbidden_is_named(make_node: MakeNode) -> None:
    with Judging() as broker:
        broker.code = 0x87
        node = make_node(broker.port)
        node.add(data_message(number=1))
        node.start(hurry=SOON)
        _wait_for_trouble(node, f"measurements/{SENSOR}: Not authorized")
        assert "general.system_identifier" in json.dumps(node.link["troubles"])
        assert not node.link["nobody_listens"]
        broker.code = 0
        node.wait_until_empty()
        assert broker.connections == 1


class TakingAllButTheFirst(Broker5):
    """Nobody has the first part of a sample, and somebody the others."""

    parts = 0

    def judge(self, topic: str, elements: list[Any]) -> int:
        self.parts += topic.endswith("telemetry")
        return 0x10 if self.parts == 1 else 0


def test_a_message_of_which_a_part_was_not_delivered_stays(make_node: MakeNode) -> None:
    with TakingAllButTheFirst() as broker:
        node = make_node(broker.port, provider="thingsboard")
        data = {f"key {number}": "x" * 1000 for number in range(200)}
        node.add({"variant": "data", "data": data})
        node.start(hurry=SOON)
        node.wait_until_empty()
        arrived: dict[str, Any] = {}
        for topic, element in broker.arrived:
            if topic.endswith("telemetry"):
                arrived |= element["values"]
        assert arrived == data


def test_mosquitto_that_forbids_a_topic_costs_no_sample(make_node: MakeNode, broker: Broker) -> None:
    """By 3.1.1 it acknowledges, and throws it away."""
    node = make_node(broker.port)
    node.config["general"]["system_identifier"] = "another-name"
    node.write_config(node.config)
    node.add(data_message(number=1))
    node.start()
    _wait_for_trouble(node, "measurements/another-name: Not authorized")
    assert node.queue_length() == 1


def test_a_platform_that_is_asked_for_too_much_is_asked_for_less(make_node: MakeNode) -> None:
    with Judging() as broker:
        broker.code = 0x97
        node = make_node(broker.port)
        node.fill(data_message(number=number) for number in range(100))
        # Either process may be kept waiting for half a second, and bursts are told apart all the same.
        node.start(hurry={"to_slow_down": 1.0, "longest_to_slow_down": 1.5})
        wait_for(lambda: len(broker.bursts(0.5)) >= 5, 20, "some refusals")
        began, messages = zip(*broker.bursts(0.5)[:4], strict=True)
        assert began[3] - began[0] >= 0.9 * (1.0 + 1.5 + 1.5) - 0.5
        assert list(messages) == sorted(messages, reverse=True) and messages[3] < messages[0]
        broker.code = 0
        node.wait_until_empty(20)
        assert set(broker.numbers()) == set(range(100))
        assert broker.connections == 1


@pytest.mark.parametrize(
    ("code", "words"),
    [(0x97, "this node sends more than it may"), (0x99, "the platform cannot read it")],
    ids=["a quota", "the only message"],
)
def test_refusals_that_last_are_a_trouble_although_no_topic_is_closed(
    make_node: MakeNode, code: int, words: str
) -> None:
    """Each is an answer, and the connection stays: without this, all would seem to be well."""
    with Judging() as broker:
        broker.code = code
        node = make_node(broker.port)
        node.add(data_message(number=1))
        delays = {"to_slow_down": 0.2, "longest_to_slow_down": 0.2, "of_a_suspect": 0.2, "until_stuck": 1.0}
        node.start(hurry=delays)
        wait_for(lambda: broker.judged, 10, "the first refusal")
        assert node.link["troubles"] == []
        _wait_for_trouble(node, words)
        assert time.monotonic() - broker.judged[0][0] >= 0.9
        assert node.log.count("Messages wait") == 1
        broker.code = 0
        node.wait_until_empty(20)
        wait_for(lambda: node.link["troubles"] == [], 10, "the end of the trouble")
        assert broker.connections == 1
