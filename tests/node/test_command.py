"""The command day after day: fields of the config, times, limits of waiting, users without rights."""

import json

import pytest
from testbed.bed import Node
from testbed.broker import Broker

from tests.support.installed import read_config, use_tenta, wait_until_connected

PROTOCOL = "backend.mqtt_connection.protocol"
NOBODY = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
SECONDS_TO_DECIDE = 180


def test_a_field_is_changed_and_what_is_shown_can_be_applied(node: Node, broker: Broker) -> None:
    use_tenta(node, broker)
    assert node.run(["ivy", "config", "get", PROTOCOL]).stdout == "null\n"
    node.run(["ivy", "config", "set", PROTOCOL, "3.1.1"], timeout=SECONDS_TO_DECIDE)
    assert node.run(["ivy", "config", "get", PROTOCOL]).stdout == '"3.1.1"\n'
    assert node.run(["ivy", "config", "get", "backend.mqtt_connection.password"]).stdout == '"***"\n'
    before = read_config(node)
    node.run(["sh", "-ec", "ivy config show > /root/f; ivy config apply /root/f"], timeout=SECONDS_TO_DECIDE)
    wait_until_connected(node)
    connection = read_config(node)["backend"]["mqtt_connection"]
    assert before["backend"]["mqtt_connection"].items() <= connection.items()
    assert json.loads(node.run(["ivy", "status", "--json"], check=False).stdout)["backend"]["protocol"] == "3.1.1"


def test_times_that_are_printed_are_understood_wherever_the_node_is(node: Node) -> None:
    node.run(["ln", "-sf", "/usr/share/zoneinfo/Asia/Kolkata", "/etc/localtime"])
    for command in (["ivy", "messages"], ["ivy", "logs"]):

        def of_two_times(command: list[str] = command) -> list[str]:
            printed = [line for line in node.run(command).stdout.splitlines() if line[:2] == "20"]
            return printed if printed and printed[0].split()[0] != printed[-1].split()[0] else []

        printed = node.wait_for(of_two_times, 60, "lines of two times")
        first, last = (line.split()[0] for line in (printed[0], printed[-1]))
        assert node.run([*command, "--since", first]).stdout.splitlines()[0] == printed[0]
        assert printed[0] not in node.run([*command, "--since", last]).stdout.splitlines()


def test_what_was_stopped_is_not_connected(node: Node, broker: Broker) -> None:
    use_tenta(node, broker)
    assert "connected to" in node.run(["ivy", "status"], check=False).stdout
    node.run(["ivy", "stop"], timeout=120)
    [line] = [line for line in node.run(["ivy", "status"], check=False).stdout.splitlines() if "-tenta" in line][:1]
    assert "inactive" in line and "connected" not in line
    shown = node.run(["systemctl", "status", "ivy-tenta"], check=False).stdout.partition("\n\n")[0]
    assert "connected to" not in shown


@pytest.mark.parametrize(
    "arguments",
    [
        *(["start"], ["stop"], ["restart"], ["queue"], ["messages"], ["resend", "--since", "-1h"]),
        *(["status"], ["doctor"], ["releases"], ["rollback"], ["update", "1.0.0"]),
        *(["config", "show"], ["config", "get", "general"], ["config", "validate"], ["config", "edit"], ["setup"]),
        ["config", "set", "general.system_identifier", "x"],
    ],
    ids=" ".join,
)
def test_who_may_not_is_told_to_try_sudo(ivy_node: Node, arguments: list[str]) -> None:
    done = ivy_node.run([*NOBODY, "ivy", *arguments], check=False, timeout=120)
    assert done.returncode in (1, 2), done
    assert "not permitted" in done.stdout + done.stderr and "sudo" in done.stdout + done.stderr
    for wrong in ("nothing was queued", "is configured", "Traceback", "correct it"):
        assert wrong not in done.stdout + done.stderr
