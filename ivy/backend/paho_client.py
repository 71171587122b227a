"""paho's client, with what it lacks: a bound for what comes in, all reasons that a broker gives, its keep-alive.

The only module that knows paho.
"""

import fcntl
import functools
import socket
import sys
import termios
from typing import Any

from ivy.backend.protocol_choice import Protocol

# With dnspython, 3 MB, paho would look up SRV records, which ivy never asks for. Only paho takes it for missing.
# ssl, 2 MB, is needed without TLS too: paho names its errors when a socket of any kind has nothing to read.
_IS_NEW = sys.modules.setdefault("dns", None) is None  # type: ignore[arg-type]  # how Python says "not to be imported"
try:
    import paho.mqtt.client as paho
    from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties
finally:
    if _IS_NEW:
        del sys.modules["dns"]

LARGEST_PACKET = 1 << 20
"""Bytes of what is read, at most. To read this and throw it away costs less than another connection."""


class FarTooLarge(Exception):
    """A packet that is not read."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size


class Client(paho.Client):
    """Breaks off before a packet comes into memory that is far too large: MQTT 3.1.1 cannot forbid it a broker.

    paho understands no reason that MQTT does not list for a kind of packet, and none of a DISCONNECT that says
    nothing else, which is how Mosquitto does it. So they are read here.

    Nor does paho count what leaves: it cannot tell a slow line from one that carries nothing.
    """

    connack_code: int | None = None
    """The number in the CONNACK, as the broker gave it; None before it came."""
    puback_code = 0
    """That of the last PUBACK."""
    disconnect_code: int | None = None
    """That of the DISCONNECT; None if none came."""
    said = ""
    """What the broker added to the last of these, in words."""

    def __init__(self, connection: socket.socket, client_id: str, protocol: Protocol) -> None:
        """Sends nothing yet.

        Args:
            connection: Open already: paho would count the time that opening takes as silence of the broker, and
                tries each address for as long as all of them may take.
            client_id: Its name.
            protocol: The version of MQTT.
        """
        self.is_5 = protocol == "5"
        self._connection = connection
        self._bytes_sent = 0
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=paho.MQTTv5 if self.is_5 else paho.MQTTv311,
            clean_session=None if self.is_5 else True,
            reconnect_on_failure=False,  # it would, blocking, with an older MQTT
        )
        self.max_inflight_messages_set(0)  # the forwarder keeps the window

    def begin(self, host: str, port: int, keepalive: int) -> str:
        """Connect, and send the CONNECT. Returns what went wrong, if paho only says so.

        Raises:
            OSError, ValueError: It went wrong.
        """
        clean: dict[str, Any] = {"clean_start": True, "properties": _connect_properties()} if self.is_5 else {}
        code = self.connect(host, port, keepalive, **clean)
        return "" if code == paho.MQTT_ERR_SUCCESS else paho.error_string(code)

    def send(self, topic: str, payload: bytes, alias: int | None = None) -> int:
        """Publish with QoS 1. Returns the number that the PUBACK will have.

        Args:
            topic: May be empty, if the alias stands for one that was sent before.
            payload: What to publish.
            alias: The number that stands for the topic.
        """
        properties = None if alias is None else _alias_properties(alias)
        return int(self.publish(topic, payload, qos=1, properties=properties).mid)

    def keep_to(self, most_unacknowledged: int, keepalive: int) -> None:
        """Keep to what the broker said when it accepted the connection; paho's own setters are for before that.

        Args:
            most_unacknowledged: How many publications may wait for their PUBACK. paho holds others back.
            keepalive: Seconds without a word of this side.
        """
        self._max_inflight_messages = most_unacknowledged
        self._keepalive = keepalive

    def bytes_carried(self) -> int:
        """Bytes that left: without those that the other end has not confirmed."""
        connection = self.socket()
        if connection is None:
            return 0
        unconfirmed = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4))
        return self._bytes_sent - int.from_bytes(unconfirmed, sys.byteorder)

    def _create_socket(self) -> socket.socket:
        return self._connection

    def _sock_send(self, buf: bytes) -> int:
        sent = super()._sock_send(buf)
        self._bytes_sent += sent
        return sent

    def _sock_recv(self, bufsize: int) -> bytes:
        # paho asks for all that is left of a packet, as soon as it knows how long that is.
        if bufsize > LARGEST_PACKET:
            raise FarTooLarge(bufsize)
        return super()._sock_recv(bufsize)

    def _packet_handle(self) -> MQTTErrorCode:
        kind, packet = self._in_packet["command"] >> 4, bytes(self._in_packet["packet"])
        if kind == PacketTypes.CONNACK and len(packet) >= 2:
            self.connack_code = packet[1]
            self.said = self._reason_string(kind, packet[2:])
        elif self.is_5 and kind == PacketTypes.PUBACK and len(packet) >= 2:
            self.puback_code = packet[2] if len(packet) > 2 else 0
            self.said = self._reason_string(kind, packet[3:])
            self._in_packet["packet"], self._in_packet["remaining_length"] = bytearray(packet[:2]), 2
        elif self.is_5 and kind == PacketTypes.DISCONNECT:
            self.disconnect_code = packet[0] if packet else 0
            self.said = self._reason_string(kind, packet[1:])
            self._in_packet["packet"], self._in_packet["remaining_length"] = bytearray(), 0
        return super()._packet_handle()

    def _reason_string(self, kind: int, packed: bytes) -> str:
        if not self.is_5 or not packed:
            return ""
        properties: Any = _new_properties(kind)
        try:
            properties.unpack(packed)
        except Exception:  # whatever a malformed one leads paho to; it is a courtesy anyway
            return ""
        return str(getattr(properties, "ReasonString", ""))


def _connect_properties() -> Any:
    """What the broker is told of this side: how large a packet may be."""
    properties: Any = _new_properties(PacketTypes.CONNECT)
    properties.MaximumPacketSize = LARGEST_PACKET
    return properties


class _Packed:
    """Properties that come again and again: paho goes through all that there are, whenever it packs one."""

    def __init__(self, properties: Any) -> None:
        self._packed = bytes(properties.pack())

    def pack(self) -> bytes:
        return self._packed


@functools.cache  # a platform has as many topics as fingers on a hand
def _alias_properties(alias: int) -> Any:
    """What names a topic by a number."""
    properties: Any = _new_properties(PacketTypes.PUBLISH)
    properties.TopicAlias = alias
    return _Packed(properties)


def _new_properties(kind: int) -> Any:
    return Properties(kind)  # type: ignore[no-untyped-call]
