"""A stand-in for Tenta behind a broker, with the habits of the real one (2025-01), which cost it messages.

By MQTT 5, its session ends with its connection. After the broker was restarted it connects again, and does not
subscribe until it is restarted itself. So what comes meanwhile nobody has, and a broker says so to who sends it.
"""

import json
import threading
import time
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from testbed.run import PATIENCE
from testbed.waiting import wait_for

from tests.support.recorder import Arrival

KINDS = ("measurements", "logs", "acknowledgments")


class TentaServer:
    """Stores what it is given, in memory."""

    def __init__(
        self, address: str, port: int, username: str, password: str, kinds: tuple[str, ...] = KINDS
    ) -> None:
        """Not running yet.

        Args:
            address: The broker's.
            port: The broker's.
            username: Whose rights it has there.
            password: To that.
            kinds: What it subscribes to.
        """
        self.arrivals: list[Arrival] = []
        self.keeps = True
        """Whether what arrives is stored."""
        self._where = (address, port)
        self._login = (username, password)
        self._topics = [(f"{kind}/+", 1) for kind in kinds]
        self._client: paho.Client | None = None
        self._is_done = threading.Event()

    def start(self) -> None:
        """Connect and subscribe."""
        client = paho.Client(CallbackAPIVersion.VERSION2, client_id="tenta-server", protocol=paho.MQTTv5)
        client.username_pw_set(*self._login)
        client.reconnect_delay_set(1, 1)
        client.on_subscribe = client.on_unsubscribe = lambda *_: self._is_done.set()
        client.on_message = self._store
        client.connect(*self._where)
        client.loop_start()
        self._client = client
        self.subscribe()

    def subscribe(self) -> None:
        """Subscribe, which it does by itself only when it is started."""
        client = self._running()
        wait_for(client.is_connected, 20, "the server's connection")
        self._is_done.clear()
        client.subscribe(self._topics)
        self._wait()

    def stop(self) -> None:
        """Go away. What the broker has given to it is stored first."""
        client, self._client = self._running(), None
        self._is_done.clear()
        if client.is_connected():
            client.unsubscribe([topic for topic, _ in self._topics])
            self._wait()
        client.disconnect()
        client.loop_stop()

    def close(self) -> None:
        """End, if it runs."""
        if self._client is not None:
            self._client.disconnect()
            self._client.loop_stop()

    def is_connected(self) -> bool:
        """Whether it is connected, which does not mean that it gets anything."""
        return self._client is not None and self._client.is_connected()

    def elements(self, kind: str) -> list[dict[str, Any]]:
        """All that was stored of a kind, in the order of its arrival."""
        found = [arrival for arrival in list(self.arrivals) if arrival.topic.startswith(f"{kind}/")]
        return [element for arrival in found for element in json.loads(arrival.payload)]

    def numbers(self) -> list[Any]:
        """The value `number` of all measurements."""
        return [element["value"]["number"] for element in self.elements("measurements")]

    def _running(self) -> paho.Client:
        if self._client is None:
            raise AssertionError("the server does not run")
        return self._client

    def _wait(self) -> None:
        if not self._is_done.wait(PATIENCE * 20):
            raise TimeoutError("the broker does not answer the server")

    def _store(self, _client: paho.Client, _data: Any, message: paho.MQTTMessage) -> None:
        if self.keeps:
            self.arrivals.append(Arrival(time.time(), message.topic, message.payload, message.qos))
