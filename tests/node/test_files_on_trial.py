"""A wrong authority that comes with a config is undone with it, though nobody gets in to do that."""

import json
from pathlib import Path

from testbed.bed import Bed, Node
from testbed.broker import OPERATOR, Broker, Tls

from tests.support.backend_node import PASSWORD
from tests.support.installed import read_config, wait_until_connected
from tests.support.openssl import issue, openssl

AUTHORITY = "/etc/ivy/authority.pem"
BROUGHT = "/root/brought"
UPDATER = {
    "repository": "university/ivy",
    "provider": "github",
    "provider_host": "github.com",
    "seconds_of_probation": 5,
    "max_seconds_of_probation": 30,
}


def test_a_wrong_authority_goes_back_with_the_config(bed: Bed, node: Node, tmp_path: Path) -> None:
    for name in ("right", "wrong"):
        openssl(tmp_path, "req", "-x509", "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem")
    issue(tmp_path, "right", "broker", f"IP:{bed.address}", "20200101000000Z", "20900101000000Z")
    tls = Tls(tmp_path / "broker.pem", tmp_path / "broker.key")
    users = {"n1": PASSWORD, OPERATOR: PASSWORD}
    with Broker(bed.address, 8883, users, directory=tmp_path / "broker", tls=tls) as broker:
        # By MQTT 5, messages would wait until somebody subscribes.
        login = {"client_id": "n1", "username": "n1", "password": PASSWORD, "protocol": "3.1.1"}
        where = {"host": bed.address, "port": broker.port, "tls": {"enabled": True, "ca_file": AUTHORITY}}
        config = read_config(node)
        config["general"]["system_identifier"] = "n1"
        config["backend"] = {"provider": "tenta", "mqtt_connection": {**login, **where}}
        config["updater"] = UPDATER
        node.run(["mkdir", BROUGHT])
        right, wrong = ((tmp_path / f"{name}.pem").read_bytes() for name in ("right", "wrong"))

        def apply(authority: bytes) -> tuple[int, str]:
            node.path(f"{BROUGHT}/authority.pem").write_bytes(authority)
            command = ["ivy", "config", "apply", "-", "--files", BROUGHT]
            done = node.run(command, input=json.dumps(config), check=False, timeout=180)
            print(done.stdout + done.stderr)
            return done.returncode, done.stdout + done.stderr

        assert apply(right)[0] == 0
        assert node.path(AUTHORITY).read_bytes() == right and node.path(AUTHORITY).stat().st_uid == 0
        status, said = apply(wrong)
        assert status == 1 and "certificate" in said, "why it was undone"
        assert node.path(AUTHORITY).read_bytes() == right
        wait_until_connected(node)
        assert not node.path("/var/lib/ivy/files-on-trial").exists()
