"""A stand-in for ThingsBoard's MQTT transport, as strict as that: it closes the connection where that does.

Speaks MQTT 3.1.1 and 5 to one device; by MQTT 5 it says what it refuses, and goes on. Keeps what arrives, stores of
it what the server would store, and judges only what that judges: the forms that ivy must keep beyond that are the
validator's. The official client (tb-mqtt-client 1.13.14, told to speak 3.1.1) gets along with it: telemetry,
attributes both ways, remote calls both ways. To who says that his name is "provision" it is the `Provisioning` of
`tests.support.provisioning`, if it has one.
"""

import contextlib
import itertools
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any, BinaryIO, Self, cast

from tests.support import mqtt_packets as mqtt
from tests.support.listener import Listener, break_off
from tests.support.provisioning import ANSWERS, REQUESTS, USER, Malformed, Provisioning
from tests.support.recorder import Arrival
from tests.support.validators.thingsboard import Float, key_fault, stored_number

_LARGEST_PACKET = 65_535
_DEVICE = "v1/devices/me"
_TELEMETRY = f"{_DEVICE}/telemetry"
_ATTRIBUTES = f"{_DEVICE}/attributes"
_RESPONSES = f"{_ATTRIBUTES}/response/+"
_CALLS = f"{_DEVICE}/rpc/request/+"
_CALL_RESPONSES = f"{_DEVICE}/rpc/response/+"
_TOPICS = (_ATTRIBUTES, _RESPONSES, _CALLS, _CALL_RESPONSES)
_PARSABLE = re.compile(r"-?[0-9]+(\.[0-9]+)?|-?\.[0-9]+", re.ASCII)  # NumberUtils.isParsable of Commons Lang
_NUMBERED = re.compile(rf"{_DEVICE}/(attributes|rpc)/(request|response)/([0-9]+)")

GRANTED, TRY_LATER, BAD_CREDENTIALS = 0, 3, 5
_IN_MQTT_5 = {GRANTED: 0, TRY_LATER: 0x88, BAD_CREDENTIALS: 0x87}
_UNKNOWN_TOPIC, _TOO_LARGE, _BAD_PAYLOAD, _TAKEN_OVER = 0x90, 0x95, 0x99, 0x8E


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
        """Why connections were closed by this side; with MQTT 5, also why publications were refused."""
        self.answers: dict[int, Any] = {}
        """Answers of the device, by the number of the call."""
        self.shared: dict[str, Any] = {}
        """The shared attributes."""
        self.stored: dict[tuple[int, str], Any] = {}
        """What is in its database, by time and key."""
        self.lost: list[str] = []
        """Why samples that were acknowledged are not there."""
        self.type_cast = True
        """Whether a number that it has no form for becomes a text, and a text that looks like one a number."""
        self.limits: dict[str, Any] | None = None
        """What `getSessionLimits` answers; None is a server before 3.9. Its rates are enforced."""
        self.tells_limits = True
        """Whether it does answer."""
        self._rates: dict[str, list[_Rate]] = {}
        self.poison = b""
        """A payload with this in it closes the connection."""
        self.provisioning: Provisioning | None = None
        """Who registers devices, whose tokens are let in as well; None is a server where nobody can."""
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

    def keep_loss(self, reason: str) -> None:
        """Remember why a sample was dropped after it was acknowledged."""
        self.lost.append(reason)

    def _serve(self, connection: socket.socket) -> None:
        try:
            with contextlib.closing(_Session(connection)) as session:
                try:
                    self._converse(session)
                except _Bad as bad:
                    self.keep_closing(str(bad))
                    session.say_why(bad)
        except ConnectionError:
            return

    def _converse(self, session: "_Session") -> None:
        kind, _, body = session.read()
        if kind != mqtt.CONNECT:
            raise _Bad("no CONNECT")
        try:
            said = mqtt.read_connect(body)
        except ValueError as error:
            raise _Bad(str(error)) from None
        is_new = self.provisioning is not None and said.username == USER
        is_registered = self.provisioning is not None and said.username in self.provisioning.devices.values()
        code = GRANTED if is_new or is_registered else self._login(said.client_id, said.username, said.password)
        session.greet(said.version, code)
        if code != GRANTED:
            raise _Bad(f"login refused: {code}")
        if is_new and self.provisioning is not None:
            return self._provision(session, self.provisioning, said.password)
        if self._session is not None:
            self._session.say_why(_Bad("another session", _TAKEN_OVER))
            self._session.cut()  # one session for each device
        self._session = session
        while True:
            kind, flags, body = session.read()
            self._flow.wait()
            if kind == mqtt.DISCONNECT:
                return
            self._take(session, kind, flags, body)

    def _provision(self, session: "_Session", provisioning: Provisioning, password: str) -> None:
        """Talk to who is not a device yet: it hears requests only, and answers no subscription, not even by SUBACK.

        Stricter than the server in what its documentation wants: no password, and the subscription first.
        """
        if password:
            raise _Bad("a password, which nobody has who registers")
        has_subscribed = False
        while True:
            kind, flags, body = session.read()
            self._flow.wait()
            match kind:
                case mqtt.PUBLISH:
                    said = mqtt.read_publish(session.version, flags, body)
                    if said.topic != REQUESTS:
                        raise _Bad(f"topic {said.topic} of who is not registered", _UNKNOWN_TOPIC)
                    if not has_subscribed:
                        raise _Bad("a request of who does not listen")
                    try:
                        answer = provisioning.answer(said.payload)
                    except Malformed as error:
                        raise _Bad(str(error)) from None
                    if said.qos:
                        session.write(mqtt.puback(session.version, said.identifier))
                    if answer is not None:
                        session.push(ANSWERS, answer)
                case mqtt.SUBSCRIBE:
                    _, wanted = mqtt.read_subscribe(session.version, body)
                    has_subscribed |= ANSWERS in dict(wanted)
                case mqtt.PINGREQ:
                    session.write(mqtt.packet(mqtt.PINGRESP, b""))
                case mqtt.DISCONNECT:
                    return

    def _take(self, session: "_Session", kind: int, flags: int, body: bytes) -> None:
        match kind:
            case mqtt.PUBLISH:
                self._take_publication(session, mqtt.read_publish(session.version, flags, body))
            case mqtt.SUBSCRIBE:
                session.subscribe(body)
            case mqtt.PINGREQ:
                session.write(mqtt.packet(mqtt.PINGRESP, b""))
            case mqtt.PUBACK:
                return
            case _:
                raise _Bad(f"a packet of kind {kind}")

    def _take_publication(self, session: "_Session", said: mqtt.Publish) -> None:
        if said.qos > 1 or said.retain:
            raise _Bad(f"QoS {said.qos}, retain {said.retain}")
        self.keep(Arrival(time.time(), said.topic, said.payload, said.qos))
        if len(said.payload) > self.largest:
            raise _Bad(f"a payload of {len(said.payload)} bytes", _TOO_LARGE)
        try:
            code = self._judge(session, said)
        except _Bad as bad:
            if session.version != mqtt.MQTT_5:
                raise
            self.keep_closing(f"refused: {bad}")
            code = _BAD_PAYLOAD
        if code is not None and said.qos:
            session.write(mqtt.puback(session.version, said.identifier, code))

    def _judge(self, session: "_Session", said: mqtt.Publish) -> int | None:
        """The code of the PUBACK; None if there is none."""
        if self.poison and self.poison in said.payload:
            raise _Bad("poison")
        if session.version == mqtt.MQTT_5 and not _is_known(said.topic):
            self.keep_closing(f"refused: topic {said.topic}")
            return _UNKNOWN_TOPIC
        return 0 if self._understand(session, said.topic, said.payload) else None

    def _spend(self, points: int) -> None:
        """Count a packet. Attributes and calls are `messages`; telemetry is not."""
        costs = {"telemetryMessages": 1, "telemetryDataPoints": points} if points else {"messages": 1}
        for name, cost in costs.items():
            text = (self.limits or {}).get("rateLimits", {}).get(name) or ""
            rates = self._rates.setdefault(f"{name}={text}", [_Rate(*pair) for pair in _pairs(text)])
            if not all(rate.spend(cost) for rate in rates):
                raise _Bad(f"more than {name} allows: {text}")

    def _store(self, parsed: Any) -> None:
        """Take over telemetry as the server's JSON converter and its database do."""
        now, points = round(time.time() * 1000), 0
        samples = []
        for element in parsed if isinstance(parsed, list) else [parsed]:
            has_time = "ts" in element and "values" in element
            values = element["values"] if has_time else element
            converted = {key: self._cast(value) for key, value in values.items() if value is not None}
            points += len(converted)
            samples.append((element["ts"] if has_time else now, converted))
        self._spend(points)
        for timestamp, values in samples:
            self._save(timestamp, values)

    def _cast(self, value: Any) -> Any:
        if isinstance(value, str):
            return stored_number(value) if self.type_cast and _PARSABLE.fullmatch(value) else value
        if isinstance(value, bool) or not isinstance(value, int | float):
            return value
        number = stored_number(value.text if isinstance(value, Float) else str(value))
        if isinstance(number, str) and not self.type_cast:
            raise _Bad(f"a number that it has no form for: {number[:100]}")
        return number

    def _save(self, timestamp: int, values: dict[str, Any]) -> None:
        for key in values:
            if (fault := key_fault(key)) is not None:
                return self.keep_loss(f"{key[:300]!r}: {fault}")
        self.stored.update({(timestamp, key): value for key, value in values.items()})

    def _understand(self, session: "_Session", topic: str, payload: bytes) -> bool:
        """Whether there is a PUBACK."""
        if topic == _TELEMETRY:
            parsed = _parse(payload)
            _check_telemetry(parsed)
            self._store(parsed)
            return bool(parsed != [])
        self._spend(0)
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
        elif what == ("rpc", "request") and asked.get("method") == "getSessionLimits" and self._tells():
            session.publish(f"{_DEVICE}/rpc/response/{number}", json.dumps(self.limits).encode())

    def _tells(self) -> bool:
        return self.limits is not None and self.tells_limits


def _is_known(topic: str) -> bool:
    return topic in (_TELEMETRY, _ATTRIBUTES) or _NUMBERED.fullmatch(topic) is not None


class _Bad(Exception):
    """What the server closes a connection for, and how it says so by MQTT 5."""

    def __init__(self, reason: str, code: int = 0x83) -> None:
        super().__init__(reason)
        self.code = code


class _Rate:
    """A bucket that begins full and fills all the time, as the server's does."""

    def __init__(self, number: int, seconds: int) -> None:
        self._number, self._seconds = number, seconds
        self._level, self._filled = float(number), time.monotonic()

    def spend(self, cost: int) -> bool:
        now = time.monotonic()
        self._level += (now - self._filled) * self._number / self._seconds
        self._level, self._filled = min(self._level, self._number), now
        if cost > self._level:
            return False
        self._level -= cost
        return True


def _pairs(text: str) -> list[tuple[int, int]]:
    """`20:1,600:60` is 20 in one second and 600 in a minute."""
    pairs = [part.split(":") for part in text.split(",") if part]
    return [(int(number), int(seconds)) for number, seconds in pairs]


class _Session:
    def __init__(self, connection: socket.socket) -> None:
        self.version = mqtt.MQTT_3_1_1
        self._connection = connection
        self._stream = cast("BinaryIO", connection.makefile("rb"))
        self._subscriptions: set[str] = set()
        self._lock = threading.Lock()
        self._identifiers = itertools.cycle(range(1, 65536))
        self._is_accepted = False

    def close(self) -> None:
        self._stream.close()
        self._connection.close()

    def cut(self) -> None:
        break_off(self._connection)

    def greet(self, version: int, code: int) -> None:
        """Accept, or refuse: in the session's version from now on."""
        self.version, self._is_accepted = version, code == GRANTED
        self.write(mqtt.connack(version, _IN_MQTT_5[code] if version == mqtt.MQTT_5 else code))

    def say_why(self, bad: _Bad) -> None:
        """By MQTT 5, why the connection ends; not where that was said already."""
        if self.version == mqtt.MQTT_5 and self._is_accepted:
            with contextlib.suppress(OSError):
                self.write(mqtt.disconnect(bad.code))

    def read(self) -> tuple[int, int, bytes]:
        """The next packet: kind, flags, all behind the length. One that a broken connection has torn is none."""
        return mqtt.read(self._stream)

    def write(self, packet: bytes) -> None:
        with self._lock:
            self._connection.sendall(packet)

    def subscribe(self, body: bytes) -> None:
        identifier, wanted = mqtt.read_subscribe(self.version, body)
        codes = bytes(min(qos, 1) if topic in _TOPICS else 0x80 for topic, qos in wanted)
        self._subscriptions |= {topic for topic, _ in wanted}
        self.write(mqtt.suback(self.version, identifier, codes))

    def publish(self, topic: str, payload: bytes) -> None:
        if topic not in self._subscriptions and f"{topic.rpartition('/')[0]}/+" not in self._subscriptions:
            return
        self.push(topic, payload)

    def push(self, topic: str, payload: bytes) -> None:
        """Publish, whether or not there is a subscription."""
        with contextlib.suppress(OSError):  # it went away
            self.write(mqtt.publish(self.version, topic, next(self._identifiers), payload))


def _parse(payload: bytes) -> Any:
    def refuse(text: str) -> None:
        raise ValueError(text)

    try:
        return json.loads(payload.decode(), parse_constant=refuse, parse_float=Float)
    except ValueError as error:
        raise _Bad(f"no JSON: {error}: {payload[:200]!r}") from None


def _check_telemetry(parsed: Any) -> None:
    for element in parsed if isinstance(parsed, list) else [parsed]:
        values = element.get("values", element) if isinstance(element, dict) else None
        if not isinstance(values, dict) or ("ts" in element and type(element["ts"]) is not int):
            raise _Bad(f"no telemetry: {element!r:.200}")


def _check_flat(parsed: Any) -> None:
    if not isinstance(parsed, dict):
        raise _Bad(f"attributes that are no object: {parsed!r:.200}")
