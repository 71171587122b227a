"""Brokers that misbehave in a way that can be told them: silent, talking nonsense, or sparing with PUBACKs.

Speaks just enough MQTT 3.1.1 for one client at a time.
"""

import json
import socket
import threading
from typing import Any, Self

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
        with self._lock:
            return sum(count for _, count in self._waiting)

    def acknowledge_one(self) -> None:
        """Acknowledge the publication that has waited longest."""
        with self._lock:
            identifier, _ = self._waiting.pop(0)
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
