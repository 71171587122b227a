"""MQTT packets as a server reads and writes them, of 3.1.1 and 5. Shares no code with ivy, nor with paho."""

import struct
from dataclasses import dataclass, field
from typing import Any, BinaryIO, cast

CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK, PINGREQ, PINGRESP, DISCONNECT = 1, 2, 3, 4, 8, 9, 12, 13, 14

MQTT_3_1_1, MQTT_5 = 4, 5

# Number and form of the properties that servers and nodes use here.
_NUMBERS = {
    "session_expiry": (0x11, ">I"),
    "server_keep_alive": (0x13, ">H"),
    "reason_string": (0x1F, "text"),
    "receive_maximum": (0x21, ">H"),
    "topic_alias_maximum": (0x22, ">H"),
    "topic_alias": (0x23, ">H"),
    "maximum_packet_size": (0x27, ">I"),
}
_NAMES = {number: (name, form) for name, (number, form) in _NUMBERS.items()}

Properties = dict[str, Any]


@dataclass(frozen=True)
class Connect:
    """What a client says first."""

    version: int
    client_id: str
    username: str
    password: str
    keepalive: int
    properties: Properties = field(default_factory=dict)


@dataclass(frozen=True)
class Publish:
    """A publication; of one that comes by its alias only, the topic is empty."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    identifier: bytes
    properties: Properties = field(default_factory=dict)


def read(stream: BinaryIO) -> tuple[int, int, bytes]:
    """The next packet: kind, flags, all behind the length.

    Raises:
        ConnectionResetError: There is no whole one any more.
    """
    [header] = _exactly(stream, 1)
    length, digits = 0, 0
    while True:
        [byte] = _exactly(stream, 1)
        length |= (byte & 0x7F) << 7 * digits
        digits += 1
        if byte < 0x80:
            return header >> 4, header & 15, _exactly(stream, length)


def _exactly(stream: BinaryIO, length: int) -> bytes:
    found = stream.read(length)
    if len(found) < length:
        raise ConnectionResetError
    return found


def packet(kind: int, body: bytes, flags: int = 0) -> bytes:
    """A whole packet."""
    return bytes([kind << 4 | flags]) + _length(len(body)) + body


def _length(length: int) -> bytes:
    digits = b""
    while True:
        digits += bytes([length & 0x7F | (0x80 if length > 0x7F else 0)])
        length >>= 7
        if not length:
            return digits


def read_connect(body: bytes) -> Connect:
    """Read a CONNECT.

    Raises:
        ValueError: It is none of MQTT 3.1.1 or 5.
    """
    version = body[6] if body[:6] == b"\x00\x04MQTT" else 0
    if version not in (MQTT_3_1_1, MQTT_5):
        raise ValueError("neither MQTT 3.1.1 nor 5")
    flags, keepalive = body[7], int.from_bytes(body[8:10], "big")
    properties, position = _read_properties(body, 10) if version == MQTT_5 else ({}, 10)
    fields = []
    for present in (True, bool(flags & 0x80), bool(flags & 0x40)):
        text, position = _read_text(body, position) if present else ("", position)
        fields.append(text)
    return Connect(version, fields[0], fields[1], fields[2], keepalive, properties)


def read_publish(version: int, flags: int, body: bytes) -> Publish:
    """Read a PUBLISH."""
    qos, is_retained = flags >> 1 & 3, bool(flags & 1)
    topic, position = _read_text(body, 0)
    identifier = body[position : position + 2] if qos else b""
    position += len(identifier)
    properties, position = _read_properties(body, position) if version == MQTT_5 else ({}, position)
    return Publish(topic, body[position:], qos, is_retained, identifier, properties)


def read_subscribe(version: int, body: bytes) -> tuple[bytes, list[tuple[str, int]]]:
    """Read a SUBSCRIBE: its identifier; topics, each with the QoS that is asked for."""
    _, position = _read_properties(body, 2) if version == MQTT_5 else ({}, 2)
    wanted = []
    while position < len(body):
        topic, position = _read_text(body, position)
        wanted.append((topic, body[position] & 3))
        position += 1
    return body[:2], wanted


def connack(version: int, code: int, **properties: Any) -> bytes:
    """A CONNACK. The code is that of its version."""
    return packet(CONNACK, bytes([0, code]) + (_properties(properties) if version == MQTT_5 else b""))


def suback(version: int, identifier: bytes, codes: bytes) -> bytes:
    """A SUBACK."""
    return packet(SUBACK, identifier + (_properties({}) if version == MQTT_5 else b"") + codes)


def puback(version: int, identifier: bytes, code: int = 0, **properties: Any) -> bytes:
    """A PUBACK; that of MQTT 3.1.1 has no code."""
    if version != MQTT_5 or (not code and not properties):
        return packet(PUBACK, identifier)
    return packet(PUBACK, identifier + bytes([code]) + (_properties(properties) if properties else b""))


def disconnect(code: int, **properties: Any) -> bytes:
    """A DISCONNECT of MQTT 5."""
    return packet(DISCONNECT, bytes([code]) + (_properties(properties) if properties else b""))


def publish(version: int, topic: str, identifier: int, payload: bytes) -> bytes:
    """A PUBLISH with QoS 1."""
    head = _text(topic) + struct.pack(">H", identifier) + (_properties({}) if version == MQTT_5 else b"")
    return packet(PUBLISH, head + payload, flags=2)


def _read_text(body: bytes, position: int) -> tuple[str, int]:
    end = position + 2 + int.from_bytes(body[position : position + 2], "big")
    return body[position + 2 : end].decode(), end


def _text(text: str) -> bytes:
    raw = text.encode()
    return struct.pack(">H", len(raw)) + raw


def _read_properties(body: bytes, position: int) -> tuple[Properties, int]:
    length, digits = 0, 0
    while True:
        byte = body[position]
        length |= (byte & 0x7F) << 7 * digits
        position, digits = position + 1, digits + 1
        if byte < 0x80:
            break
    end, found = position + length, {}
    while position < end:
        name, form = _NAMES[body[position]]
        if form == "text":
            found[name], position = cast("tuple[Any, int]", _read_text(body, position + 1))
        else:
            [found[name]] = struct.unpack_from(form, body, position + 1)
            position += 1 + struct.calcsize(form)
    return found, end


def _properties(properties: Properties) -> bytes:
    packed = b""
    for name, value in properties.items():
        number, form = _NUMBERS[name]
        packed += bytes([number]) + (_text(value) if form == "text" else struct.pack(form, value))
    return _length(len(packed)) + packed
