"""A wrong clock locks nobody out: the dates of certificates count only while the clock is synchronised."""

import os
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from testbed.broker import OPERATOR, Broker, Tls
from testbed.waiting import wait_for

from ivy.backend.delays import Backoff
from ivy.backend.mqtt_link import Disconnected, MQTTLink
from ivy.cli.doctor import checks_network
from ivy.types.config import MQTTBrokerConfig
from ivy.utils.host import clock
from tests.broker.configs import config_for
from tests.broker.fake import TalkingNonsense
from tests.support.backend_node import PASSWORD, SENSOR, MakeNode, Node, data_message, free_port
from tests.support.openssl import issue, openssl

PAST, FUTURE, FAR = "20200101000000Z", "20900101000000Z", "20990101000000Z"
CERTIFICATES = {
    "good": ("IP:127.0.0.1", PAST, FAR),
    "future": ("IP:127.0.0.1", FUTURE, FAR),
    "expired": ("IP:127.0.0.1", PAST, "20200201000000Z"),
    "misnamed": ("DNS:other.example.org", FUTURE, FAR),
}
ONE_SECOND = 1.0
"""For what does not come."""

OFTEN = {"to_try_again": 0.02, "between_reports": 0.1}
UNCHECKED = "the dates of the broker's certificates are not checked, as the clock is not synchronised"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with an authority, another one, and certificates of the first."""
    directory = tmp_path_factory.mktemp("certificates")
    for name in ("right", "wrong"):
        openssl(directory, "req", "-x509", "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem")
    for name, (san, begin, end) in CERTIFICATES.items():
        issue(directory, "right", name, san, begin, end)
    return directory


StartBroker = Callable[[str], Broker]


@pytest.fixture
def start_broker(tmp_path: Path, certificates: Path) -> Generator[StartBroker, None, None]:
    """Starts a broker that has the certificate of this name."""
    with ExitStack() as stack:

        def start(name: str) -> Broker:
            tls = Tls(certificates / f"{name}.pem", certificates / f"{name}.key")
            users = {SENSOR: PASSWORD, OPERATOR: PASSWORD}
            broker = Broker("127.0.0.1", free_port(), users, directory=tmp_path / "broker", tls=tls)
            return stack.enter_context(broker)

        yield start


@pytest.fixture
def start_node(make_node: MakeNode, certificates: Path) -> Callable[..., Node]:
    """Starts a node whose clock is synchronised, or is not."""

    def start(broker: Broker, *, synchronised: bool, authority: str = "right", **tls: Any) -> Node:
        files = {"enabled": True, "ca_file": str(certificates / f"{authority}.pem")}
        node = make_node(broker.port, tls={**files, **tls}, protocol="3.1.1")  # nobody need listen there
        levels = {**node.config["logging_verbosity"], "message_sending": "WARNING"}
        node.write_config({**node.config, "logging_verbosity": levels})
        node.fake("timedatectl", f"echo {'yes' if synchronised else 'no'}")
        node.start(hurry=OFTEN)
        return node

    return start


def _refused(node: Node, why: str) -> None:
    wait_for(lambda: why in str(node.link.get("reason")), 20, f"the reason {why!r}")
    assert node.link["connected"] is False


@pytest.mark.parametrize("certificate", ["future", "expired"])
def test_a_clock_that_is_not_synchronised_locks_nobody_out(
    start_broker: StartBroker, start_node: Callable[..., Node], certificate: str
) -> None:
    node = start_node(start_broker(certificate), synchronised=False)
    node.wait_until_connected()
    node.add(data_message(number=1))
    node.wait_until_empty()
    assert node.link["warning"].startswith(UNCHECKED)
    assert UNCHECKED in node.archive()  # a message to the operator, which was sent with the others


def test_the_operator_is_told_once(start_broker: StartBroker, start_node: Callable[..., Node]) -> None:
    broker = start_broker("future")
    node = start_node(broker, synchronised=False)
    for _ in range(2):
        node.wait_until_connected()
        broker.stop()
        wait_for(lambda: not node.link["connected"], 20, "the loss")
        broker.start()
    node.wait_until_connected()
    assert node.archive().count(UNCHECKED) == 1


@pytest.mark.parametrize(
    ("certificate", "why"), [("future", "not yet valid"), ("expired", "certificate has expired")]
)
def test_with_a_synchronised_clock_dates_count(
    start_broker: StartBroker, start_node: Callable[..., Node], certificate: str, why: str
) -> None:
    _refused(start_node(start_broker(certificate), synchronised=True), why)


def test_who_wants_dates_to_count_always_gets_that(
    start_broker: StartBroker, start_node: Callable[..., Node]
) -> None:
    node = start_node(start_broker("future"), synchronised=False, check_dates="always")
    _refused(node, "not yet valid")


@pytest.mark.parametrize(
    ("certificate", "authority", "why"),
    [("future", "wrong", "verify failed"), ("misnamed", "right", "IP address mismatch")],
)
def test_authority_and_name_are_checked_whatever_the_clock_says(
    start_broker: StartBroker, start_node: Callable[..., Node], certificate: str, authority: str, why: str
) -> None:
    _refused(start_node(start_broker(certificate), synchronised=False, authority=authority), why)


def test_a_good_certificate_is_checked_as_ever(start_broker: StartBroker, start_node: Callable[..., Node]) -> None:
    node = start_node(start_broker("good"), synchronised=False)
    node.wait_until_connected()
    assert node.link["warning"] is None
    assert UNCHECKED not in node.archive()


def test_once_the_clock_is_synchronised_the_connection_is_checked_again(
    start_broker: StartBroker, start_node: Callable[..., Node]
) -> None:
    node = start_node(start_broker("expired"), synchronised=False)
    node.wait_until_connected()
    (node.data / "run" / "synchronized").touch()
    _refused(node, "certificate has expired")


def test_doctor_says_that_dates_are_not_checked(
    start_broker: StartBroker, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = start_broker("future")
    config = config_for(broker.port, tls={"enabled": True, "ca_file": str(certificates / "right.pem")})
    for synchronised, said in ((False, UNCHECKED), (True, "not yet valid")):
        monkeypatch.setattr(clock, "is_synchronised", lambda answer=synchronised: answer)
        [tls] = [finding for finding in checks_network.backend(config) if finding.check == "tls"]
        assert not tls.ok and said in tls.text


def test_a_service_notices_within_seconds_that_the_clock_was_set(make_node: MakeNode) -> None:
    with TalkingNonsense(b"\x20\x02\x00\x05") as broker:  # it refuses the password
        node = make_node(broker.port, protocol="3.1.1")  # or another version would be tried first
        node.fake("timedatectl", "echo no")
        node.start(hurry={"to_try_again": 600.0})
        _refused(node, "refused the connection")
        assert broker.connections == 1
        (node.data / "run" / "synchronized").touch()
        wait_for(lambda: broker.connections == 2, 20, "another try")


@pytest.fixture
def waiting_link(monkeypatch: pytest.MonkeyPatch) -> Generator[MQTTLink, None, None]:
    """A link that was not answered, and waits for ten minutes before it tries again."""
    monkeypatch.setattr(clock, "is_synchronised", lambda: False)
    settings = MQTTBrokerConfig(host="127.0.0.1", port=free_port(), client_id="c", username="u", password="p")
    with closing(MQTTLink(settings, (), Backoff(lambda least, most: 600.0))) as link:
        [loss] = _losses(link, 1)
        assert loss.seconds_to_next_try == 600.0
        yield link


def _losses(link: MQTTLink, count: int, seconds: float = 20) -> list[Disconnected]:
    """So many losses; fewer if they do not come within some seconds."""
    losses: list[Disconnected] = []
    nobody = os.eventfd(0)
    deadline = time.monotonic() + seconds
    while len(losses) < count and time.monotonic() < deadline:
        losses += [event for event in link.wait(nobody, 0.1) if isinstance(event, Disconnected)]
    os.close(nobody)
    return losses


@pytest.mark.parametrize("seconds", [1e8, -3600.0])
def test_a_clock_that_is_stepped_ends_the_pause(
    waiting_link: MQTTLink, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    assert not _losses(waiting_link, 1, ONE_SECOND)
    really = time.time
    monkeypatch.setattr(time, "time", lambda: really() + seconds)
    assert _losses(waiting_link, 1)
    assert not _losses(waiting_link, 1, ONE_SECOND), "it was one step"


def test_a_clock_that_becomes_synchronised_ends_the_pause(
    waiting_link: MQTTLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not _losses(waiting_link, 1, ONE_SECOND)
    monkeypatch.setattr(clock, "is_synchronised", lambda: True)
    assert _losses(waiting_link, 1)
    assert not _losses(waiting_link, 1, ONE_SECOND)
