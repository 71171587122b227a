"""Brokers that misbehave in a way that can be told them: silent, talking nonsense, sparing with PUBACKs, or picky.

Each speaks just enough MQTT for one client at a time.
"""

import contextlib
import json
import socket
import threading
from typing import Any, BinaryIO, Self, cast

from tests.support import mqtt_packets as mqtt
from tests.support.listener import Listener

CONNACK = b"\x20\x02\x00\x00"
_PINGRESP = b"\xd0\x00"


class FakeBroker:
    """Counts connections; what one sends it throws away."""

    def __init__(self, port: int = 0) -> None:
        self.connections = 0
        self._open: list[socket.socket] = []
        self._listener = Listener(self._serve, port=port)
        self.port, self.cut = self._listener.port, self._listener.cut

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _serve(self, connection: socket.socket) -> None:
        self.connections += 1
        self._open.append(connection)
        self._converse(connection)

    def _converse(self, connection: socket.socket) -> None:
        while connection.recv(65536):
            continue


class TalkingNonsense(FakeBroker):
    """Answers the CONNECT with given bytes, and then waits for the client to go."""

    def __init__(self, answer: bytes, port: int = 0) -> None:
        self.greetings: list[bytes] = []
        """The first packet of each connection."""
        self._answer = answer
        super().__init__(port)

    def _converse(self, connection: socket.socket) -> None:
        self.greetings.append(connection.recv(65536))
        connection.sendall(self._answer)
        super()._converse(connection)


class HangingUp(FakeBroker):
    """Ends each connection right after the CONNECT."""

    def _converse(self, connection: socket.socket) -> None:
        connection.recv(65536)


class SparingBroker(FakeBroker):
    """Takes publications, and acknowledges them only when told to."""

    def __init__(self, port: int = 0) -> None:
        self.received: list[Any] = []
        """The elements of all arrays so far."""
        self.most_unacknowledged = 0
        """The most elements that were ever waiting for their PUBACK at once."""
        self.generous = False
        """Whether each publication is acknowledged at once."""
        self._waiting: list[tuple[bytes, int]] = []  # identifier of the packet, number of elements
        self._lock = threading.Lock()
        super().__init__(port)

    @property
    def unacknowledged(self) -> int:
        """How many elements are waiting for their PUBACK."""
        return sum(self.waiting)

    @property
    def waiting(self) -> list[int]:
        """How many elements each publication has that is waiting for its PUBACK."""
        with self._lock:
            return [count for _, count in self._waiting]

    def acknowledge_one(self) -> None:
        """Acknowledge the publication that has waited longest, if one does; another thread may have been faster."""
        with self._lock:
            first, self._waiting = self._waiting[:1], self._waiting[1:]
        for identifier, _ in first:
            self._open[-1].sendall(b"\x40\x02" + identifier)

    def _converse(self, connection: socket.socket) -> None:
        with self._lock:
            self._waiting.clear()
        with connection.makefile("rb") as stream:
            while header := stream.read(1):
                body = stream.read(_read_length(stream))
                match header[0] >> 4:
                    case 1:
                        connection.sendall(CONNACK)
                    case 8:
                        connection.sendall(b"\x90\x03" + body[:2] + b"\x01")
                    case 12:
                        connection.sendall(_PINGRESP)
                    case 3:
                        self._take(body)

    def _take(self, body: bytes) -> None:
        start = 2 + int.from_bytes(body[:2], "big")
        elements = json.loads(body[start + 2 :])
        with self._lock:
            self.received += elements
            self._waiting.append((body[start : start + 2], len(elements)))
        self.most_unacknowledged = max(self.most_unacknowledged, self.unacknowledged)
        if self.generous:
            self.acknowledge_one()


def _read_length(stream: Any) -> int:
    length, shift = 0, 0
    while True:
        byte = ord(stream.read(1))
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return length


class Broker5(FakeBroker):
    """Speaks MQTT 5, and 3.1.1 where it is told to; takes publications as it is told."""

    def __init__(self, versions: tuple[int, ...] = (mqtt.MQTT_5,), **terms: int) -> None:
        """Listen.

        Args:
            versions: Those of MQTT that it accepts. Others it refuses, as a broker does that knows MQTT 5.
            terms: What the CONNACK says, where it is one of MQTT 5.
        """
        self.connects: list[mqtt.Connect] = []
        self.topics: list[tuple[str, int | None]] = []
        """Topic and alias of each publication, as it came."""
        self.sizes: list[int] = []
        """Bytes of their packets, but for the first few."""
        self.arrived: list[tuple[str, Any]] = []
        """Topics and elements of what was acknowledged with 0."""
        self.refused: list[list[Any]] = []
        """The elements of what was acknowledged otherwise."""
        self.pings = 0
        self.most_unacknowledged = 0
        self.refusal_of_version: bytes | None = mqtt.connack(mqtt.MQTT_5, 0x84)
        """What a client hears that speaks another version; nothing if None."""
        self._versions = versions
        self._terms = terms
        self._held: list[bytes] = []
        self._lock = threading.Lock()
        self.holds = False
        """Whether PUBACKs are held back."""
        super().__init__()

    def judge(self, topic: str, elements: list[Any]) -> int | None:
        """The code of the PUBACK; None: there will be none. To be overridden."""
        return 0

    def numbers(self) -> list[Any]:
        """All numbers that were taken, in the order of their arrival."""
        return [element["value"]["number"] for _, element in list(self.arrived) if "value" in element]

    def set_terms(self, **terms: int) -> None:
        """What the CONNACK of the next connection says."""
        self._terms = terms

    def end(self, packet: bytes = b"") -> None:
        """Say something, and break the connection."""
        with contextlib.suppress(OSError):
            self._open[-1].sendall(packet)
        self.cut()

    def release(self) -> None:
        """Acknowledge all that was held back."""
        with self._lock:
            held, self._held = self._held, []
        self._open[-1].sendall(b"".join(held))

    def _converse(self, connection: socket.socket) -> None:
        with self._lock:
            self._held.clear()
        with connection.makefile("rb") as stream:
            self._speak(connection, cast("BinaryIO", stream))

    def _speak(self, connection: socket.socket, stream: BinaryIO) -> None:
        said = mqtt.read_connect(mqtt.read(stream)[2])
        self.connects.append(said)
        if said.version not in self._versions:
            if self.refusal_of_version is None:
                stream.read()
            else:
                connection.sendall(self.refusal_of_version)
            return
        connection.sendall(mqtt.connack(said.version, 0, **self._terms))
        aliases: dict[int, str] = {}
        while True:
            kind, flags, body = mqtt.read(stream)
            if kind == mqtt.SUBSCRIBE:
                identifier, wanted = mqtt.read_subscribe(said.version, body)
                connection.sendall(mqtt.suback(said.version, identifier, b"\x01" * len(wanted)))
            elif kind == mqtt.PINGREQ:
                self.pings += 1
                connection.sendall(mqtt.packet(mqtt.PINGRESP, b""))
            elif kind == mqtt.PUBLISH:
                self.sizes.append(len(body))
                self._take5(connection, said.version, mqtt.read_publish(said.version, flags, body), aliases)

    def _take5(self, connection: socket.socket, version: int, said: mqtt.Publish, aliases: dict[int, str]) -> None:
        alias = said.properties.get("topic_alias")
        self.topics.append((said.topic, alias))
        topic = said.topic or aliases[alias or 0]
        if alias is not None:
            aliases[alias] = topic
        elements = json.loads(said.payload)
        code = self.judge(topic, elements)
        if code is None:
            return
        if code == 0:
            self.arrived += [(topic, element) for element in elements]
        else:
            self.refused.append(elements)
        with self._lock:
            self._held.append(mqtt.puback(version, said.identifier, code))
            self.most_unacknowledged = max(self.most_unacknowledged, len(self._held))
        if not self.holds:
            self.release()


class Picky(Broker5):
    """Does not take what has a certain value in it."""

    def __init__(self, code: int | None, poison: float = 13.5) -> None:
        """Refuse it with this code; break the connection over it if None."""
        self.breaks = 0
        self.code = code
        self.poison: set[float] = {poison}
        super().__init__((mqtt.MQTT_5, mqtt.MQTT_3_1_1))

    def judge(self, topic: str, elements: list[Any]) -> int | None:
        if self.poison.isdisjoint(element["value"]["number"] for element in elements if "value" in element):
            return 0
        if self.code is None:
            self.breaks += 1
            self.end()
            raise ConnectionAbortedError
        return self.code
