"""A stand-in for ThingsBoard's MQTT transport, as strict as that: it closes the connection where that does.

Speaks MQTT 3.1.1 to one device. Keeps what arrives, and judges only what the server judges: the forms that ivy must
keep beyond that are the validator's. The official client (tb-mqtt-client 1.13.14, told to speak 3.1.1) gets along
with it: telemetry, attributes both ways, remote calls both ways.
"""

import contextlib
import itertools
import json
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from typing import Any, Self

from tests.support.listener import Listener, break_off
from tests.support.recorder import Arrival

_CONNECT, _PUBLISH, _PUBACK, _SUBSCRIBE, _PINGREQ, _DISCONNECT = 1, 3, 4, 8, 12, 14
_LARGEST_PACKET = 65_535
_DEVICE = "v1/devices/me"
_TELEMETRY = f"{_DEVICE}/telemetry"
_ATTRIBUTES = f"{_DEVICE}/attributes"
_RESPONSES = f"{_ATTRIBUTES}/response/+"
_CALLS = f"{_DEVICE}/rpc/request/+"
_CALL_RESPONSES = f"{_DEVICE}/rpc/response/+"
_TOPICS = (_ATTRIBUTES, _RESPONSES, _CALLS, _CALL_RESPONSES)
_NUMBERED = re.compile(rf"{_DEVICE}/(attributes|rpc)/(request|response)/([0-9]+)")

GRANTED, TRY_LATER, BAD_CREDENTIALS = 0, 3, 5


class ThingsBoardServer:
    """Listens with a thread for each connection."""

    def __init__(
        self,
        login: Callable[[str, str, str], int],
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        address: str = "127.0.0.1",
    ) -> None:
        """Start listening.

        Args:
            login: Gives the code of the CONNACK for client id, username and password.
            port: Where to listen; 0 chooses.
            tls: How to encrypt, and which certificates to ask for.
            address: Of this machine.
        """
        self.arrivals: list[Arrival] = []
        """All publications that were acknowledged, or for which the connection was closed."""
        self.closings: list[str] = []
        """Why connections were closed by this side."""
        self.answers: dict[int, Any] = {}
        """Answers of the device, by the number of the call."""
        self.shared: dict[str, Any] = {}
        """The shared attributes."""
        self.limits: dict[str, Any] | None = None
        """What `getSessionLimits` answers; None is a server before 3.9."""
        self.poison = b""
        """A payload with this in it closes the connection."""
        self.largest = _LARGEST_PACKET
        """A larger payload does so too."""
        self.port = port
        self._address = address
        self._login = login
        self._tls = tls
        self._flow = threading.Event()
        self._flow.set()
        self._numbers = itertools.count(1)
        self._session: _Session | None = None
        self._listener: Listener | None = None
        self.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listen."""
        self._listener = Listener(self._serve, self._address, self.port, self._tls)
        self.port = self._listener.port

    def stop(self) -> None:
        """Break the connection and listen no more."""
        if self._listener is None:
            return
        self.resume()
        listener, self._listener = self._listener, None
        listener.close()

    def restart(self) -> None:
        """Stop and start. Subscriptions are forgotten, as always."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Keep the connection, but answer nothing."""
        self._flow.clear()

    def resume(self) -> None:
        """Go on."""
        self._flow.set()

    def cut(self) -> None:
        """Break the connection."""
        if self._listener is not None:
            self._listener.cut()

    def set_attribute(self, name: str, value: Any) -> None:
        """Change a shared attribute, and tell the device."""
        self.shared[name] = value
        self.send(_ATTRIBUTES, json.dumps({name: value}).encode())

    def call(self, method: str, params: Any = None) -> int:
        """Call a procedure of the device. Returns its number."""
        number = next(self._numbers)
        self.send(f"{_DEVICE}/rpc/request/{number}", json.dumps({"method": method, "params": params}).encode())
        return number

    def send(self, topic: str, payload: bytes) -> None:
        """Publish to the device, if it is there and has subscribed. Nothing is kept for later."""
        if self._session is not None:
            self._session.publish(topic, payload)

    def keep(self, arrival: Arrival) -> None:
        """Remember a publication, before it is acknowledged."""
        self.arrivals.append(arrival)

    def keep_closing(self, reason: str) -> None:
        """Remember why a connection is closed."""
        self.closings.append(reason)

    def _serve(self, connection: socket.socket) -> None:
        try:
            with contextlib.closing(_Session(connection)) as session:
                self._converse(session)
        except _Bad as reason:
            self.keep_closing(str(reason))

    def _converse(self, session: "_Session") -> None:
        kind, _, body = session.read()
        if kind != _CONNECT:
            raise _Bad("no CONNECT")
        code = self._login(*_credentials(body))
        session.write(b"\x20\x02\x00" + bytes([code]))
        if code != GRANTED:
            raise _Bad(f"login refused: {code}")
        if self._session is not None:
            self._session.cut()  # one session for each device
        self._session = session
        while True:
            kind, flags, body = session.read()
            self._flow.wait()
            if kind == _DISCONNECT:
                return
            self._take(session, kind, flags, body)

    def _take(self, session: "_Session", kind: int, flags: int, body: bytes) -> None:
        match kind:
            case 3:
                self._take_publication(session, flags, body)
            case 8:
                session.subscribe(body)
            case 12:
                session.write(b"\xd0\x00")
            case 4:
                return
            case _:
                raise _Bad(f"a packet of kind {kind}")

    def _take_publication(self, session: "_Session", flags: int, body: bytes) -> None:
        qos, retain = flags >> 1 & 3, flags & 1
        if qos > 1 or retain:
            raise _Bad(f"QoS {qos}, retain {retain}")
        length = int.from_bytes(body[:2], "big")
        topic, rest = body[2 : 2 + length].decode(), body[2 + length :]
        identifier, payload = (rest[:2], rest[2:]) if qos else (b"", rest)
        self.keep(Arrival(time.time(), topic, payload, qos))
        if self.poison and self.poison in payload:
            raise _Bad("poison")
        if len(payload) > self.largest:
            raise _Bad(f"a payload of {len(payload)} bytes")
        if self._understand(session, topic, payload) and qos:
            session.write(b"\x40\x02" + identifier)

    def _understand(self, session: "_Session", topic: str, payload: bytes) -> bool:
        """Whether there is a PUBACK."""
        if topic == _TELEMETRY:
            return _check_telemetry(_parse(payload))
        if topic == _ATTRIBUTES:
            _check_flat(_parse(payload))
        elif match := _NUMBERED.fullmatch(topic):
            self._answer(session, (match[1], match[2]), int(match[3]), _parse(payload))
        return True  # also what it does not know, which is dropped

    def _answer(self, session: "_Session", what: tuple[str, str], number: int, asked: Any) -> None:
        if what == ("rpc", "response"):
            self.answers[number] = asked
        elif not isinstance(asked, dict):
            raise _Bad(f"a request that is no object: {asked!r:.200}")
        elif what == ("attributes", "request"):
            wanted = {key: self.shared[key] for key in asked.get("sharedKeys", "").split(",") if key in self.shared}
            answer = {"shared": wanted} if wanted else {}
            session.publish(f"{_ATTRIBUTES}/response/{number}", json.dumps(answer).encode())
        elif what == ("rpc", "request") and asked.get("method") == "getSessionLimits" and self.limits is not None:
            session.publish(f"{_DEVICE}/rpc/response/{number}", json.dumps(self.limits).encode())


class _Bad(Exception):
    """What the server closes a connection for."""


class _Session:
    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._stream = connection.makefile("rb")
        self._subscriptions: set[str] = set()
        self._lock = threading.Lock()
        self._identifiers = itertools.cycle(range(1, 65536))

    def close(self) -> None:
        self._stream.close()
        self._connection.close()

    def cut(self) -> None:
        break_off(self._connection)

    def read(self) -> tuple[int, int, bytes]:
        """The next packet: kind, flags, all behind the length."""
        header = self._read(1)
        length, digits = 0, 0
        while True:
            [byte] = self._read(1)
            length |= (byte & 0x7F) << 7 * digits
            digits += 1
            if byte < 0x80:
                break
        if 1 + digits + length > _LARGEST_PACKET:
            raise _Bad(f"a packet of {1 + digits + length} bytes")
        return header[0] >> 4, header[0] & 15, self._read(length)

    def _read(self, length: int) -> bytes:
        """So many bytes: a packet that a broken connection has torn is none."""
        found = self._stream.read(length)
        if len(found) < length:
            raise ConnectionResetError
        return found

    def write(self, packet: bytes) -> None:
        with self._lock:
            self._connection.sendall(packet)

    def subscribe(self, body: bytes) -> None:
        codes, position = b"", 2
        while position < len(body):
            length = int.from_bytes(body[position : position + 2], "big")
            topic = body[position + 2 : position + 2 + length].decode()
            qos = body[position + 2 + length]
            codes += bytes([min(qos, 1) if topic in _TOPICS else 0x80])
            self._subscriptions.add(topic)
            position += 3 + length
        self.write(b"\x90" + bytes([2 + len(codes)]) + body[:2] + codes)

    def publish(self, topic: str, payload: bytes) -> None:
        name = topic.encode()
        if topic not in self._subscriptions and f"{topic.rpartition('/')[0]}/+" not in self._subscriptions:
            return
        rest = struct.pack(">H", len(name)) + name + struct.pack(">H", next(self._identifiers)) + payload
        length, digits = len(rest), b""
        while True:
            digits += bytes([length & 0x7F | (0x80 if length > 0x7F else 0)])
            length >>= 7
            if not length:
                break
        with contextlib.suppress(OSError):  # it went away
            self.write(b"\x32" + digits + rest)


def _credentials(body: bytes) -> tuple[str, str, str]:
    """Client id, username and password of a CONNECT of MQTT 3.1.1."""
    if body[:7] != b"\x00\x04MQTT\x04":
        raise _Bad("not MQTT 3.1.1")
    flags, position, fields = body[7], 10, []
    for present in (True, bool(flags & 0x80), bool(flags & 0x40)):
        length = int.from_bytes(body[position : position + 2], "big") if present else 0
        fields.append(body[position + 2 : position + 2 + length].decode() if present else "")
        position += 2 + length if present else 0
    return fields[0], fields[1], fields[2]


def _parse(payload: bytes) -> Any:
    def refuse(text: str) -> None:
        raise ValueError(text)

    try:
        return json.loads(payload.decode(), parse_constant=refuse)
    except ValueError as error:
        raise _Bad(f"no JSON: {error}: {payload[:200]!r}") from None


def _check_telemetry(parsed: Any) -> bool:
    for element in parsed if isinstance(parsed, list) else [parsed]:
        values = element.get("values", element) if isinstance(element, dict) else None
        if not isinstance(values, dict) or ("ts" in element and type(element["ts"]) is not int):
            raise _Bad(f"no telemetry: {element!r:.200}")
    return bool(parsed != [])


def _check_flat(parsed: Any) -> None:
    if not isinstance(parsed, dict):
        raise _Bad(f"attributes that are no object: {parsed!r:.200}")
