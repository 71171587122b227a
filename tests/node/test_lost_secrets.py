"""Secrets that are beside a config, when somebody edits that with an editor, and when they are lost."""

import json

import pytest
from testbed.bed import Node
from testbed.broker import Broker

from tests.support.backend_node import PASSWORD, SENSOR
from tests.support.installed import read_config, unit_property, use_tenta, wait_until_connected, write_config
from tests.support.recorder import Recorder
from tests.support.update_site import wait_for_sample

KEPT = "/var/lib/ivy/current/config"
NO_PASS = "[Unit]\nConditionPathExists=/nonexistent\n"
FIELD = "backend.mqtt_connection.password: is ***"


def is_hidden(node: Node) -> bool:
    return bool(read_config(node)["backend"]["mqtt_connection"]["password"] == "***")


def edit(node: Node, seconds: int) -> None:
    """As an admin's editor would, who leaves what is hidden as it is."""
    config = read_config(node)
    config["dummy_procedure"]["seconds_between_datapoints"] = seconds
    write_config(node, config)


@pytest.mark.thorough
def test_neither_an_editor_nor_a_lost_file_costs_the_operator_the_node(
    node: Node, broker: Broker, recorder: Recorder
) -> None:
    use_tenta(node, broker, dummy_procedure={"seconds_between_datapoints": 2})
    node.run(["systemctl", "start", "ivy-updater"])
    node.wait_for(lambda: is_hidden(node), 30, "a pass to hide the password")

    # No pass, neither now nor at the boot.
    node.run(["systemctl", "edit", "--stdin", "ivy-updater.service"], input=NO_PASS)
    edit(node, 1)
    node.run(["systemctl", "restart", "ivy.target"])
    wait_until_connected(node)
    wait_for_sample(node, recorder)
    node.reboot()
    wait_until_connected(node)
    assert is_hidden(node)
    node.run(["systemctl", "revert", "ivy-updater.service"])

    node.run(["rm", f"{KEPT}/secrets.json"])
    node.run(["systemctl", "restart", "ivy-tenta"], check=False)
    wait_until_connected(node)
    assert PASSWORD in node.path(f"{KEPT}/secrets.json").read_text()

    node.run(["sh", "-c", f"rm {KEPT}/secrets*.json"])
    node.run(["systemctl", "restart", "ivy-tenta"], check=False)
    node.wait_for(
        lambda: FIELD in unit_property(node, "ivy-tenta", "StatusText"), 30, "the backend to say what is missing"
    )
    # What it says stands before its process has ended.
    node.wait_for(lambda: unit_property(node, "ivy-tenta", "ExecMainStatus") == "78", 30, "the backend to end")
    assert FIELD in node.run(["ivy", "status"], check=False).stdout
    assert "sudo ivy config edit" in node.run(["ivy", "doctor"], check=False).stdout
    sampled = node.run(["ivy", "messages", "--json"]).stdout.count("\n")
    node.wait_for(
        lambda: node.run(["ivy", "messages", "--json"]).stdout.count("\n") > sampled, 30, "procedures to sample on"
    )

    config = read_config(node)
    config["backend"]["mqtt_connection"] |= {"username": SENSOR, "password": PASSWORD}
    node.run(["ivy", "config", "apply", "-"], input=json.dumps(config), timeout=120)
    wait_until_connected(node)
