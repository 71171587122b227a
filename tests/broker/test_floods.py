"""What comes in floods from a real broker: it costs a node neither memory, nor samples, nor its operator."""

import contextlib
import re
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from testbed.broker import OPERATOR, Broker
from testbed.waiting import wait_for

from tests.broker.offers import TOPIC, offer
from tests.support.backend_node import PASSWORD, MakeNode, Node, Process, data_message
from tests.support.recorder import Recorder

MEGABYTE = 1 << 20


class Flooder:
    """Whoever has the platform; unlike the recorder, it does not get all of it back."""

    def __init__(self, broker: Broker) -> None:
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.username_pw_set(OPERATOR, PASSWORD)
        self._client.connect(broker.address, broker.port)
        self._client.loop_start()

    def publish(self, payload: str | bytes, *, retain: bool = False) -> None:
        """Send what looks like an offer."""
        self._client.publish(TOPIC, payload, qos=1, retain=retain).wait_for_publish(120)

    def close(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def flooder(broker: Broker) -> contextlib.closing[Flooder]:
    return contextlib.closing(Flooder(broker))


def _megabytes(process: Process, what: str) -> float:
    found = re.search(rf"^{what}:\s+(\d+) kB$", Path(f"/proc/{process.pid}/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) / 1024


def _wait_for_offer(node: Node, revision: int) -> None:
    def has_come() -> bool:
        return [config["general"]["config_revision"] for config in node.pending()] == [revision]

    wait_for(has_come, 60, f"offer {revision}")


@pytest.fixture
def old_node(make_node: MakeNode, broker: Broker) -> Node:
    """A node that speaks MQTT 3.1.1, by which it cannot forbid a broker anything."""
    return make_node(broker.port, protocol="3.1.1")


def test_what_is_far_too_large_is_never_in_memory(old_node: Node, flooder: contextlib.closing[Flooder]) -> None:
    node = old_node
    process = node.start()
    node.wait_until_connected()
    before = _megabytes(process, "VmRSS")
    with flooder as operator:
        operator.publish(bytes(200 * MEGABYTE))
        wait_for(lambda: "A config offer was ignored" in node.log, 60, "the report")
        wait_for(lambda: node.link["connected"], 60, "the next connection")
        # Nobody keeps it for a node that does not listen yet.
        operator.publish(offer(4), retain=True)
        _wait_for_offer(node, 4)
    print(f"{before:.0f} MB, {_megabytes(process, 'VmHWM'):.0f} at most, {_megabytes(process, 'VmRSS'):.0f} now")
    assert _megabytes(process, "VmHWM") < before + 64
    assert process.poll() is None


def test_no_flood_of_what_is_too_large_gathers_in_memory(node: Node, flooder: contextlib.closing[Flooder]) -> None:
    process = node.start()
    node.wait_until_connected()
    before = _megabytes(process, "VmRSS")
    with flooder as operator:
        for number in range(200):
            operator.publish(number.to_bytes(2, "big") + bytes(MEGABYTE - 1000))
        operator.publish(offer(4))
        _wait_for_offer(node, 4)
    assert _megabytes(process, "VmHWM") < before + 64


def test_by_mqtt_5_what_is_far_too_large_does_not_come(
    node: Node, recorder: Recorder, flooder: contextlib.closing[Flooder]
) -> None:
    with flooder as operator:
        operator.publish(bytes(20 * MEGABYTE), retain=True)
        process = node.start()
        node.wait_until_connected()
        operator.publish(bytes(20 * MEGABYTE))
        node.add(data_message(number=1))
        node.wait_until_empty()
        operator.publish(offer(4))
        _wait_for_offer(node, 4)
    assert node.log.count("Connected to") == 1
    read = re.search(r"^rchar: (\d+)$", Path(f"/proc/{process.pid}/io").read_text(), re.MULTILINE)
    assert read and int(read[1]) < 20 * MEGABYTE


def test_what_is_far_too_large_at_each_connect_stops_no_message(
    old_node: Node, recorder: Recorder, flooder: contextlib.closing[Flooder]
) -> None:
    node = old_node
    with flooder as operator:
        operator.publish(bytes(20 * MEGABYTE), retain=True)
        process = node.start()
        wait_for(lambda: node.log.count("sent a packet of") >= 3, 60, "some tries")
        node.add(*(data_message(number=number) for number in range(200)))
        wait_for(lambda: node.queue_length() == 0, 60, "the queue to be empty")
        tries = [float(seconds) for seconds in re.findall("listened to again in ([0-9]+) s", node.log)]
        assert max(tries[2:]) >= 2, "there is no pause that grows"
        assert node.log.count("A config offer was ignored") == 1
        operator.publish(offer(4), retain=True)  # takes its place
        _wait_for_offer(node, 4)
    assert process.poll() is None


def _written(process: Process) -> float:
    """Megabytes that a process has handed to the kernel to be written, by whatever call."""
    found = re.search(r"^wchar: (\d+)$", Path(f"/proc/{process.pid}/io").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) / MEGABYTE


def test_of_many_offers_the_last_waits_and_little_is_written(
    node: Node, flooder: contextlib.closing[Flooder]
) -> None:
    """The first good one, 300 large ones, and the last good one, which is what the operator wants."""
    process = node.start()
    node.wait_until_connected()
    with flooder as operator:
        operator.publish(offer(4))
        _wait_for_offer(node, 4)
        before = _written(process)
        for number in range(300):
            operator.publish(offer(5 + number, x="x" * 58_000))
        operator.publish(offer(7, good=True))
        wait_for(lambda: node.pending() and node.pending()[0].get("good"), 60, "the last offer")
        written = _written(process) - before
    print(f"{written:.1f} MB written")
    assert [config["general"]["config_revision"] for config in node.pending()] == [7]
    assert (node.data / "backend" / "state.json").stat().st_size < 10_000
    # However slow this machine is: as many are stored before there is a long pause.
    assert written < 40 * 0.5
    assert len(node.archive()) < 41 * 120_000
