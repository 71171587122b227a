"""When the next try to connect is made, and that nothing but time brings it on."""

import contextlib
import socket
import subprocess
import sys

import pytest

from ivy.backend.delays import Backoff
from ivy.backend.mqtt_link import Disconnected, MQTTLink
from ivy.types.config import MQTTBrokerConfig
from tests.broker.fake import CONNACK, TalkingNonsense
from tests.support.backend_node import PROJECT, free_port

# A router advertises itself every few seconds, and each time the kernel tells all who listen of a "new" address.
_REFRESH = """
import socket, subprocess, time
from ivy.backend.delays import Backoff
from ivy.backend.mqtt_link import Disconnected
from ivy.backend.mqtt_link import MQTTLink
from ivy.types.config import MQTTBrokerConfig

subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
settings = MQTTBrokerConfig(host="127.0.0.1", port=1, client_id="c", username="u", password="p")
link = MQTTLink(settings, (), Backoff(lambda least, most: 600.0))
reader, writer = socket.socketpair()
losses = []
deadline = time.monotonic() + 3
while time.monotonic() < deadline:
    losses += [event for event in link.wait(reader, 0.2) if isinstance(event, Disconnected)]
    change = ["ip", "address", "replace", "192.0.2.1/24", "dev", "lo", "valid_lft", "99", "preferred_lft", "99"]
    subprocess.run(change, check=True)
print(len(losses), losses[0].seconds_to_next_try)
"""


def test_a_refreshed_address_brings_no_try_on() -> None:
    alone = ["unshare", "--user", "--map-root-user", "--net"]
    command = [*alone, sys.executable, "-c", _REFRESH]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=60)
    assert done.stdout == "1 600.0\n", done.stderr


class _Recording(Backoff):
    """Waits for nothing, and keeps what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[bool, bool]] = []

    def next_delay(self, *, useful: bool, refused: bool, lasted: float) -> float:
        self.told.append((useful, refused))
        return 0.0


def _lose_twice(port: int, subscriptions: tuple[str, ...] = ()) -> list[tuple[bool, bool]]:
    """What the backoff is told of the first two connections: whether they were of use, and whether refused."""
    settings = MQTTBrokerConfig(host="127.0.0.1", port=port, client_id="c", username="u", password="p")
    backoff = _Recording()
    link = MQTTLink(settings, subscriptions, backoff)
    reader, writer = socket.socketpair()
    with contextlib.closing(link), reader, writer:
        losses = 0
        while losses < 2:
            losses += sum(isinstance(event, Disconnected) for event in link.wait(reader, 10))
    return backoff.told[:2]


def test_nobody_who_listens_is_no_refusal() -> None:
    assert _lose_twice(free_port()) == [(False, False)] * 2


@pytest.mark.parametrize(
    ("answer", "subscriptions"),
    [(b"\x20\x02\x00\x05", ()), (CONNACK + b"\x90\x03\x00\x01\x80", ("topic",))],
    ids=["not authorised", "not to subscribe"],
)
def test_a_brokers_no_is_a_refusal(answer: bytes, subscriptions: tuple[str, ...]) -> None:
    with TalkingNonsense(answer) as broker:
        assert _lose_twice(broker.port, subscriptions) == [(False, True)] * 2
