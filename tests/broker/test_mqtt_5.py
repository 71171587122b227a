"""MQTT 5, and 3.1.1 where that is what there is: which is spoken, what the broker may ask for, what it says."""

import os
import time
from pathlib import Path
from typing import Any

import pytest
from testbed.broker import Broker
from testbed.waiting import wait_for

from ivy.backend.delays import Backoff
from ivy.backend.mqtt_link import Acknowledged, Connected, Disconnected, MQTTLink
from ivy.cli.doctor import checks_network
from ivy.types.config import MQTTBrokerConfig
from tests.broker.configs import config_for
from tests.broker.fake import Broker5, FakeBroker
from tests.support import mqtt_packets as mqtt
from tests.support.backend_node import PASSWORD, SENSOR, MakeNode, Node, data_message
from tests.support.recorder import Recorder

HASTY = {"to_try_again": 0.02}
BOTH = (mqtt.MQTT_5, mqtt.MQTT_3_1_1)
LOG = {"variant": "log", "level": "ERROR", "subject": "s", "body": "b"}


def _versions(broker: Broker5) -> list[int]:
    return [connect.version for connect in broker.connects]


def _wait_for_reason(node: Node, *texts: str) -> None:
    wait_for(lambda: all(text in str(node.link.get("reason")) for text in texts), 20, f"the reason {texts}")


def test_mosquitto_is_spoken_to_by_mqtt_5(node: Node, broker: Broker) -> None:
    node.start()
    node.wait_until_connected()
    assert "by MQTT 5" in node.log
    assert "p5" in broker.log.read_text()  # what it says of a connection: the version of the protocol


@pytest.mark.parametrize(
    "answer",
    [
        mqtt.connack(mqtt.MQTT_5, 0x84),
        mqtt.connack(mqtt.MQTT_3_1_1, 1),
        mqtt.connack(mqtt.MQTT_3_1_1, 0x84),
        mqtt.connack(mqtt.MQTT_3_1_1, 0),  # it knows no version, and answers as if it were its own
        b"",
        None,
    ],
    ids=["0x84", "1", "0x84 in another form", "an answer of 3.1.1", "closed", "silence"],
)
def test_a_broker_without_mqtt_5_is_spoken_to_by_3_1_1(make_node: MakeNode, answer: bytes | None) -> None:
    with Broker5((mqtt.MQTT_3_1_1,)) as broker:
        broker.refusal_of_version = answer
        node = make_node(broker.port)
        node.add(data_message(number=1))
        node.start(hurry={"to_connect": 3.0})
        node.wait_until_empty()
        assert _versions(broker) == list(BOTH)
        assert broker.numbers() == [1]
        assert "by MQTT 3.1.1" in node.log
        assert "No connection" not in node.log, "to try the other version is no trouble"


def test_what_a_broker_speaks_is_remembered(make_node: MakeNode) -> None:
    with Broker5((mqtt.MQTT_3_1_1,)) as broker:
        node = make_node(broker.port)
        node.start(hurry=HASTY)
        since = 0.0
        for _ in range(3):
            # Another one: that of before is in the report until its end was seen.
            wait_for(
                lambda since=since: node.link.get("connected") and node.link["since"] > since,  # type: ignore[misc]
                10,
                "a connection",
            )
            since = node.link["since"]
            broker.cut()
        assert _versions(broker)[:4] == [mqtt.MQTT_5, *[mqtt.MQTT_3_1_1] * 3]


@pytest.mark.parametrize(("protocol", "version"), [("5", mqtt.MQTT_5), ("3.1.1", mqtt.MQTT_3_1_1)])
def test_the_config_can_say_which_version(make_node: MakeNode, protocol: str, version: int) -> None:
    with Broker5(BOTH) as broker:
        node = make_node(broker.port, protocol=protocol)
        node.start()
        node.wait_until_connected()
        assert _versions(broker) == [version]


@pytest.mark.parametrize(
    ("protocol", "spoken", "answer"),
    [
        ("5", mqtt.MQTT_3_1_1, mqtt.connack(mqtt.MQTT_3_1_1, 1)),
        ("5", mqtt.MQTT_3_1_1, mqtt.connack(mqtt.MQTT_5, 0x84)),
        ("3.1.1", mqtt.MQTT_5, mqtt.connack(mqtt.MQTT_3_1_1, 1)),
    ],
)
def test_a_broker_that_wants_another_version_is_said_to(
    make_node: MakeNode, protocol: str, spoken: int, answer: bytes
) -> None:
    with Broker5((spoken,)) as broker:
        broker.refusal_of_version = answer
        node = make_node(broker.port, protocol=protocol)
        node.start(hurry=HASTY)
        _wait_for_reason(node, f"does not speak MQTT {protocol}", "set backend.mqtt_connection.protocol to null")
        login = checks_network.login(config_for(broker.port, protocol=protocol).backend.mqtt_connection)  # type: ignore[union-attr]
        assert login is not None and "set backend.mqtt_connection.protocol" in login


def test_who_looks_whether_a_login_is_possible_tries_both() -> None:
    with Broker5((mqtt.MQTT_3_1_1,)) as broker:
        broker.refusal_of_version = b""
        settings = MQTTBrokerConfig(
            host="127.0.0.1", port=broker.port, client_id=SENSOR, username=SENSOR, password=PASSWORD
        )
        assert checks_network.login(settings) is None


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0x85, "set another client_id"),
        (0x87, "check client_id, username and password"),
        (0x88, "nothing needs to be done here"),
        (0x8A, "only the broker's admin"),
        (0x9D, "set host"),
    ],
)
def test_a_refusal_says_what_to_do(make_node: MakeNode, code: int, words: str) -> None:
    class Refusing(FakeBroker):
        def _converse(self, connection: Any) -> None:
            connection.recv(65536)
            connection.sendall(mqtt.connack(mqtt.MQTT_5, code, reason_string="because\x1b[2J"))

    with Refusing() as broker:
        node = make_node(broker.port)
        node.start(hurry=HASTY)
        _wait_for_reason(node, "refused the connection", words, '"because [2J"')


@pytest.mark.parametrize("code", [1, 2, 3, 4, 5])
def test_a_refusal_by_3_1_1_says_what_to_do(make_node: MakeNode, code: int) -> None:
    words = {1: "protocol to null", 2: "client_id", 3: "trouble", 4: "check client_id", 5: "check client_id"}

    class Refusing(FakeBroker):
        def _converse(self, connection: Any) -> None:
            connection.recv(65536)
            connection.sendall(mqtt.connack(mqtt.MQTT_3_1_1, code))

    with Refusing() as broker:
        node = make_node(broker.port, protocol="3.1.1")
        node.start(hurry=HASTY)
        _wait_for_reason(node, "refused the connection", words[code])


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0x8B, "Server shutting down (nothing needs to be done here)"),
        (0x8E, "another client has the same client_id: is it in the config of another node?"),
        (0x95, "Packet too large"),
        (0x97, "this node sends more than it may"),
        (0xEE, "reason 238"),
    ],
)
def test_why_a_broker_ends_a_connection_is_said(make_node: MakeNode, code: int, words: str) -> None:
    """Also where its packet says nothing else, which paho does not read."""
    with Broker5() as broker:
        node = make_node(broker.port)
        node.start(hurry=HASTY)
        for packet in (mqtt.disconnect(code), mqtt.disconnect(code, reason_string="because")):
            node.wait_until_connected()
            since = node.link["since"]
            broker.end(packet)
            wait_for(lambda since=since: node.link["since"] > since, 10, "the end")  # type: ignore[misc]
        wait_for(lambda: '"because"' in node.log, 10, "the broker's own words")
        assert node.log.count(f"127.0.0.1:{broker.port} ended the connection: ") == 2
        assert words in node.log


def test_a_subscription_that_is_refused_is_explained(make_node: MakeNode, tmp_path: Path) -> None:
    """Mosquitto answers each subscription with yes; others look at the name first."""

    class Refusing(FakeBroker):
        def _converse(self, connection: Any) -> None:
            with connection.makefile("rb") as stream:
                mqtt.read(stream)
                connection.sendall(mqtt.connack(mqtt.MQTT_5, 0))
                identifier, _ = mqtt.read_subscribe(mqtt.MQTT_5, mqtt.read(stream)[2])
                connection.sendall(mqtt.suback(mqtt.MQTT_5, identifier, b"\x87"))
                stream.read()

    with Refusing() as broker:
        node = make_node(broker.port)
        node.start(hurry=HASTY)
        _wait_for_reason(node, "refused the subscription", f"configurations/{SENSOR}", "system_identifier")


def test_no_more_publications_are_under_way_than_the_broker_takes(make_node: MakeNode) -> None:
    with Broker5(receive_maximum=2) as broker:
        broker.holds = True
        node = make_node(broker.port, max_parallel_messages=500)
        large = [data_message(**{f"k{n}": n for n in range(2000)}) for _ in range(30)]
        node.fill([*large, *[LOG] * 20, *[data_message(number=number, text="x") for number in range(100)]])
        node.start(hurry={"between_reports": 0.05})
        wait_for(lambda: len(broker.topics) >= 2, 10, "publications")
        while node.queue_length():
            assert broker.most_unacknowledged <= 2
            broker.release()
            time.sleep(0.01)
        assert broker.most_unacknowledged == 2


def test_where_few_publications_may_be_under_way_each_is_as_large_as_the_window(make_node: MakeNode) -> None:
    with Broker5(receive_maximum=1) as broker:
        node = make_node(broker.port, max_parallel_messages=500)
        node.fill(data_message(number=number) for number in range(10_000))
        node.start()
        node.wait_until_empty(30)
        assert max(broker.sizes) > 15_000, "some two hundred messages"


def test_no_packet_is_larger_than_the_broker_takes(make_node: MakeNode) -> None:
    with Broker5(maximum_packet_size=1000) as broker:
        node = make_node(broker.port)
        node.fill(data_message(number=number) for number in range(200))
        node.start()
        node.wait_until_empty(20)
        assert sorted(broker.numbers()) == list(range(200))
        assert max(broker.sizes) + 5 <= 1000
        assert broker.connections == 1


def test_the_broker_is_told_how_large_a_packet_may_be(make_node: MakeNode) -> None:
    with Broker5() as broker:
        make_node(broker.port).start()
        wait_for(lambda: broker.connects, 10, "the connection")
        said = broker.connects[0].properties
        assert 65_536 < said["maximum_packet_size"] <= 1 << 20
        assert said.get("session_expiry", 0) == 0


def test_the_broker_chooses_how_often_it_wants_to_hear_of_us(make_node: MakeNode) -> None:
    with Broker5(server_keep_alive=1) as broker:
        make_node(broker.port).start()
        wait_for(lambda: broker.pings >= 3, 15, "three pings")
        assert broker.connections == 1


def test_a_topic_is_sent_once_for_each_connection(make_node: MakeNode) -> None:
    with Broker5(topic_alias_maximum=1) as broker:
        node = make_node(broker.port, max_parallel_messages=1)
        node.fill(data_message(number=number) for number in range(5))
        node.start(hurry=HASTY)
        node.wait_until_empty()
        topic = f"measurements/{SENSOR}"
        assert broker.topics == [(topic, 1), *[("", 1)] * 4]
        node.add(LOG)
        node.wait_until_empty()
        assert broker.topics[5:] == [(f"logs/{SENSOR}", None)], "it takes one alias only"
        broker.cut()
        node.add(data_message(number=5))
        node.wait_until_empty()
        assert broker.topics[6:] == [(topic, 1)], "another connection knows none"
        assert sorted(broker.numbers()) == list(range(6))


def test_mosquitto_takes_topics_by_their_numbers(make_node: MakeNode, broker: Broker, recorder: Recorder) -> None:
    node = make_node(broker.port, max_parallel_messages=1)
    node.fill([data_message(number=1), LOG] * 10)
    node.start()
    node.wait_until_empty()
    received = [line for line in broker.log.read_text().splitlines() if "Received PUBLISH" in line]
    assert sum(f"'measurements/{SENSOR}'" in line for line in received) == 10


@pytest.mark.parametrize(("code", "delays"), [(0x8E, [0.01, 0.02, 0.04]), (0x8B, [0.0, 0.0, 0.0])])
def test_two_clients_of_one_name_leave_each_other_some_time(code: int, delays: list[float]) -> None:
    """0x8E is "session taken over". After others one that has delivered something is made again at once."""
    settings = MQTTBrokerConfig(host="127.0.0.1", port=1, client_id="c", username="u", password="p")
    nobody, found = os.eventfd(0), list[float]()
    with Broker5() as broker:
        link = MQTTLink(settings.model_copy(update={"port": broker.port}), (), Backoff(lambda least, most: 0.01))
        while len(found) < len(delays):
            for event in link.wait(nobody, 20):
                match event:
                    case Connected():
                        link.publish("measurements/c", b"[]")
                    case Acknowledged():
                        time.sleep(0.01)
                        broker.end(mqtt.disconnect(code))
                    case Disconnected(seconds_to_next_try=delay):
                        found.append(round(delay, 3))
        link.close()
    os.close(nobody)
    assert found == delays
