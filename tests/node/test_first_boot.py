"""The package ivy-node on a card: what somebody wrote onto it becomes the node's; and `ivy forget-node`."""

import json
import re
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from testbed.bed import Bed, Node, Snapshot
from testbed.broker import Broker

from tests.support.backend_node import PASSWORD, SENSOR
from tests.support.helpers import UPDATER
from tests.support.installed import read_config, unit_property, wait_until_connected, write_config
from tests.support.provisioning import Provisioning
from tests.support.recorder import Recorder
from tests.support.thingsboard_server import BAD_CREDENTIALS, ThingsBoardServer

SECONDS = 60
MOST_EXPOSURE = 2.5
WIFI = (
    "[connection]\r\nid=site\r\ntype=wifi\r\n\r\n[wifi]\r\nssid=site\r\n\r\n[wifi-security]\r\npsk=wifi-secret\r\n"
)
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHVzZWQgaW4gdGVzdHMgb25seSwgbm90IGEga2V5IQ== admin@desk"


@pytest.fixture(scope="module")
def imaged(bed: Bed, installed: Snapshot, node_package: Path) -> Snapshot:
    """The disk of a node as from an image: with both packages, and without a name of its own."""
    node = bed.node("imager", base=installed)
    node.boot()
    node.copy_in(node_package, "/root/ivy-node.deb")
    node.run(["apt-get", "install", "--yes", "/root/ivy-node.deb"], timeout=120)
    # Decisions in seconds, and a program whose file is all that is looked for.
    write_config(node, {**read_config(node), "updater": {**UPDATER, "seconds_of_probation": 2}})
    node.path("/usr/sbin").joinpath("NetworkManager").touch()
    node.path("/boot").joinpath("firmware").mkdir(parents=True)
    frozen = node.snapshot("imaged")
    node.destroy()
    return frozen


@pytest.fixture
def card(bed: Bed, imaged: Snapshot) -> Generator[Callable[[str], Node], None, None]:
    """Makes nodes without power, to write onto their cards."""
    made: list[Node] = []

    def make(name: str) -> Node:
        node = bed.node(name, base=imaged)
        made.append(node)
        return node

    yield make
    for node in made:
        node.destroy()


def write(node: Node, **files: str | dict[str, Any]) -> Path:
    """Write files onto the card; a dot of their names is spelt __. Returns where they are."""
    place = node.path("/boot/firmware")
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (place / name.replace("__", ".")).write_text(text, newline="")
    return place


def report(node: Node) -> str:
    return node.path("/boot/firmware").joinpath("ivy-report.txt").read_bytes().decode("utf-8-sig")


def wait_for_report(node: Node, containing: str) -> str:
    def said() -> str:
        found = report(node) if node.path("/boot/firmware/ivy-report.txt").exists() else ""
        return found if containing in found else ""

    return node.wait_for(said, SECONDS, f"the report to say {containing!r}")


def tenta(broker: Broker) -> dict[str, Any]:
    login = {"client_id": SENSOR, "username": SENSOR, "password": PASSWORD}
    connection = {"host": broker.address, "port": broker.port, **login}
    return {
        "general": {"system_identifier": SENSOR},
        "backend": {"provider": "tenta", "mqtt_connection": connection},
    }


def check_units(node: Node) -> None:
    """systemd has nothing to say about them, and finds them tight."""
    for unit in ("ivy-first-boot.service", "ivy-first-config.service", "ivy-provision.service"):
        assert node.run(["systemd-analyze", "verify", "--man=no", unit]).stderr == ""
        said = node.run(["systemd-analyze", "security", "--no-pager", unit]).stdout
        exposure = re.search(r"Overall exposure level for .*: ([0-9.]+)", said)
        assert exposure is not None and float(exposure[1]) <= MOST_EXPOSURE


def test_from_a_card_to_telemetry_with_a_mistake_on_the_way(
    card: Callable[[str], Node], broker: Broker, recorder: Recorder
) -> None:
    node = card("localhost")
    good = json.dumps({**tenta(broker), "hostname": "roof-7"}, indent=4)
    place = write(
        node, ivy__json=good.replace('"tenta",', '"tenta"'), wifi__nmconnection=WIFI, authorized_keys=f"{KEY}\r\n"
    )
    node.boot()
    said = wait_for_report(node, "ivy.json")
    assert "WRONG" in said and re.search(r"ivy\.json: is not valid JSON: line \d+", said)
    assert "wifi.nmconnection: a connection of NetworkManager's" in said
    assert said.count("\r\n") == said.count("\n") and PASSWORD not in said and "wifi-secret" not in said
    assert sorted(path.name for path in place.iterdir()) == ["ivy-report.txt", "ivy.json"]
    taken = node.path("/etc/NetworkManager/system-connections/wifi.nmconnection")
    assert taken.read_text() == WIFI.replace("\r\n", "\n")
    modes = ["stat", "-c", "%a %U", "/etc/NetworkManager/system-connections/wifi.nmconnection"]
    assert node.run([*modes, "/root/.ssh/authorized_keys"]).stdout == "600 root\n600 root\n"
    own = node.run(["hostname"]).stdout.strip()
    assert re.fullmatch("ivy-[0-9a-f]{6}", own) and node.path("/etc/hostname").read_text() == f"{own}\n"
    assert node.run(["systemctl", "list-units", "--failed", "--no-legend"]).stdout == ""
    check_units(node)

    write(node, ivy__json=good)
    node.reboot()
    wait_for_report(node, "ivy.json: the config of this node")
    assert "All is well." in report(node)
    assert [path.name for path in place.iterdir()] == ["ivy-report.txt"]
    assert node.run(["hostname"]).stdout == "roof-7\n"
    wait_until_connected(node)
    recorder.wait_for_element("measurements", SECONDS, "a sample", "random_walk_position")
    config = read_config(node)
    assert config["backend"]["mqtt_connection"]["password"] == "***"
    assert config["general"]["system_identifier"] == SENSOR
    assert unit_property(node, "ivy-first-config", "Result") == "success"


@pytest.mark.thorough
def test_it_registers_says_why_not_and_is_forgotten(bed: Bed, card: Callable[[str], Node]) -> None:
    node = card("ivy-node")
    node.boot()
    node.run(["apt-get", "install", "--yes", "openssh-server"], timeout=120)
    keys = node.run(["sh", "-c", "cat /etc/ssh/ssh_host_*_key"]).stdout
    node.poweroff()
    with ThingsBoardServer(lambda *_: BAD_CREDENTIALS, address=bed.address) as server:
        server.provisioning = provisioning = Provisioning("profile-key", "profile-secret")
        where = {
            "host": bed.address,
            "port": server.port,
            "tls": {"enabled": False},
            "provision_key": "profile-key",
        }
        write(node, ivy__json={"provision": {**where, "provision_secret": "mistyped"}, "hostname": "roof-7"})
        node.boot()
        said = wait_for_report(node, "does not know the provision key or its secret")
        assert "WRONG" in said and "mistyped" not in said
        assert not node.path("/boot/firmware/ivy.json").exists(), "its secret is where only root can read it"
        write(node, ivy__json={"provision": {**where, "provision_secret": "profile-secret"}})
        node.run(["systemctl", "restart", "ivy-first-config"])
        wait_for_report(node, "this node is registered, and delivers")
        assert "All is well." in report(node)
        wait_until_connected(node, "thingsboard")
        [(name, token)] = provisioning.devices.items()
        assert name == "roof-7" and token not in report(node)
        assert not node.path("/etc/ivy/provision.json").exists()

        refused = node.run(["ivy", "forget-node"], check=False)
        assert refused.returncode == 2 and "--yes" in refused.stderr
        assert re.search(r"roof-7: \d+ messages wait to be sent", refused.stdout)
        signers = node.path("/etc/ivy").joinpath("allowed_signers")
        signers.write_text(f"maintainer {KEY}\n")
        node.run(["ivy", "forget-node", "--yes", "--machine"], timeout=120)
        config = read_config(node)
        assert config.get("backend") is None and config["general"]["config_revision"] == -1
        for place in ("/var/lib/ivy", "/etc/ivy"):
            assert node.run(["grep", "-rlF", token, place], check=False).stdout == ""
        assert signers.exists()
        node.run(["ivy", "is-running"])
        assert unit_property(node, "ivy-thingsboard", "ActiveState") == "inactive"
        node.wait_for(lambda: node.run(["ivy", "queue"], check=False).returncode == 0, 30, "a sample")
        status = json.loads(node.run(["ivy", "status", "--json"], check=False).stdout)
        assert status["problems"] == []
        number = node.path("/etc/machine-id").read_text()
        node.reboot()
        assert number == "" and node.path("/etc/machine-id").read_text() != ""
        assert re.fullmatch(r"ivy-[0-9a-f]{6}\n", node.run(["hostname"]).stdout)
        assert node.run(["sh", "-c", "cat /etc/ssh/ssh_host_*_key"]).stdout not in ("", keys)


@pytest.mark.thorough
def test_a_power_cut_while_it_is_tried_costs_nothing(
    card: Callable[[str], Node], broker: Broker, recorder: Recorder
) -> None:
    node = card("ivy-node")
    broker.stop()
    place = write(node, ivy__json=tenta(broker), authorized_keys=f"{KEY}\n")
    node.boot()
    wait_for_report(node, "ivy.json is being tried: On probation")
    node.cut()
    assert (place / "ivy.json").exists() and not (place / "authorized_keys").exists()
    broker.start()
    node.boot()
    wait_for_report(node, "ivy.json: the config of this node")
    assert [path.name for path in place.iterdir()] == ["ivy-report.txt"]
    recorder.wait_for_element("measurements", SECONDS, "a sample", "random_walk_position")


@pytest.mark.thorough
def test_a_config_that_is_not_kept_for_want_of_a_platform_is_tried_again(
    card: Callable[[str], Node], broker: Broker, recorder: Recorder
) -> None:
    node = card("ivy-node")
    broker.stop()
    limits = {"seconds_of_probation": 2, "max_seconds_of_probation": 3}
    write_config(node, {**read_config(node), "updater": {**UPDATER, **limits}})
    place = write(node, ivy__json=tenta(broker))
    node.boot()
    said = wait_for_report(node, "what ran before runs again")
    assert "no connection" in said and "It is left here" in said and "All is well." not in said
    assert (place / "ivy.json").exists() and read_config(node).get("backend") is None
    broker.start()
    wait_for_report(node, "ivy.json: the config of this node")
    recorder.wait_for_element("measurements", SECONDS, "a sample", "random_walk_position")
