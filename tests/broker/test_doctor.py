"""What `ivy doctor` and `ivy setup` say about real brokers: names, TLS, login. Without a node around them."""

import datetime
from pathlib import Path

import pytest
from testbed.broker import Broker, Tls

from ivy.cli.doctor import checks_network
from ivy.cli.doctor.finding import Finding
from ivy.types import link_report
from ivy.types.config import Config, MQTTBrokerConfig
from ivy.types.link_report import LinkReport
from tests.broker.configs import config_for
from tests.support.backend_node import PASSWORD, SENSOR, free_port
from tests.support.helpers import make_config
from tests.support.openssl import openssl

DAYS_OF_A_SHORT_LIFE = 3


def findings(config: Config) -> dict[str, Finding]:
    return {finding.check: finding for finding in checks_network.backend(config)}


def test_a_broker_that_lets_the_node_in(broker: Broker) -> None:
    found = findings(config_for(broker.port))
    assert list(found) == ["dns", "login"]
    assert all(finding.ok for finding in found.values()), found


def test_a_wrong_password_is_told_with_what_to_do(broker: Broker) -> None:
    login = findings(config_for(broker.port, password="wrong"))["login"]
    assert "Not authorized" in login.text
    assert "password" in login.remedy


def test_a_password_that_nobody_knows_here_is_not_tried(broker: Broker) -> None:
    login = findings(config_for(broker.port, password="***"))["login"]
    assert "not tried" in login.text and "sudo ivy doctor" in login.remedy


def test_nobody_listens() -> None:
    login = findings(config_for(free_port()))["login"]
    assert "Connection refused" in login.text and not login.ok


def test_a_host_without_an_address_ends_the_search() -> None:
    [dns] = checks_network.backend(config_for(1883, host="broker.invalid"))
    assert dns.check == "dns" and not dns.ok and "broker.invalid" in dns.text


def test_no_backend_is_no_fault() -> None:
    [finding] = checks_network.backend(make_config())
    assert finding.ok


def test_a_connected_backend_is_believed_and_not_thrown_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_report, "LINK_REPORT_FILE", str(tmp_path / "link.json"))
    port = free_port()  # where nobody listens: a login would fail
    LinkReport(broker=f"127.0.0.1:{port}", connected=True, since=0).write()
    assert findings(config_for(port))["login"].ok


@pytest.mark.parametrize(("days", "is_ok"), [(365, True), (DAYS_OF_A_SHORT_LIFE, False)])
def test_a_certificate_and_its_end(tmp_path: Path, days: int, is_ok: bool) -> None:
    openssl(tmp_path, "req", "-x509", "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.pem")
    openssl(tmp_path, "req", "-subj", "/CN=broker", "-keyout", "broker.key", "-out", "broker.csr")
    (tmp_path / "names").write_text("subjectAltName=IP:127.0.0.1")
    by = ["-CA", "ca.pem", "-CAkey", "ca.key", "-extfile", "names", "-days", str(days)]
    openssl(tmp_path, "x509", "-req", "-in", "broker.csr", *by, "-out", "broker.pem")
    tls = Tls(tmp_path / "broker.pem", tmp_path / "broker.key")
    with Broker("127.0.0.1", free_port(), {SENSOR: PASSWORD}, directory=tmp_path / "broker", tls=tls) as broker:
        encryption = {"enabled": True, "ca_file": str(tmp_path / "ca.pem")}
        found = findings(config_for(broker.port, tls=encryption))
        assert found["login"].ok
        assert found["tls"].ok == is_ok
        assert str((datetime.datetime.now(datetime.UTC) + datetime.timedelta(days)).date()) in found["tls"].text
        # No further: paho leaves the socket of a failed handshake to the garbage collector, which pytest reports.
        distrusted = checks_network.backend(config_for(broker.port, tls={"enabled": True}))
        tls_finding = next(finding for finding in distrusted if finding.check == "tls")
        assert "certificate verify failed" in tls_finding.text and not tls_finding.ok


def test_a_login_says_why_not() -> None:
    settings = {"host": "127.0.0.1", "port": free_port(), "client_id": "c", "username": "u", "password": "p"}
    assert "Connection refused" in str(checks_network.login(MQTTBrokerConfig.model_validate(settings)))
