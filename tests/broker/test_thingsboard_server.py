"""The stand-in for ThingsBoard: what it stores, what it loses, and what it closes connections for."""

import contextlib
import json
import socket
import struct
from collections.abc import Generator
from typing import Any

import pytest
from testbed.waiting import wait_for

from tests.support.provisioning import ANSWERS, REQUESTS, Provisioning
from tests.support.thingsboard_server import GRANTED, ThingsBoardServer
from tests.support.validators import thingsboard

TIME = 1_700_000_000_000


@pytest.fixture
def server() -> Generator[ThingsBoardServer, None, None]:
    """One that lets everybody in."""
    with ThingsBoardServer(lambda *_: GRANTED) as server:
        yield server


def _text(content: bytes) -> bytes:
    return struct.pack(">H", len(content)) + content


def _packet(first: int, rest: bytes) -> bytes:
    length, digits = len(rest), b""
    while True:
        digits += bytes([length & 0x7F | (0x80 if length > 0x7F else 0)])
        length >>= 7
        if not length:
            return bytes([first]) + digits + rest


def _publish(server: ThingsBoardServer, payload: bytes, topic: str = thingsboard.TELEMETRY) -> bool:
    """Whether it is acknowledged; if not, the connection was closed."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(_packet(0x10, _text(b"MQTT") + b"\x04\x82\x00\x3c" + _text(b"") + _text(b"x")))
        assert connection.recv(4) == b"\x20\x02\x00\x00"
        connection.sendall(_packet(0x32, _text(topic.encode()) + b"\x00\x01" + payload))
        with contextlib.suppress(ConnectionResetError):
            return connection.recv(4) == b"\x40\x02\x00\x01"
        return False


def _closings(server: ThingsBoardServer, count: int) -> list[str]:
    """Why it closed so many connections. It remembers that just after."""
    wait_for(lambda: len(server.closings) >= count, 10, "the reason")
    return server.closings


def _telemetry(**values: str) -> bytes:
    """JSON texts by their keys."""
    pairs = ",".join(f"{json.dumps(key)}:{value}" for key, value in values.items())
    return f'[{{"ts":{TIME},"values":{{{pairs}}}}}]'.encode()


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ("23.1", 23.1),
        ("21.0", 21.0),
        ("21", 21),
        ("1e2", 100),
        ("1.5e-7", 1.5e-7),
        ("0.0513743737245321", 0.0513743737245321),
        ("0.05137437372453215", "0.05137437372453215"),
        ("1e-17", "0.00000000000000001"),
        ("1e19", "10000000000000000000"),
        ("9223372036854775807", 2**63 - 1),
        ("9223372036854775808", "9223372036854775808"),
        ('"00123"', 123),
        ('"12.10"', 12.1),
        ('"12."', "12."),
        ('"text"', "text"),
        ("true", True),
        ('{"a":1.0}', {"a": 1.0}),
    ],
)
def test_types_are_cast(server: ThingsBoardServer, sent: str, stored: Any) -> None:
    assert _publish(server, _telemetry(a=sent))
    found = server.stored[TIME, "a"]
    assert found == stored and isinstance(found, type(stored))


@pytest.mark.parametrize("sent", ["0.05137437372453215", "1e19", "9223372036854775808"])
def test_without_type_casts_a_number_that_it_has_no_form_for_is_refused(
    server: ThingsBoardServer, sent: str
) -> None:
    server.type_cast = False
    assert not _publish(server, _telemetry(a=sent))
    assert "no form" in _closings(server, 1)[0] and server.stored == {}
    assert _publish(server, _telemetry(a='"00123"')) and server.stored == {(TIME, "a"): "00123"}


@pytest.mark.parametrize("key", ["", "  ", "x" * 256, "\N{PILE OF POO}" * 128, "a<b>", "{{a}}", "a\0b"])
def test_a_bad_key_loses_its_sample_after_the_puback(server: ThingsBoardServer, key: str) -> None:
    assert _publish(server, _telemetry(**{"good": "1", key: "2"}))
    assert len(server.lost) == 1 and server.stored == {} and server.closings == []


def test_data_points_are_counted_and_limited(server: ThingsBoardServer) -> None:
    server.limits = {"rateLimits": {"telemetryDataPoints": "4:600"}}
    assert _publish(server, _telemetry(a="1", b="2", c="null"))
    assert _publish(server, _telemetry(a="1", b="2"))
    assert not _publish(server, _telemetry(a="1"))
    assert _closings(server, 1) == ["more than telemetryDataPoints allows: 4:600"]


def test_telemetry_is_none_of_the_messages(server: ThingsBoardServer) -> None:
    server.limits = {"rateLimits": {"messages": "1:600", "telemetryMessages": "2:600"}}
    assert _publish(server, _telemetry(a="1")) and _publish(server, _telemetry(a="1"))
    assert _publish(server, b'{"a":1}', thingsboard.ATTRIBUTES)
    assert not _publish(server, b'{"a":1}', thingsboard.ATTRIBUTES)
    _closings(server, 1)
    assert not _publish(server, _telemetry(a="1"))
    assert [closing.split()[2] for closing in _closings(server, 2)] == ["messages", "telemetryMessages"]


def _request(**changes: Any) -> bytes:
    wish = {"deviceName": "roof-7", "provisionDeviceKey": "key", "provisionDeviceSecret": "secret", **changes}
    return json.dumps({key: value for key, value in wish.items() if value is not None}).encode()


def _ask(server: ThingsBoardServer, payload: bytes, topic: str = REQUESTS, *, listens: bool = True) -> bytes:
    """All that it says to a request of who is not registered, until it closes or says an answer."""
    said = b""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(_packet(0x10, _text(b"MQTT") + b"\x04\x82\x00\x3c" + _text(b"") + _text(b"provision")))
        assert connection.recv(4) == b"\x20\x02\x00\x00"
        if listens:
            connection.sendall(_packet(0x82, b"\x00\x07" + _text(ANSWERS.encode()) + b"\x01"))
        connection.sendall(_packet(0x32, _text(topic.encode()) + b"\x00\x01" + payload))
        with contextlib.suppress(ConnectionResetError):
            while not said.endswith(b"}") and (more := connection.recv(4096)):
                said += more
    return said


def test_who_registers_gets_a_puback_and_the_answer_and_no_suback(server: ThingsBoardServer) -> None:
    server.provisioning = Provisioning("key", "secret")
    said = _ask(server, _request())
    assert said.startswith(b"\x40\x02\x00\x01") and b"SUCCESS" in said and b"\x90" not in said
    assert b"FAILURE" in _ask(server, _request()), "the name is taken"
    assert b"FAILURE" in _ask(server, _request(deviceName="b", token=server.provisioning.devices["roof-7"]))
    assert b"NOT_FOUND" in _ask(server, _request(deviceName="b", provisionDeviceSecret="wrong"))
    assert list(server.provisioning.devices) == ["roof-7"]


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"{", "not JSON"),
        (b"[]", "not an object"),
        (_request(deviceName=None), "without deviceName"),
        (_request(provisionDeviceKey=""), "without provisionDeviceKey"),
        (_request(provisionDeviceSecret=7), "not an object of texts"),
        (_request(credentialsType="X509_CERTIFICATE"), "another type"),
        (_request(extra="1"), "extra"),
    ],
)
def test_a_malformed_request_closes_the_connection(server: ThingsBoardServer, payload: bytes, reason: str) -> None:
    server.provisioning = Provisioning("key", "secret")
    assert _ask(server, payload) == b""
    assert reason in _closings(server, 1)[0] and server.provisioning.requests == []


def test_who_registers_may_do_nothing_else(server: ThingsBoardServer) -> None:
    server.provisioning = Provisioning("key", "secret")
    assert _ask(server, _telemetry(a="1"), thingsboard.TELEMETRY) == b""
    assert _ask(server, _request(), listens=False) == b""
    assert ["not registered" in why or "does not listen" in why for why in _closings(server, 2)] == [True, True]
    assert server.stored == {}
