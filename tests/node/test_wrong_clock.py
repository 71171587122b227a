"""A clock that was never set, as no time server is reached: the node connects, and says what it did not check."""

import json
from pathlib import Path

from testbed.bed import Bed, Node
from testbed.broker import OPERATOR, Broker, Tls

from tests.support.backend_node import PASSWORD
from tests.support.installed import be_synchronised, queue_length, read_config, wait_until_connected, write_config
from tests.support.openssl import issue, openssl

UNCHECKED = "the dates of the broker's certificates are not checked, as the clock is not synchronised"
AUTHORITY = "/etc/ivy/authority.pem"


def test_a_certificate_of_the_future_counts_until_the_clock_is_set(bed: Bed, node: Node, tmp_path: Path) -> None:
    openssl(tmp_path, "req", "-x509", "-subj", "/CN=right", "-keyout", "right.key", "-out", "right.pem")
    issue(tmp_path, "right", "broker", f"IP:{bed.address}", "20900101000000Z", "20990101000000Z")
    # In the sandbox of a service, this is whom it asks.
    asked = node.path("/usr/bin/timedatectl")
    asked.unlink()  # not overwritten: it may be running
    asked.write_text("#!/bin/sh\necho no\n")
    asked.chmod(0o755)
    be_synchronised(node, is_it=False)
    node.path(AUTHORITY).write_bytes((tmp_path / "right.pem").read_bytes())
    users = {"n1": PASSWORD, OPERATOR: PASSWORD}
    tls = Tls(tmp_path / "broker.pem", tmp_path / "broker.key")
    with Broker(bed.address, 8883, users, directory=tmp_path / "broker", tls=tls) as broker:
        # By MQTT 5, messages would wait until somebody subscribes.
        login = {"client_id": "n1", "username": "n1", "password": PASSWORD, "protocol": "3.1.1"}
        where = {"host": bed.address, "port": broker.port, "tls": {"enabled": True, "ca_file": AUTHORITY}}
        config = read_config(node)
        config["general"]["system_identifier"] = "n1"
        config["backend"] = {"provider": "tenta", "mqtt_connection": {**login, **where}}
        write_config(node, config)
        node.run(["ivy", "restart"])
        wait_until_connected(node)
        node.wait_for(lambda: queue_length(node) == 0, 30, "the messages to be sent")
        assert f"PROBLEM:  backend: {UNCHECKED}" in node.run(["ivy", "status"], check=False).stdout
        doctor = json.loads(node.run(["ivy", "doctor", "--json"], check=False).stdout)
        assert UNCHECKED in json.dumps(doctor)
        be_synchronised(node)
        node.wait_for(
            lambda: "not yet valid" in node.run(["ivy", "status"], check=False).stdout, 30, "the clock to count"
        )
