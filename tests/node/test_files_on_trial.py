"""What a node knows a broker by is replaced; a wrong authority is undone with the config that it comes with."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from testbed.bed import Bed, Node
from testbed.broker import ACCESS, OPERATOR, Broker, Tls

from tests.support.backend_node import PASSWORD
from tests.support.installed import read_config, wait_until_connected
from tests.support.openssl import issue, openssl

AUTHORITY = "/etc/ivy/authority.pem"
BROUGHT = "/root/brought"
SECOND, SECOND_PASSWORD = "n1-2", "another-password-for-tests"
USERS = {"n1": PASSWORD, SECOND: SECOND_PASSWORD, OPERATOR: PASSWORD}
UPDATER = {
    "repository": "university/ivy",
    "provider": "github",
    "provider_host": "github.com",
    "seconds_of_probation": 5,
    "max_seconds_of_probation": 30,
}

Serve = Callable[[str], Broker]


@pytest.fixture
def serve(bed: Bed, tmp_path: Path) -> Serve:
    """Makes the broker, with a certificate of an authority: `old`, or `new`."""
    for name in ("old", "new"):
        openssl(tmp_path, "req", "-x509", "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem")
        issue(tmp_path, name, f"of-{name}", f"IP:{bed.address}", "20200101000000Z", "20900101000000Z")

    def make(authority: str) -> Broker:
        tls = Tls(tmp_path / f"of-{authority}.pem", tmp_path / f"of-{authority}.key")
        access = f"user {SECOND}\ntopic readwrite #\n\n{ACCESS}"
        return Broker(bed.address, 8883, USERS, directory=tmp_path / "broker", tls=tls, access=access)

    return make


@pytest.fixture
def config(bed: Bed, node: Node) -> dict[str, Any]:
    """Of the node, with that broker."""
    # By MQTT 5, messages would wait until somebody subscribes.
    login = {"client_id": "n1", "username": "n1", "password": PASSWORD, "protocol": "3.1.1"}
    where = {"host": bed.address, "port": 8883, "tls": {"enabled": True, "ca_file": AUTHORITY}}
    config = read_config(node)
    config["general"]["system_identifier"] = "n1"
    config["backend"] = {"provider": "tenta", "mqtt_connection": {**login, **where}}
    config["updater"] = UPDATER
    return config


def apply(node: Node, config: dict[str, Any], *authorities: Path) -> tuple[int, str]:
    """Let the node use a config, with these authorities in one file, if there are any."""
    command = ["ivy", "config", "apply", "-"]
    if authorities:
        node.run(["mkdir", "--parents", BROUGHT])
        node.path(f"{BROUGHT}/authority.pem").write_bytes(b"".join(path.read_bytes() for path in authorities))
        command += ["--files", BROUGHT]
    done = node.run(command, input=json.dumps(config), check=False, timeout=180)
    print(done.stdout + done.stderr)
    return done.returncode, done.stdout + done.stderr


def test_a_wrong_authority_goes_back_with_the_config(
    node: Node, serve: Serve, config: dict[str, Any], tmp_path: Path
) -> None:
    old, new = tmp_path / "old.pem", tmp_path / "new.pem"
    with serve("old"):
        assert apply(node, config, old)[0] == 0
        assert node.path(AUTHORITY).read_bytes() == old.read_bytes() and node.path(AUTHORITY).stat().st_uid == 0
        status, said = apply(node, config, new)
        assert status == 1 and "certificate verify failed" in said, "why it was undone"
        assert node.path(AUTHORITY).read_bytes() == old.read_bytes()
        wait_until_connected(node)
        assert not node.path("/var/lib/ivy/files-on-trial").exists()


@pytest.mark.thorough
def test_authority_and_password_are_replaced_as_the_manual_says(
    node: Node, serve: Serve, config: dict[str, Any], tmp_path: Path
) -> None:
    """See ivy-fleet(7), "Of the broker"."""
    old, new = tmp_path / "old.pem", tmp_path / "new.pem"
    with serve("old"):
        assert apply(node, config, old)[0] == 0
        assert apply(node, config, old, new)[0] == 0
    with serve("new"):
        wait_until_connected(node)
        assert apply(node, config, new)[0] == 0
        login = config["backend"]["mqtt_connection"]
        mistyped = {**config, "backend": {**config["backend"], "mqtt_connection": {**login, "username": SECOND}}}
        assert apply(node, mistyped)[0] == 1, "it does not get in with the password of the other name"
        wait_until_connected(node)
        login |= {"username": SECOND, "password": SECOND_PASSWORD}
        assert apply(node, config)[0] == 0
