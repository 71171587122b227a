"""A network that comes up is noticed, so that nobody waits for the next try for longer than that."""

import contextlib
import socket
import subprocess
import time

import pytest

from ivy.backend import backoff, link_events, mqtt_link
from ivy.types.config import MQTTBrokerConfig
from tests.broker.conftest import free_port
from tests.broker.node import PROJECT

_WATCH = """
import select, subprocess
from ivy.backend.network_news import NetworkNews
news = NetworkNews()
assert not news.are_good()
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
assert select.select([news.socket], [], [], 10)[0] and news.are_good()
assert not news.are_good()
subprocess.run(["ip", "link", "set", "lo", "down"], check=True)
select.select([news.socket], [], [], 10)
assert not news.are_good()
print("well")
"""


def test_an_address_that_comes_is_good_news_and_one_that_goes_is_not() -> None:
    alone = ["unshare", "--user", "--map-root-user", "--net"]
    command = [*alone, "/usr/bin/python3", "-c", _WATCH]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=30)
    assert done.stdout == "well\n", done.stderr


class _News:
    """News that a test makes."""

    def __init__(self) -> None:
        self.writer, self.socket = socket.socketpair()
        self.socket.setblocking(False)

    def are_good(self) -> bool:
        with contextlib.suppress(BlockingIOError):
            return bool(self.socket.recv(100))
        return False

    def close(self) -> None:
        self.writer.close()
        self.socket.close()


def _next_loss(link: mqtt_link.MQTTLink, wake: socket.socket, timeout: float) -> link_events.Disconnected | None:
    deadline = time.monotonic() + timeout
    while (rest := deadline - time.monotonic()) > 0:
        for event in link.wait(wake, rest):
            if isinstance(event, link_events.Disconnected):
                return event
    return None


def test_good_news_end_the_wait_for_the_next_try(monkeypatch: pytest.MonkeyPatch) -> None:
    news = _News()
    monkeypatch.setattr(mqtt_link, "NetworkNews", lambda: news)
    monkeypatch.setattr(mqtt_link, "_SECONDS_TO_SETTLE", 0.0)
    monkeypatch.setattr(backoff, "_FIRST", 600.0)
    settings = MQTTBrokerConfig(host="127.0.0.1", port=free_port(), client_id="c", username="u", password="p")
    link = mqtt_link.MQTTLink(settings, ())
    reader, writer = socket.socketpair()
    with contextlib.closing(news), reader, writer:
        loss = _next_loss(link, reader, 10)
        assert loss is not None
        assert loss.seconds_to_next_try > 100
        news.writer.send(b"!")
        assert _next_loss(link, reader, 10) is not None
