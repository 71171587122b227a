"""A broker with several addresses, of which some are dead, and names that are looked up slowly."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from testbed.broker import Broker
from testbed.waiting import wait_for

from ivy.backend.mqtt_link import Acknowledged, Connected, Disconnected, Event, MQTTLink
from ivy.backend.sockets import SocketOpener
from ivy.types.config import MQTTBrokerConfig
from tests.support.backend_node import PASSWORD, PROJECT, SENSOR, free_port

HOST = "broker.example.org"
FIRST, SECOND, THIRD = "127.0.0.2", "127.0.0.3", "127.0.0.4"
ADDRESSES = (FIRST, SECOND, THIRD)
LONG = 20.0  # seconds for what takes one or two

# What is larger than 1000 bytes vanishes on its way, without a word.
_BLACK_HOLE = """
import os, subprocess, time
from ivy.backend.mqtt_link import Acknowledged, Connected, MQTTLink
from ivy.types.config import MQTTBrokerConfig
from tests.broker.fake import SparingBroker

subprocess.run(["ip", "link", "set", "lo", "mtu", "1500", "gso_max_segs", "1", "up"], check=True)
rules = "add table inet hole; add chain inet hole in { type filter hook prerouting priority 0; };"
subprocess.run(["nft", rules + " add rule inet hole in meta length > 1000 drop"], check=True)
nobody = os.eventfd(0)
with SparingBroker() as broker:
    broker.generous = True
    settings = MQTTBrokerConfig(host="127.0.0.1", port=broker.port, client_id="c", username="u", password="p")
    link = MQTTLink(settings, ("topic",))
    connections, until = 0, float("inf")
    while connections < 4:
        events = link.wait(nobody, 0.1)
        if any(isinstance(event, Acknowledged) for event in events):
            break
        if any(isinstance(event, Connected) for event in events):
            connections, until = connections + 1, time.monotonic() + (20 if connections else 2)
            link.publish("topic", b'["' + 20_000 * b"x" + b'"]')
        if time.monotonic() > until:
            link.break_off("nothing was acknowledged")
            until = float("inf")
    link.close()
print("acknowledged over connection", connections)
"""


class Names:
    """What the system's resolver says: addresses of this machine."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses
        self.asked = 0
        self.answers = threading.Event()
        self.answers.set()
        self._real = socket.getaddrinfo

    def look_up(self, host: str, port: int, *arguments: Any, **options: Any) -> list[Any]:
        """Instead of `socket.getaddrinfo`."""
        if host != HOST:
            return self._real(host, port, *arguments, **options)
        if options.get("flags"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        self.asked += 1
        self.answers.wait()
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in self.addresses]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Generator[Names, None, None]:
    names = Names(*ADDRESSES)
    monkeypatch.setattr(socket, "getaddrinfo", names.look_up)
    yield names
    names.answers.set()


class Watched:
    """A link, and what it has told so far."""

    def __init__(self, port: int, seconds: float) -> None:
        settings = MQTTBrokerConfig(host=HOST, port=port, client_id=SENSOR, username=SENSOR, password=PASSWORD)
        self.link = MQTTLink(settings, (f"configurations/{SENSOR}",), seconds_to_connect=seconds)
        self.events: list[Event] = []
        self._nobody = os.eventfd(0)

    def close(self) -> None:
        self.link.close()
        os.close(self._nobody)

    def wait_for(self, kind: type[Event], count: int = 1) -> float:
        """Wait until it has told so many; returns how long that took."""
        began = time.monotonic()

        def has_told() -> bool:
            self.events += self.link.wait(self._nobody, 0.1)
            return sum(isinstance(event, kind) for event in self.events) >= count

        wait_for(has_told, LONG, f"{count} of {kind.__name__}", interval=0)
        return time.monotonic() - began

    def reason(self) -> str:
        """Why it lost the connection last."""
        return [event.reason for event in self.events if isinstance(event, Disconnected)][-1]


@pytest.fixture
def watch() -> Generator[Callable[..., Watched], None, None]:
    with contextlib.ExitStack() as stack:

        def make(port: int, seconds: float = 30.0) -> Watched:
            return stack.enter_context(contextlib.closing(Watched(port, seconds)))

        yield make


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def brokers(tmp_path: Path, port: int) -> Generator[Callable[[str], Broker], None, None]:
    """Starts a broker at an address."""
    with contextlib.ExitStack() as stack:

        def start(address: str) -> Broker:
            directory = tmp_path / address
            return stack.enter_context(Broker(address, port, {SENSOR: PASSWORD}, directory=directory))

        yield start


@contextlib.contextmanager
def silent(port: int, *addresses: str) -> Generator[None, None, None]:
    """Addresses from which a connect gets no answer, as the queue of connections there is full."""
    with contextlib.ExitStack() as stack:
        for address in addresses:
            listener = stack.enter_context(socket.socket())
            listener.bind((address, port))
            listener.listen(0)
            for _ in range(3):
                client = stack.enter_context(socket.socket())
                client.setblocking(False)
                client.connect_ex(listener.getsockname())
        yield


def test_what_does_not_answer_keeps_nobody_from_the_address_that_does(
    names: Names, watch: Callable[..., Watched], brokers: Callable[[str], Broker], port: int
) -> None:
    brokers(THIRD)
    with silent(port, FIRST, SECOND):
        link = watch(port)
        assert link.wait_for(Connected) < LONG / 2
        link.link.publish(f"measurements/{SENSOR}", b"[]")
        link.wait_for(Acknowledged)


def test_a_broker_that_takes_connections_and_says_nothing_is_not_the_only_one(
    names: Names, watch: Callable[..., Watched], brokers: Callable[[str], Broker], port: int
) -> None:
    hangs = brokers(FIRST)
    brokers(SECOND)
    hangs.pause()
    link = watch(port, 2.0)
    link.wait_for(Connected)
    link.link.publish(f"measurements/{SENSOR}", b"[]")
    link.wait_for(Acknowledged)
    assert sum(isinstance(event, Disconnected) for event in link.events) <= 1
    hangs.resume()


def test_with_one_of_two_brokers_down_it_delivers_within_the_retry_delay(
    names: Names, watch: Callable[..., Watched], brokers: Callable[[str], Broker], port: int
) -> None:
    used, other = brokers(FIRST), brokers(SECOND)
    link = watch(port)
    link.wait_for(Connected)
    link.link.publish(f"measurements/{SENSOR}", b"[]")
    link.wait_for(Acknowledged)
    used.kill()
    assert link.wait_for(Connected, 2) < LONG / 4
    link.link.publish(f"measurements/{SENSOR}", b"[]")
    link.wait_for(Acknowledged, 2)
    assert SENSOR in other.log.read_text()


def test_the_time_to_connect_is_for_all_addresses_together(
    names: Names, watch: Callable[..., Watched], port: int
) -> None:
    names.addresses = tuple(f"127.0.0.{number}" for number in range(2, 12))
    with silent(port, *names.addresses):
        link = watch(port, 1.0)
        assert link.wait_for(Disconnected) < 5
    assert "127.0.0.2: no answer within 1 s" in link.reason()


def test_all_addresses_that_failed_are_named(names: Names, watch: Callable[..., Watched], port: int) -> None:
    link = watch(port)
    link.wait_for(Disconnected)
    for address in ADDRESSES:
        assert f"{address}: Connection refused" in link.reason()


def test_a_slow_name_server_is_given_up_in_time_and_its_answer_is_used_when_it_comes(
    names: Names, watch: Callable[..., Watched], brokers: Callable[[str], Broker], port: int
) -> None:
    brokers(FIRST)
    names.answers.clear()
    threads = threading.active_count()
    link = watch(port, 0.5)
    link.wait_for(Disconnected, 3)
    assert f"no name server said within 0.25 s which address {HOST} has" in link.reason()
    assert names.asked == 1  # nobody asks beside who still waits
    assert threading.active_count() <= threads + 2  # who waits, and the try
    names.answers.set()
    link.wait_for(Connected)
    assert names.asked == 1
    wait_for(lambda: threading.active_count() <= threads, LONG, "the threads to end")


def test_a_name_that_there_is_not_is_asked_for_again(
    names: Names,
    watch: Callable[..., Watched],
    brokers: Callable[[str], Broker],
    port: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    brokers(FIRST)
    there_is = names.look_up

    def look_up(host: str, port: int, *arguments: Any, **options: Any) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    link = watch(port)
    link.wait_for(Disconnected)
    assert "Name or service not known" in link.reason()
    monkeypatch.setattr(socket, "getaddrinfo", there_is)
    link.wait_for(Connected)


def test_connections_that_were_not_needed_are_closed(
    names: Names, watch: Callable[..., Watched], brokers: Callable[[str], Broker], port: int
) -> None:
    brokers(THIRD)
    with silent(port, FIRST, SECOND):
        before = len(list(_connections()))
        link = watch(port)
        link.wait_for(Connected)
        peers = [connection.getpeername()[0] for connection in _connections()]
    assert peers.count(THIRD) == 1
    assert len(peers) == before + 1


def _connections() -> Generator[socket.socket, None, None]:
    """Those of this process."""
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(name))) as one:
            one.getpeername()
            yield one


def test_where_large_packets_vanish_the_next_connection_has_small_ones() -> None:
    alone = ["unshare", "--user", "--map-root-user", "--net"]
    command = [*alone, sys.executable, "-c", _BLACK_HOLE]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=60)
    assert done.stdout == "acknowledged over connection 2\n", done.stderr


@pytest.mark.parametrize("outage", [True, False])
def test_after_an_outage_packets_are_of_any_size(outage: bool) -> None:
    """Most breaks that this side finds out are outages, and small packets cost bytes."""
    with socket.create_server((FIRST, 0)) as server:
        port = server.getsockname()[1]
        settings = MQTTBrokerConfig(host=FIRST, port=port, client_id="c", username="u", password="p")
        opener = SocketOpener(settings, 5.0)
        with (opened := opener.open()).connection:
            opener.lost(opened.address, silent=True)
        if outage:
            server.close()
            with pytest.raises(ConnectionRefusedError):
                opener.open()
            server = socket.create_server((FIRST, port))
        with server, opener.open().connection as connection:
            segment = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
            assert (segment <= 536) == (not outage)


@pytest.mark.parametrize("is_silent", [True, False])
def test_only_after_silence_packets_are_small(
    names: Names, watch: Callable[..., Watched], brokers: Callable[[str], Broker], port: int, is_silent: bool
) -> None:
    names.addresses = (FIRST,)
    broker = brokers(FIRST)
    link = watch(port)
    link.wait_for(Connected)
    if is_silent:
        link.link.break_off("nothing was acknowledged")
    else:
        broker.kill()
        broker.start()
    link.wait_for(Connected, 2)
    [segment] = [
        one.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
        for one in _connections()
        if one.getpeername() == (FIRST, port)
    ]
    assert (segment <= 536) == is_silent
