"""Login and registration, at the strict stand-in for ThingsBoard and at a real Mosquitto."""

import json
import ssl
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from testbed.broker import Broker, Tls

from ivy.backend import entry
from ivy.backend.entry import Outcome
from ivy.types.config import MQTTBrokerConfig
from tests.support.backend_node import free_port
from tests.support.openssl import issue, openssl
from tests.support.provisioning import Provisioning
from tests.support.recorder import Recorder
from tests.support.thingsboard_server import BAD_CREDENTIALS, TRY_LATER, ThingsBoardServer

KEY, SECRET, TOKEN = "profile-key", "profile-secret", "a-token-of-our-own"
_SUCCESS = b'{"status":"SUCCESS","credentialsType":"ACCESS_TOKEN"'
SOON = 0.5
"""Seconds for what never comes."""


@pytest.fixture
def server() -> Generator[ThingsBoardServer, None, None]:
    """One where nobody is known, and who has the key may register."""
    with ThingsBoardServer(lambda *_: BAD_CREDENTIALS) as server:
        server.provisioning = Provisioning(KEY, SECRET)
        yield server


def provisioning_of(server: ThingsBoardServer) -> Provisioning:
    assert server.provisioning is not None
    return server.provisioning


def broker_at(port: int, username: str = "nobody", **more: Any) -> MQTTBrokerConfig:
    settings = {"host": "127.0.0.1", "port": port, "client_id": "roof-7", "username": username, "password": "-"}
    return MQTTBrokerConfig.model_validate({**settings, **more})


def register(
    server: ThingsBoardServer, name: str = "roof-7", key: str = KEY, secret: str = SECRET, **more: Any
) -> Outcome:
    return entry.register(broker_at(server.port, **more), name, key, secret, TOKEN)


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_node_registers_by_its_name_with_the_token_that_it_chose(
    server: ThingsBoardServer, protocol: str
) -> None:
    assert register(server, protocol=protocol) == Outcome("done", TOKEN)
    assert provisioning_of(server).devices == {"roof-7": TOKEN}
    assert entry.login(broker_at(server.port, TOKEN)).kind == "done"


def test_the_status_of_older_servers_and_a_token_of_theirs_are_understood(server: ThingsBoardServer) -> None:
    provisioning_of(server).status_key = "provisionDeviceStatus"
    assert register(server).kind == "done"
    other = {"provisionDeviceStatus": "SUCCESS", "credentialsType": "ACCESS_TOKEN", "credentialsValue": "theirs"}
    provisioning_of(server).says = json.dumps(other).encode()
    assert register(server, "roof-8") == Outcome("done", "theirs")


@pytest.mark.parametrize("wrong", [{"key": "another"}, {"secret": "another"}])
def test_a_wrong_key_is_refused_with_what_to_compare(server: ThingsBoardServer, wrong: dict[str, str]) -> None:
    outcome = register(server, **wrong)
    assert outcome.kind == "refused" and "compare both with the device profile" in outcome.text
    assert "Provision data was not found!" in outcome.text and SECRET not in outcome.text
    assert provisioning_of(server).devices == {}


def test_a_name_that_is_taken_is_refused_with_the_ways_out(server: ThingsBoardServer) -> None:
    provisioning_of(server).devices["roof-7"] = "of another node"
    outcome = register(server)
    assert outcome.kind == "refused" and "'roof-7'" in outcome.text and "Delete that device" in outcome.text
    assert "ivy setup --provider thingsboard --username TOKEN" in outcome.text
    assert provisioning_of(server).devices == {"roof-7": "of another node"}


@pytest.mark.parametrize(
    ("answer", "kind", "complaint"),
    [
        (b"\xff", "away", "not a JSON object"),
        (b"[" * 60_000, "away", "not a JSON object"),
        (b"[]", "away", "not a JSON object"),
        (b"{}", "away", "without a status that is known"),
        (b'{"status":["SUCCESS"]}', "away", "without a status that is known"),
        (b'{"status":"SUCCESS"}', "refused", "other credentials than an access token"),
        (_SUCCESS + b"}", "away", "not an access token"),
        (_SUCCESS + b',"credentialsValue":"a\\nb"}', "away", "not an access token"),
        (_SUCCESS + b',"credentialsValue":"***"}', "away", "***"),
        (_SUCCESS + b',"credentialsValue":"%s"}' % (b"x" * 513), "away", "not an access token"),
        (b'{"status":"FAILURE","errorMsg":"a\\u001b[2Jb"}', "refused", '("a [2Jb")'),
        (b'{"status":"NOT_FOUND","errorMsg":7}', "refused", "does not know the provision key or its secret:"),
        (b'"%s"' % (b"x" * 70_000), "away", "answered with 70002 bytes"),
    ],
)
def test_an_answer_is_not_believed_until_it_is_checked(
    server: ThingsBoardServer, answer: bytes, kind: str, complaint: str
) -> None:
    provisioning_of(server).says = answer
    outcome = register(server)
    assert outcome.kind == kind and complaint in outcome.text
    assert len(outcome.text) < 700 and "\x1b" not in outcome.text


def test_a_platform_that_does_not_answer_is_said_to(server: ThingsBoardServer) -> None:
    provisioning_of(server).says = b""
    outcome = entry.register(broker_at(server.port), "roof-7", KEY, SECRET, TOKEN, SOON)
    assert outcome.kind == "away" and "took the request, and did not answer it" in outcome.text
    # The device is there all the same: by its own token the node finds in.
    assert entry.login(broker_at(server.port, TOKEN)).kind == "done"


def test_a_server_where_nobody_can_register_is_not_asked_again() -> None:
    with ThingsBoardServer(lambda *_: BAD_CREDENTIALS) as server:
        outcome = register(server)
    assert outcome.kind == "refused" and "lets nobody register" in outcome.text
    assert "Is it ThingsBoard?" in outcome.text


def test_a_server_in_trouble_and_one_that_is_away_are_to_be_tried_again() -> None:
    with ThingsBoardServer(lambda *_: TRY_LATER) as server:
        assert register(server).kind == "away"
        assert entry.login(broker_at(server.port)).kind == "away"
    assert register(server).kind == "away"
    outcome = entry.register(broker_at(free_port()), "roof-7", KEY, SECRET, TOKEN)
    assert outcome.kind == "away" and "Connection refused" in outcome.text


def test_a_login_that_is_not_known_is_refused_and_no_trouble(server: ThingsBoardServer) -> None:
    for protocol in ("5", "3.1.1"):
        outcome = entry.login(broker_at(server.port, "a token of nobody", protocol=protocol))
        assert outcome.kind == "refused" and "check client_id, username and password" in outcome.text


def test_it_is_encrypted_as_the_link_is(tmp_path: Path) -> None:
    openssl(tmp_path, "req", "-x509", "-subj", "/CN=authority", "-keyout", "authority.key", "-out", "authority.pem")
    issue(tmp_path, "authority", "server", "IP:127.0.0.1", "20200101000000Z", "20990101000000Z")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
    with ThingsBoardServer(lambda *_: BAD_CREDENTIALS, tls=tls) as server:
        server.provisioning = Provisioning(KEY, SECRET)
        known = {"enabled": True, "ca_file": str(tmp_path / "authority.pem")}
        unknown = register(server, tls={"enabled": True})
        assert unknown.kind == "away" and "certificate verify failed" in unknown.text
        assert provisioning_of(server).requests == []
        assert register(server, tls=known) == Outcome("done", TOKEN)


def test_mosquitto_registers_nobody_and_the_secret_does_not_get_there(broker: Broker, recorder: Recorder) -> None:
    outcome = entry.register(broker_at(broker.port), "roof-7", KEY, SECRET, TOKEN)
    assert outcome.kind == "refused" and "Other brokers know no provisioning" in outcome.text
    assert recorder.arrivals == []


def test_who_mistakes_a_port_is_asked_about_encryption(tmp_path: Path) -> None:
    """Both ways, as both ends say nothing but that the connection is over."""
    openssl(tmp_path, "req", "-x509", "-subj", "/CN=broker", "-keyout", "own.key", "-out", "own.pem")
    tls = Tls(tmp_path / "own.pem", tmp_path / "own.key")
    with Broker("127.0.0.1", free_port(), {}, directory=tmp_path / "encrypted", tls=tls) as broker:
        assert "does it want encryption? See tls.enabled" in entry.login(broker_at(broker.port)).text
    with Broker("127.0.0.1", free_port(), {}, directory=tmp_path / "plain") as broker:
        outcome = entry.login(broker_at(broker.port, tls={"enabled": True}))
        assert "is this port without encryption? See tls.enabled" in outcome.text
