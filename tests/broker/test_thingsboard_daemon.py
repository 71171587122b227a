"""The stand-in for ThingsBoard as a process: what it acknowledged is known, and what was torn is nobody's fault."""

import socket
import struct
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.support.backend_node import SENSOR, free_port
from tests.support.thingsboard_daemon import ThingsBoardDaemon

PAYLOAD = b'[{"ts":1700000000000,"values":{"a":1}}]'


def text(content: bytes) -> bytes:
    """A string of MQTT's."""
    return struct.pack(">H", len(content)) + content


def packet(first: int, rest: bytes) -> bytes:
    """A short packet of MQTT's."""
    return bytes([first, len(rest)]) + rest


CONNECT = packet(0x10, text(b"MQTT") + b"\x04\x82\x00\x3c" + text(b"") + text(SENSOR.encode()))
PUBLISH = packet(0x32, text(b"v1/devices/me/telemetry") + b"\x00\x01" + PAYLOAD)


@pytest.fixture
def daemon(tmp_path: Path) -> Generator[ThingsBoardDaemon, None, None]:
    """A running one."""
    with ThingsBoardDaemon("127.0.0.1", free_port(), SENSOR, tmp_path / "broker") as daemon:
        yield daemon


def login(daemon: ThingsBoardDaemon) -> socket.socket:
    """A connection that was accepted."""
    connection = socket.create_connection((daemon.address, daemon.port), timeout=10)
    connection.sendall(CONNECT)
    assert connection.recv(4) == b"\x20\x02\x00\x00"
    return connection


def publish(daemon: ThingsBoardDaemon) -> None:
    """Publish once, and wait for the PUBACK."""
    with login(daemon) as connection:
        connection.sendall(PUBLISH)
        assert connection.recv(4) == b"\x40\x02\x00\x01"


def test_what_it_acknowledged_is_known_after_a_kill(daemon: ThingsBoardDaemon) -> None:
    publish(daemon)
    daemon.kill()
    daemon.update()
    assert [arrival.payload for arrival in daemon.arrivals] == [PAYLOAD]
    daemon.start()
    publish(daemon)
    daemon.update()
    assert [arrival.payload for arrival in daemon.arrivals] == [PAYLOAD, PAYLOAD]


def test_a_packet_that_a_broken_connection_has_torn_is_none(daemon: ThingsBoardDaemon) -> None:
    with login(daemon) as connection:
        connection.sendall(PUBLISH[:-5])
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""  # it is closed, and so it was dealt with
    daemon.update()
    assert daemon.arrivals == [] and daemon.closings == []


def test_a_stalled_one_answers_nothing(daemon: ThingsBoardDaemon) -> None:
    with login(daemon) as connection:
        daemon.pause()
        connection.sendall(PUBLISH)
        connection.settimeout(0.3)
        with pytest.raises(TimeoutError):
            connection.recv(4)
        daemon.resume()
        connection.settimeout(10)
        assert connection.recv(4) == b"\x40\x02\x00\x01"
