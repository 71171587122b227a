"""A subscriber that writes down what arrives at a broker. Judges nothing."""

import json
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from testbed.run import PATIENCE
from testbed.waiting import wait_for

_MOST_REPEATED = 10_000  # as many as a broker may have sent before it hears of the first


@dataclass(frozen=True)
class Arrival:
    """One PUBLISH, when it came, and as it came."""

    time: float
    topic: str
    payload: bytes
    qos: int


class Recorder:
    """Subscribes to everything with a session of its own at the broker, so that it misses nothing while away."""

    def __init__(
        self, address: str, port: int, username: str, password: str, authority: Path | None = None
    ) -> None:
        self.arrivals: list[Arrival] = []
        self._subscribed = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id="recorder", clean_session=False)
        self._client.username_pw_set(username, password)
        if authority:  # whose certificate the broker has
            self._client.tls_set(str(authority))
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = lambda client, *_: client.subscribe("#", qos=1)
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._record
        self._client.connect(address, port, keepalive=5)
        self._client.loop_start()
        if not self._subscribed.wait(PATIENCE * 10):
            raise TimeoutError("the recorder could not subscribe")

    def _record(self, _client: paho.Client, _data: Any, message: paho.MQTTMessage) -> None:
        recent = self.arrivals[-_MOST_REPEATED:] if message.dup else []
        if any((arrival.topic, arrival.payload) == (message.topic, message.payload) for arrival in recent):
            return  # the broker had not heard that it arrived, and repeats it: not the node
        self.arrivals.append(Arrival(time.time(), message.topic, message.payload, message.qos))

    def publish(self, topic: str, payload: str | bytes, *, retain: bool = False) -> None:
        """Publish as the operator, with QoS 1."""
        wait_for(self._client.is_connected, 10, "the recorder's connection")
        published = self._client.publish(topic, payload, qos=1, retain=retain)
        wait_for(published.is_published, 10, "the broker to take what the recorder publishes", interval=0.005)

    def publish_later(self, topic: str, payload: str | bytes) -> None:
        """The same, in its turn after those before, without waiting for it."""
        self._client.publish(topic, payload, qos=1)

    def timed_elements(self, kind: str, first: int = 0) -> list[tuple[Arrival, dict[str, Any]]]:
        """All array elements of a Tenta topic: `measurements`, `logs` or `acknowledgments`.

        Args:
            kind: The topic without the sensor.
            first: The arrival to begin with; -5 leaves out all but the last five.
        """
        return [pair for arrival in self.arrivals[first:] for pair in _elements(arrival, kind)]

    def elements(self, kind: str, first: int = 0) -> list[dict[str, Any]]:
        """The same without their arrivals."""
        return [element for _, element in self.timed_elements(kind, first)]

    def wait_for_element(self, kind: str, timeout: float, what: str, *contained: str) -> dict[str, Any]:
        """The first element of a kind whose JSON text contains all of the given texts."""

        def find() -> dict[str, Any] | None:
            for element in self.elements(kind):
                if all(text in json.dumps(element) for text in contained):
                    return element
            return None

        return wait_for(find, timeout, what)

    def close(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()


def _elements(arrival: Arrival, kind: str) -> list[tuple[Arrival, dict[str, Any]]]:
    if not arrival.topic.startswith(f"{kind}/"):
        return []
    return [(arrival, element) for element in json.loads(arrival.payload)]
