"""The connection: what happens when a broker refuses, says nothing, talks nonsense, stalls or goes away."""

import json
import os
import socket
import time
from collections.abc import Generator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from testbed.broker import OPERATOR, Broker, Tls
from testbed.waiting import wait_for

from ivy.cli.doctor import checks_network
from ivy.types import link_report
from tests.broker.configs import config_for
from tests.broker.fake import CONNACK, Broker5, FakeBroker, HangingUp, TalkingNonsense
from tests.support.backend_node import (
    PASSWORD,
    SENSOR,
    MakeNode,
    Node,
    Process,
    data_message,
    free_port,
    stop,
    wake_ups,
)
from tests.support.openssl import openssl
from tests.support.recorder import Recorder

AT_ONCE = 2.0  # seconds
HASTY = {"to_try_again": 0.02}


def _reason(node: Node) -> str:
    return str(node.link.get("reason"))


def _wait_for_reason(node: Node, text: str) -> None:
    wait_for(lambda: text in _reason(node), 10, f"the reason {text!r}")


def _wait_for_status(node: Node, *texts: str) -> None:
    def shown() -> bool:
        return any(all(text in status for text in texts) for status in list(node.status.texts))

    wait_for(shown, 10, f"a status with {texts}")


def test_refused_credentials_are_named_once_and_tried_ever_more_slowly(
    make_node: MakeNode, broker: Broker, recorder: Recorder
) -> None:
    node = make_node(broker.port, password="wrong")
    began = time.monotonic()
    node.start()
    _wait_for_status(node, "not connected", "refused the connection", "Not authorized", "next try in")
    wait_for(lambda: _tries(broker) >= 3, 20, "three tries")
    assert time.monotonic() - began >= 0.5 + 1.0  # the least of the waits that backoff may choose
    assert node.log.count("No connection") == 1
    assert "Not authorized" in node.log
    assert PASSWORD not in node.log
    assert node.queue_length() == 0  # a link's trouble does not go into the queue it cannot empty
    assert _reason(node).startswith(f"127.0.0.1:{broker.port} refused the connection")


def _tries(broker: Broker) -> int:
    return broker.log.read_text().count("not authorised")


def test_a_broker_that_never_answers_is_given_up(make_node: MakeNode) -> None:
    with FakeBroker() as broker:
        node = make_node(broker.port)
        process = node.start(hurry={"to_connect": 0.5, **_often()})
        _wait_for_reason(node, f"no answer from 127.0.0.1:{broker.port} within")
        wait_for(lambda: broker.connections >= 2, 10, "another try")
        assert process.poll() is None


def _often() -> dict[str, float]:
    return {"between_reports": 0.1}


NONSENSE = {
    "HTTP": b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
    "zeros": bytes(100),
    "ones": b"\xff" * 100,
    "a CONNACK with a code that there is not": b"\x20\x02\x00\xee",
    "a CONNACK that wants another version": b"\x20\x02\x00\x01",
    "a CONNACK that is too short": b"\x20\x00",
    "a CONNACK that is too long": b"\x20\x7f" + bytes(127),
    "a SUBACK without codes": CONNACK + b"\x90\x02\x00\x01" + b"\xf0\x00",
    "a SUBACK with a code that there is not": CONNACK + b"\x90\x03\x00\x01\x77",
    "a PUBLISH without anything": CONNACK + b"\x30\x00",
    "a PUBLISH whose topic is longer than itself": CONNACK + b"\x30\x04\xff\xff\x00\x00",
    "a PUBACK without identifier": CONNACK + b"\x40\x00",
    "a PUBLISH with a topic that is no text": CONNACK + b"\x30\x04\x00\x01\xff\x00" + b"\xf0\x00",
}


@pytest.mark.parametrize("answer", NONSENSE.values(), ids=NONSENSE.keys())
def test_a_broker_that_talks_nonsense_is_given_up(make_node: MakeNode, answer: bytes) -> None:
    with TalkingNonsense(answer) as broker:
        node = make_node(broker.port)
        process = node.start(hurry={"to_connect": 0.5, **_often(), **HASTY})
        wait_for(lambda: len(broker.greetings) >= 3, 10, "other tries")
        assert all(b"\x00\x04MQTT" in greeting for greeting in broker.greetings)
        assert process.poll() is None
        assert "No connection" in node.log
        assert "Traceback" not in node.log


def test_it_connects_when_the_broker_has_come_to_its_senses(make_node: MakeNode, tmp_path: Path) -> None:
    with TalkingNonsense(NONSENSE["a PUBACK without identifier"]) as fake:
        node = make_node(fake.port)
        process = node.start(hurry=HASTY)
        wait_for(lambda: fake.connections >= 2, 10, "another try")
    users = {SENSOR: PASSWORD, OPERATOR: PASSWORD}
    with (
        Broker("127.0.0.1", fake.port, users, directory=tmp_path / "broker") as broker,
        closing(Recorder(broker.address, broker.port, OPERATOR, PASSWORD)),
    ):
        node.add(data_message(number=1))
        node.wait_until_empty()
        assert process.poll() is None


def test_a_stalled_connection_is_remade(node: Node, broker: Broker, recorder: Recorder) -> None:
    node.start(hurry={"until_stalled": 0.5, **_often()})
    node.wait_until_connected()
    broker.pause()
    node.add(data_message(number=1))
    _wait_for_reason(node, "acknowledged nothing for")
    assert node.queue_length() == 1
    broker.resume()
    node.wait_until_empty()
    recorder.wait_for_element("measurements", 5, "the message", '"number": 1')


class Silent(Broker5):
    """Answers all but publications, until it is told to."""

    answers = False

    def judge(self, topic: str, elements: list[Any]) -> int | None:
        return 0 if self.answers else None


def test_a_broker_that_acknowledges_nothing_is_a_problem_over_all_connections(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Silent() as broker:
        node = make_node(broker.port)
        node.add(data_message(number=1))
        node.start(hurry={"until_stalled": 0.5, "until_stuck": 1.5, **_often(), **HASTY})
        wait_for(lambda: node.link.get("stuck_since"), 20, "the trouble to be told")
        assert node.link["has_delivered"] is False
        wait_for(lambda: broker.connections >= 2, 10, "another connection")
        _wait_for_status(node, "s ago is not acknowledged")
        monkeypatch.setattr(link_report, "LINK_REPORT_FILE", str(node.data / "run-backend" / "link.json"))
        config = config_for(broker.port)

        def found() -> str | None:
            [login] = [each for each in checks_network.backend(config) if each.check == "login"]
            return login.text if "has not acknowledged what was sent" in login.text else None

        wait_for(found, 20, "doctor to say so")
        broker.answers = True
        node.wait_until_empty()
        wait_for(lambda: node.link["stuck_since"] is None, 10, "the end of the trouble")
        assert node.link["has_delivered"] is True


class Forgetful(Broker5):
    """Forgets to answer to one publication."""

    has_forgotten = False

    def judge(self, topic: str, elements: list[Any]) -> int | None:
        if "13.5" in json.dumps(elements) and not self.has_forgotten:
            self.has_forgotten = True
            return None
        return 0


def test_what_is_not_acknowledged_while_others_are_is_sent_again(make_node: MakeNode) -> None:
    with Forgetful() as broker:
        node = make_node(broker.port, max_parallel_messages=2)
        node.start(hurry={"until_stalled": 0.5, **_often(), **HASTY})
        node.add(data_message(number=13.5))
        number = 0
        while 13.5 not in broker.numbers():
            node.add(data_message(number=number))
            number += 1
            assert number < 10_000
        node.wait_until_empty()


def test_a_slow_broker_is_not_a_stalled_one(node: Node, broker: Broker, recorder: Recorder) -> None:
    """The time begins when something is sent, not when the last answer came."""
    node.start(hurry={"until_stalled": 2.0, **_often()})
    node.wait_until_connected()
    since, reports = node.link["since"], len(node.status.texts)
    wait_for(lambda: len(node.status.texts) > reports + 22, 10, "a rest longer than that")
    node.add(data_message(number=1))
    node.wait_until_empty()
    assert node.link["since"] == since


def test_the_link_report_tells_what_is(node: Node, broker: Broker) -> None:
    process = node.start()
    node.wait_until_connected()
    address = f"127.0.0.1:{broker.port}"
    report = node.link
    assert abs(report.pop("since") - time.time()) < 10
    assert report == {
        "broker": address,
        "connected": True,
        "reason": None,
        "warning": None,
        "last_acknowledged": None,
        "has_delivered": False,
        "stuck_since": None,
        "protocol": "5",
        "troubles": [],
        "nobody_listens": False,
        "invocation": "",
    }
    broker.stop()
    _wait_for_reason(node, f"cannot connect to {address}: [Errno 111] Connection refused")
    assert node.link["connected"] is False
    assert stop(process, 5) == 0
    assert node.link["reason"] == "the backend was stopped"


def test_the_link_report_tells_when_the_broker_took_messages(
    node: Node, broker: Broker, recorder: Recorder
) -> None:
    process = node.start(hurry={"between_renewals": 0.1, **_often()})
    node.wait_until_connected()
    since = node.link["since"]
    before = time.time()
    node.add(data_message(number=1))
    wait_for(lambda: (node.link["last_acknowledged"] or 0) >= before, 10, "the report")
    assert node.link["since"] == since and node.link["connected"] is True
    acknowledged = node.link["last_acknowledged"]
    assert stop(process, 5) == 0
    node.start()
    node.wait_until_connected()
    assert node.link["last_acknowledged"] == acknowledged, "a restart forgets nothing"


def test_the_link_report_of_a_killed_backend_is_not_believed(make_node: MakeNode) -> None:
    with FakeBroker() as broker:
        node = make_node(broker.port)
        (node.data / "run-backend").mkdir()
        stale = {"broker": f"127.0.0.1:{broker.port}", "connected": True, "since": 1.7e9, "reason": None}
        (node.data / "run-backend" / "link.json").write_text(json.dumps(stale))
        node.start()
        wait_for(lambda: node.link["connected"] is False, 10, "another report")


def test_the_status_line_tells_what_matters(node: Node, broker: Broker, recorder: Recorder) -> None:
    node.start(hurry=_often())
    _wait_for_status(node, f"connected to 127.0.0.1:{broker.port}, 0 queued, nothing sent yet")
    node.add(data_message(number=1))
    _wait_for_status(node, f"connected to 127.0.0.1:{broker.port}, 0 queued, last sent ", " s ago")
    broker.stop()
    node.add(data_message(number=2))
    _wait_for_status(node, "not connected: ", "Connection refused; next try in", ", 1 queued")


def test_a_connection_that_is_remade_leaves_nothing_behind(make_node: MakeNode) -> None:
    with HangingUp() as broker:
        node = make_node(broker.port)
        process = node.start(hurry={"to_try_again": 0.001, "longest_unanswered": 0.01})
        wait_for(lambda: broker.connections >= 20, 10, "some tries")
        open_before = _most_descriptors(process, broker)
        wait_for(lambda: broker.connections >= 200, 20, "many tries")
        assert _most_descriptors(process, broker) <= open_before + 3


def _most_descriptors(process: Process, broker: FakeBroker) -> int:
    """While it makes a few connections."""
    seen: list[int] = []
    enough = broker.connections + 10

    def look() -> bool:
        seen.append(len(os.listdir(f"/proc/{process.pid}/fd")))
        return broker.connections >= enough

    wait_for(look, 10, "some tries", interval=0.001)
    return max(seen)


def test_an_idle_connection_hardly_wakes_the_processor(node: Node) -> None:
    process = node.start()
    node.wait_until_connected()
    reports = len(node.status.texts)
    began, before = time.monotonic(), wake_ups(process.pid)
    wait_for(lambda: len(node.status.texts) >= reports + 2, 20, "two more reports")
    assert (wake_ups(process.pid) - before) / (time.monotonic() - began) <= 0.5


def test_sigterm_ends_it_at_once_without_a_link(make_node: MakeNode) -> None:
    node = make_node(free_port())
    node.add(data_message(number=1))
    process = node.start()
    _wait_for_reason(node, "Connection refused")
    assert stop(process, AT_ONCE) == 0
    assert node.queue_length() == 1


@pytest.mark.parametrize("most", [0, 1])
def test_sigterm_ends_it_within_the_time_to_drain(make_node: MakeNode, broker: Broker, most: int) -> None:
    node = make_node(broker.port, max_drain_time=most)
    process = node.start()
    node.wait_until_connected()
    broker.pause()
    node.add(data_message(number=1))
    began = time.monotonic()
    assert stop(process, most + AT_ONCE) == 0
    assert time.monotonic() - began >= most
    assert node.queue_length() == 1


@pytest.fixture
def full_port() -> Generator[int, None, None]:
    """A port whose queue of connections is full: whoever connects hears nothing."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield int(listener.getsockname()[1])


def test_sigterm_ends_it_at_once_while_it_connects(make_node: MakeNode, full_port: int) -> None:
    node = make_node(full_port)
    process = node.start()
    _wait_for_status(node, f"connecting to 127.0.0.1:{full_port}")
    assert stop(process, AT_ONCE) == 0


def test_sigterm_ends_it_at_once_while_it_waits_for_the_connack(make_node: MakeNode) -> None:
    with FakeBroker() as broker:
        node = make_node(broker.port)
        process = node.start()
        wait_for(lambda: broker.connections == 1, 10, "the connection")
        _wait_for_status(node, "connecting to")
        assert stop(process, AT_ONCE) == 0


@pytest.fixture
def authorities(tmp_path: Path) -> Path:
    """A directory with two certificate authorities, and a certificate for 127.0.0.1 by the first of them."""
    for name in ("right", "wrong"):
        openssl(tmp_path, "req", "-x509", "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem")
    extension = tmp_path / "extension"
    extension.write_text("subjectAltName=IP:127.0.0.1")
    openssl(tmp_path, "req", "-subj", "/CN=broker", "-keyout", "broker.key", "-out", "broker.csr")
    signing = ["-CA", "right.pem", "-CAkey", "right.key", "-CAcreateserial", "-extfile", "extension"]
    openssl(tmp_path, "x509", "-req", "-in", "broker.csr", *signing, "-out", "broker.pem")
    return tmp_path


@pytest.fixture
def tls_broker(authorities: Path) -> Generator[Broker, None, None]:
    """A broker that speaks TLS only."""
    tls = Tls(authorities / "broker.pem", authorities / "broker.key")
    users = {SENSOR: PASSWORD, OPERATOR: PASSWORD}
    with (
        Broker("127.0.0.1", free_port(), users, directory=authorities / "broker", tls=tls) as broker,
        closing(Recorder(broker.address, broker.port, OPERATOR, PASSWORD, authorities / "right.pem")),
    ):
        yield broker


def test_tls_with_the_right_authority(make_node: MakeNode, authorities: Path, tls_broker: Broker) -> None:
    tls = {"enabled": True, "ca_file": str(authorities / "right.pem")}
    node = make_node(tls_broker.port, tls=tls)
    node.fill(data_message(number=number) for number in range(2000))
    node.start()
    node.wait_until_empty()
    assert node.link["connected"] is True


def test_tls_with_a_wrong_authority_is_refused(make_node: MakeNode, authorities: Path, tls_broker: Broker) -> None:
    node = make_node(tls_broker.port, tls={"enabled": True, "ca_file": str(authorities / "wrong.pem")})
    node.start()
    _wait_for_reason(node, "certificate verify failed")
    assert node.link["connected"] is False


def test_tls_with_another_host_name_is_refused(make_node: MakeNode, authorities: Path, tls_broker: Broker) -> None:
    tls = {"enabled": True, "ca_file": str(authorities / "right.pem")}
    node = make_node(tls_broker.port, host="localhost", tls=tls)
    node.start()
    _wait_for_reason(node, "certificate verify failed")
    assert node.link["connected"] is False


@pytest.mark.parametrize("kind", ["pipe", "device", "directory"])
def test_what_is_no_certificate_file_is_not_waited_for(
    make_node: MakeNode, authorities: Path, tls_broker: Broker, kind: str
) -> None:
    """An operator can offer any path, and a procedure can make a pipe."""
    os.mkfifo(authorities / "pipe")
    path = {"pipe": authorities / "pipe", "device": Path("/dev/zero"), "directory": authorities}[kind]
    node = make_node(tls_broker.port, tls={"enabled": True, "ca_file": str(path)})
    node.start(hurry=HASTY)
    _wait_for_reason(node, f"is not a regular file: '{path}'")
    config = config_for(tls_broker.port, tls={"enabled": True, "ca_file": str(path)})
    [tls] = [finding for finding in checks_network.backend(config) if finding.check == "tls"]
    assert not tls.ok and str(path) in tls.text


def test_a_certificate_file_may_come_later(make_node: MakeNode, authorities: Path, tls_broker: Broker) -> None:
    late = authorities / "late.pem"
    node = make_node(tls_broker.port, tls={"enabled": True, "ca_file": str(late)})
    node.start(hurry=HASTY)
    _wait_for_reason(node, str(late))
    late.write_bytes((authorities / "right.pem").read_bytes())
    node.wait_until_connected()
