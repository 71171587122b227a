"""What only ThingsBoard has: its three ways to log in, limits, attributes at connect, remote calls."""

import json
import math
import ssl
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import psutil
import pytest
from testbed.waiting import wait_for

from tests.support.backend_node import PASSWORD, SENSOR, MakeNode, Node, data_message, ended
from tests.support.openssl import openssl
from tests.support.platforms import ThingsBoardPlatform, judged
from tests.support.thingsboard_server import BAD_CREDENTIALS, GRANTED, TRY_LATER, ThingsBoardServer
from tests.support.validators import thingsboard

HASTY = {"to_try_again": 0.02}


@pytest.fixture
def platform() -> Generator[ThingsBoardPlatform, None, None]:
    """A server, and what has arrived there."""
    platform = ThingsBoardPlatform()
    with judged(platform):
        yield platform


@pytest.fixture
def server(platform: ThingsBoardPlatform) -> ThingsBoardServer:
    """The server itself."""
    return platform.server


@pytest.fixture
def node(make_node: MakeNode, server: ThingsBoardServer) -> Node:
    """A node that is configured for the server."""
    return make_node(server.port, provider="thingsboard")


def _published(server: ThingsBoardServer, topic: str) -> list[Any]:
    return [json.loads(arrival.payload) for arrival in list(server.arrivals) if arrival.topic == topic]


def _answer(server: ThingsBoardServer, method: str, params: Any = None) -> Any:
    number = server.call(method, params)
    return wait_for(lambda: server.answers.get(number), 10, f"the answer to {method}")


def test_it_says_who_it_is_at_each_connect(node: Node, server: ThingsBoardServer) -> None:
    node.start(hurry=HASTY)
    wait_for(lambda: _published(server, thingsboard.ATTRIBUTES), 10, "the attributes")
    server.cut()
    wait_for(lambda: len(_published(server, thingsboard.ATTRIBUTES)) == 2, 10, "the attributes again")
    told = _published(server, thingsboard.ATTRIBUTES)[0]
    assert told["config_revision"] == 2
    assert told["hostname"] == Path("/proc/sys/kernel/hostname").read_text().strip()


def test_calls_are_answered(node: Node, server: ThingsBoardServer) -> None:
    node.fake("systemctl", "echo ActiveState=active")
    node.start()
    node.wait_until_connected()
    assert _answer(server, "ping") == {"success": True, "result": "pong"}
    status = _answer(server, "status")["result"]
    assert status["config_revision"] == 2
    assert status["queued"] == 0
    assert _answer(server, "restart", "system-checks")["success"] is True
    assert (node.data / "run-backend" / "restart-system-checks").exists()
    for method, params in (("restart", "../../bin/sh"), ("restart", None), ("exec", "rm"), ("", None)):
        answer = _answer(server, method, params)
        assert answer["success"] is False
        assert answer["error"]
    assert [path.name for path in (node.data / "run-backend").glob("restart-*")] == ["restart-system-checks"]


def _root(node: Node, method: str) -> None:
    """What units/ivy-call@.service does when it sees a flag."""
    (node.data / "run-answers").mkdir(exist_ok=True)
    flag = node.data / "run-backend" / f"call-{method}"
    wait_for(flag.exists, 10, "the flag for root")
    assert ended(node.spawn(["-m", "ivy", "call", method])) == 0
    assert not flag.exists()


def test_calls_are_answered_by_root(node: Node, server: ThingsBoardServer) -> None:
    node.fake("systemctl", "echo ActiveState=active")
    node.fake("journalctl", f"seq 1 20000 | sed 's/$/ {PASSWORD} {'x' * 1500}/' | tail -n 200")
    units = node.config_file.parents[1] / "units"
    units.mkdir()
    (units / "ivy-system-checks.service").touch()
    node.start(hurry={"to_answer": 60.0})  # root takes its time on a machine that is busy
    node.wait_until_connected()
    methods = {each["method"] for each in _answer(server, "list")["result"]["methods"]}
    assert {"help", "ping", "status", "doctor", "logs", "restart", "reboot", "resend", "rollback"} < methods
    number = server.call("logs", {"name": "system-checks", "lines": 200})
    _root(node, "logs")
    lines = wait_for(lambda: server.answers.get(number), 20, "the answer of root")["result"]["lines"]
    assert lines[-1].startswith("20000 *** xxx"), "the newest, and no secret of the config"
    assert len(json.dumps(lines)) < 60_000
    bad = _answer(server, "logs", {"lines": 1000})
    assert bad == {"success": False, "error": '"lines" must be an integer from 1 to 200; 50 if it is left out'}
    assert "did you mean system-checks" in _answer(server, "logs", {"name": "sytem-checks"})["error"]
    assert "did you mean reboot" in _answer(server, "rebot")["error"]


def test_what_takes_longer_is_begun_and_told_later(node: Node, platform: ThingsBoardPlatform) -> None:
    server = platform.server
    node.fake("systemctl", "echo ActiveState=active")
    node.fake("ivy", "echo 'ivy: there is nothing to go back to' >&2; exit 2")
    node.start(hurry={"to_answer": 0.1, "between_late_looks": 0.1})
    node.wait_until_connected()
    assert _answer(server, "rollback")["result"].startswith("begun")
    _root(node, "rollback")

    def told() -> list[Any]:
        elements = [element for batch in _published(server, thingsboard.TELEMETRY) for element in batch]
        values = [element.get("values", {}) for element in elements]  # versions have no time
        logged = [found["logging"] for found in values if "logging" in found]
        return [line for line in logged if line["body"] == "there is nothing to go back to"]

    wait_for(told, 10, "the message about it")
    assert told()[0]["subject"].endswith("The remote call rollback failed")


def test_a_large_sample_arrives_whole_before_it_leaves_the_queue(node: Node, platform: ThingsBoardPlatform) -> None:
    data = {f"key {number}": "x" * 1000 for number in range(200)}
    node.start(hurry=HASTY)
    node.wait_until_connected()
    node.add({"variant": "data", "data": data})
    node.wait_until_empty()
    arrived: dict[str, Any] = {}
    for _, values in platform.samples():
        arrived |= values
    assert arrived == data


LIMITS = {
    "maxInflightMessages": 100,
    # By the first of them each third message would have to wait for minutes, if it counted for telemetry.
    "rateLimits": {"messages": "3:1,20:600", "telemetryMessages": "10:1,600:60", "telemetryDataPoints": "100:1"},
}


def test_the_backlog_keeps_to_the_limits_and_live_samples_go_first(
    make_node: MakeNode, server: ThingsBoardServer, platform: ThingsBoardPlatform
) -> None:
    """The server breaks the connection of who does not, and the platform's fixture forbids that."""
    server.limits = LIMITS
    node = make_node(server.port, provider="thingsboard", max_parallel_messages=45)  # allowed, with the versions
    node.fill(data_message(number=number, other=1) for number in range(400))
    node.start()
    node.wait_until_connected()
    wait_for(lambda: len(platform.samples()) >= 100, 20, "some of the backlog")
    node.add(data_message(number=-1))
    node.wait_until_empty(60)
    arrivals = [a for a in list(server.arrivals) if a.topic == thingsboard.TELEMETRY and b'"ts"' in a.payload]
    points = [(a.time, sum(len(e["values"]) for e in json.loads(a.payload))) for a in arrivals]
    limited = points[3:]  # the first window may have gone out before the answer came
    for begin, _ in limited:
        second = [count for moment, count in limited if begin <= moment < begin + 1]
        assert sum(second) <= 2 * 80 + 2  # a bucket that was full, and what came into it meanwhile
        assert len(second) <= 2 * 8 + 1
    numbers = [values["number"] for _, values in platform.samples()]
    assert numbers.index(-1) < 250
    assert set(numbers) == set(range(-1, 400))
    assert points[-1][0] - points[0][0] > 400 * 2 / 100 - 3


def test_who_may_send_nothing_more_does_not_look_again_and_again(make_node: MakeNode) -> None:
    with ThingsBoardServer(lambda *_: GRANTED) as server:
        server.limits = {"maxInflightMessages": 2}
        node = make_node(server.port, provider="thingsboard", max_parallel_messages=10_000)
        node.fill(data_message(number=number) for number in range(20_000))  # by these the line becomes known
        backend = psutil.Process(node.start().pid)
        node.wait_until_connected()
        node.wait_until_empty(60)
        server.pause()
        node.fill(data_message(number=number) for number in range(20_000))
        node.add(data_message(number=-1))
        time.sleep(1)  # until all is sent that may be; after that, nothing is to be done
        before = sum(backend.cpu_times()[:2])
        time.sleep(2)  # is what is measured
        assert sum(backend.cpu_times()[:2]) - before < 0.5
        server.resume()
        node.wait_until_empty(60)


def test_who_has_sent_more_than_is_allowed_before_it_was_told_gets_through(make_node: MakeNode) -> None:
    with ThingsBoardServer(lambda *_: GRANTED) as server:
        server.limits = {"rateLimits": {"telemetryDataPoints": "40:1"}}
        node = make_node(server.port, provider="thingsboard", max_parallel_messages=50)
        node.fill(data_message(number=number, other=1) for number in range(100))
        node.start(hurry=HASTY)
        node.wait_until_empty(60)
        acknowledged = _published(server, thingsboard.TELEMETRY)
        elements = [element for told in acknowledged for element in told if "ts" in element]
        assert {element["values"].get("number") for element in elements} >= set(range(100))
        assert len(server.closings) <= 3 and server.lost == []
        assert "was removed" not in node.log


def test_what_is_hard_to_send_is_stored_as_it_was_sampled(node: Node, server: ThingsBoardServer) -> None:
    node.config["logging_verbosity"]["message_sending"] = "WARNING"
    node.write_config(node.config)
    data = {"a": 0.05137437372453215, "b": 1.5e19, "c": 21.0, "温度": 21.5, "CO2 <ppm>": 400, "": 1.0, "d": 1e-20}
    node.start()
    node.wait_until_connected()
    node.add({"variant": "data", "data": data}, {"variant": "data", "data": data})
    wait_for(lambda: len(server.stored) >= 2 * len(data) + 1 + 4, 10, "two samples, a report and what runs")
    stored = {key: value for (_, key), value in server.stored.items() if not key.startswith("current_")}
    report = stored.pop("logging")["body"]
    assert stored == {
        **{key: data[key] for key in ("b", "c", "温度")},
        **{"a": 0.0513743737245322, "CO2 _ppm>": 400, "_": 1.0, "d": 0.0},
    }
    assert [type(stored[key]) for key in ("a", "b", "c", "d")] == [float] * 4
    assert sum(key == "logging" for _, key in server.stored) == 1, "it is told once"
    assert all(key in report for key in ("'CO2 <ppm>': sent as 'CO2 _ppm>'", "'': sent as '_'", "'d': rounded"))


def test_batches_keep_to_the_size_that_the_server_names(
    node: Node, server: ThingsBoardServer, platform: ThingsBoardPlatform
) -> None:
    server.limits = {"maxPayloadSize": 1000}
    node.start()
    node.wait_until_connected()
    assert _answer(server, "ping")  # what was sent before, the limits, has arrived too
    server.largest = 1000 - len(thingsboard.TELEMETRY)
    node.fill(data_message(number=number) for number in range(1000))
    node.add(data_message(number=1000))
    node.wait_until_empty()
    assert server.closings == []
    assert {values["number"] for _, values in platform.samples()} == set(range(1001))


def test_a_message_larger_than_that_is_tried_all_the_same(node: Node, server: ThingsBoardServer) -> None:
    server.limits = {"maxPayloadSize": 1}
    node.fill(data_message(number=number) for number in range(20))
    node.start()
    node.wait_until_empty()


def test_an_older_server_that_names_no_limits(node: Node, platform: ThingsBoardPlatform) -> None:
    node.fill(data_message(number=number) for number in range(1000))
    node.start()
    node.wait_until_empty()
    assert len(platform.samples()) == 1000


def _basic(client_id: str, username: str, password: str) -> int:
    return GRANTED if (client_id, username, password) == ("device", "user", PASSWORD) else BAD_CREDENTIALS


def test_login_with_client_id_username_and_password(make_node: MakeNode) -> None:
    with ThingsBoardServer(_basic) as server:
        node = make_node(server.port, provider="thingsboard", client_id="device", username="user")
        node.start()
        node.wait_until_connected()


@pytest.mark.parametrize(
    ("code", "texts"),
    [(BAD_CREDENTIALS, ("Not authorized", "check client_id")), (TRY_LATER, ("unavailable", "limits the rate"))],
)
def test_refusals_are_told_apart(make_node: MakeNode, code: int, texts: tuple[str, ...]) -> None:
    with ThingsBoardServer(lambda *_: code) as server:
        node = make_node(server.port, provider="thingsboard")
        node.start(hurry=HASTY)
        wait_for(lambda: len(server.closings) >= 3, 10, "other tries")
        assert all(text in node.link["reason"] for text in texts)
        assert node.log.count("No connection") == 1


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """A directory with an authority, and certificates of a server and of a device by it."""
    openssl(tmp_path, "req", "-x509", "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.pem")
    (tmp_path / "extension").write_text("subjectAltName=IP:127.0.0.1")
    for name in ("server", "device"):
        openssl(tmp_path, "req", "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        by = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "extension"]
        openssl(tmp_path, "x509", "-req", "-in", f"{name}.csr", *by, "-out", f"{name}.pem")
    return tmp_path


def test_login_with_a_certificate(make_node: MakeNode, certificates: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    context.load_verify_locations(certificates / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    files = {"ca_file": "ca.pem", "certificate_file": "device.pem", "key_file": "device.key"}
    tls = {"enabled": True, **{key: str(certificates / name) for key, name in files.items()}}
    with ThingsBoardServer(lambda *_: GRANTED, tls=context) as server:
        node = make_node(server.port, provider="thingsboard", username="-", password="-", tls=tls)
        node.add(data_message(number=1))
        node.start()
        node.wait_until_empty()


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_message_that_the_server_does_not_take_blocks_nothing(make_node: MakeNode, protocol: str) -> None:
    with ThingsBoardServer(lambda _id, name, _password: GRANTED if name == SENSOR else BAD_CREDENTIALS) as server:
        server.poison = b'"number":13.5'
        node = make_node(server.port, provider="thingsboard", protocol=protocol)
        node.fill([data_message(number=number) for number in [*range(13), 13.5, *range(14, 20)]])
        node.start(hurry={**HASTY, "for_a_witness": 0.0})
        node.wait_until_empty(30)
        assert len(server.closings) <= math.log2(20) + 2
        assert set(server.closings) == {"poison" if protocol == "3.1.1" else "refused: poison"}
        taken = [told for told in _published(server, thingsboard.TELEMETRY) if "13.5" not in json.dumps(told)]
        elements = [element for told in taken for element in told if "ts" in element]
        assert {element["values"].get("number") for element in elements} == {*range(13), *range(14, 20)}
        assert node.log.count("A message was set aside") == 1


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_server_that_refuses_large_batches_gets_smaller_ones(make_node: MakeNode, protocol: str) -> None:
    with ThingsBoardServer(lambda *_: GRANTED) as server:
        server.largest = 1000  # less than half a window
        node = make_node(server.port, provider="thingsboard", protocol=protocol)
        node.fill([data_message(number=number) for number in range(2000)])
        node.start(hurry=HASTY)
        node.wait_until_empty(60)
        arrived = [
            a.payload for a in list(server.arrivals) if a.topic == thingsboard.TELEMETRY and b'"ts"' in a.payload
        ]
        taken = [payload for payload in arrived if len(payload) <= server.largest]
        numbers = {element["values"].get("number") for payload in taken for element in json.loads(payload)}
        assert set(range(2000)) <= numbers
        assert len(taken) < 1000  # not one by one
        assert len(server.closings) < len(taken) / 15
        assert "was set aside" not in node.log


def test_messages_outlive_a_server_that_breaks_every_connection(make_node: MakeNode) -> None:
    with ThingsBoardServer(lambda *_: GRANTED) as server:
        server.poison = b"number"
        node = make_node(server.port, provider="thingsboard", protocol="3.1.1")
        node.fill([data_message(number=number) for number in range(20)])
        node.start(
            hurry={
                **HASTY,
                "longest_unanswered": 0.1,
                "between_reports": 0.1,
                "of_a_suspect": 0.1,
                "for_a_witness": 0.1,
            }
        )
        wait_for(lambda: len(server.closings) >= 8, 30, "some tries")
        assert node.queue_length() == 20
        server.poison = b""
        node.wait_until_empty(30)


def test_a_server_that_breaks_connections_is_not_hammered(make_node: MakeNode) -> None:
    """What it acknowledges before, the greeting, delivers nothing, so the waits grow all the same."""
    with ThingsBoardServer(lambda *_: GRANTED) as server:
        server.poison = b"number"
        node = make_node(server.port, provider="thingsboard", protocol="3.1.1")
        node.add(data_message(number=1))
        began = time.monotonic()
        node.start(hurry={"to_try_again": 0.2, "between_reports": 0.1, "of_a_suspect": 0.0, "for_a_witness": 0.0})
        wait_for(lambda: len(server.closings) >= 5, 30, "some tries")
        assert time.monotonic() - began >= 0.5 * (0.2 + 0.4 + 0.8)
