"""What `apt install`, `remove`, `purge` and a second install do to a bare node."""

import hashlib
import json
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import pytest
from testbed.bed import Bed, Node
from testbed.package_index import write_wheel
from testbed.run import run

from tests.support.helpers import UPDATER
from tests.support.installed import (
    RUN_DIRECTORIES,
    install,
    queue_length,
    read_config,
    say_busy,
    unit_property,
    wait_until_connected,
    write_config,
)
from tests.support.provisioning import Provisioning
from tests.support.thingsboard_server import BAD_CREDENTIALS, ThingsBoardServer

SERVICES = ["ivy-dummy-procedure", "ivy-system-checks"]
MINUTE = 60
# systemd 262 says it of every service that ends where the kernel has no such controller, as in some test beds.
OF_THE_BED = "Failed to read pids.max for control group"
# systemd 257 of some starts with a PID namespace; /usr/bin/ivy sees to it that nothing follows from it.
OF_NAMESPACES = "which is not our child"


@dataclass(frozen=True)
class Fresh:
    """A bare node after its first install, and when that was over, in seconds of the monotonic clock."""

    node: Node
    since: float


@pytest.fixture(scope="module")
def fresh(bed: Bed, package: Path) -> Generator[Fresh, None, None]:
    node = bed.node("bare")
    node.boot()
    install(node, package)
    yield Fresh(node, time.monotonic())
    node.destroy()


def archive_lines(node: Node) -> int:
    return sum(len(file.read_text().splitlines()) - 1 for file in archive_files(node))


def archive_files(node: Node) -> list[Path]:
    return list(node.path("/var/lib/ivy/data/messages").glob("*.csv"))


def test_a_bare_node_runs_at_once(fresh: Fresh) -> None:
    bare = fresh.node
    # Its own status says whether the updater's pass is over, too, which is no matter here.
    status = bare.run(["systemctl", "status", "--no-pager", "ivy-*.service"], check=False).stdout
    for service in SERVICES:
        bare.wait_for(lambda s=service: unit_property(bare, s, "StatusText"), 5, f"{service} to say something")  # type: ignore[misc]
        assert unit_property(bare, service, "SubState") == "running"
        assert service in status
    assert bare.run(["ivy", "status"]).stdout.endswith("all is well\n")
    assert unit_property(bare, "ivy-tenta", "ActiveState") == "inactive", "no backend is configured"
    bare.wait_for(lambda: archive_lines(bare) >= 3, 30, "the first samples")
    lines = bare.journal("--unit=ivy-system-checks", "--output=json", "--lines=50").splitlines()
    own = [entry for entry in map(json.loads, lines) if "IVY_ORIGIN" in entry]  # systemd says something of it, too
    assert (own[-1]["IVY_ORIGIN"], own[-1]["IVY_LEVEL"]) == ("system-checks", "INFO")


def test_what_the_kernel_is_to_do_is_there_for_each_boot(fresh: Fresh) -> None:
    """In a container nobody may set it, and nothing complains of that."""
    tell = [
        "env",
        "SYSTEMD_LOG_LEVEL=debug",
        "/usr/lib/systemd/systemd-sysctl",
        "--prefix=net.ipv4.tcp_mtu_probing",
    ]
    assert "/net/ipv4/tcp_mtu_probing' to '1'" in fresh.node.run(tell).stderr


def test_a_second_install_keeps_config_data_and_queue(node: Node, package: Path) -> None:
    config = read_config(node)
    config["dummy_procedure"]["seconds_between_datapoints"] = 2
    write_config(node, config)
    node.wait_for(lambda: queue_length(node) >= 2, 30, "samples in the queue")
    queued, archived = queue_length(node), archive_lines(node)
    node.copy_in(package, "/root/again.deb")
    node.run(["apt-get", "install", "--yes", "--reinstall", "/root/again.deb"], timeout=120)
    assert read_config(node) == config
    assert queue_length(node) >= queued
    assert archive_lines(node) >= archived
    for service in SERVICES:
        assert unit_property(node, service, "SubState") == "running"


@pytest.mark.thorough
def test_an_upgrade_disturbs_nobody_who_is_not_to_be_disturbed(node: Node, package: Path) -> None:
    """It waits for nobody, all others run what is new soon, and that one when it may be disturbed."""
    other, calibrating = SERVICES
    say_busy(node, calibrating, 3600)
    before = {service: unit_property(node, service, "MainPID") for service in SERVICES}
    node.copy_in(package, "/root/again.deb")
    said = node.run(["apt-get", "install", "--yes", "--reinstall", "/root/again.deb"], timeout=120).stdout
    assert f"restarted later, within two hours: {calibrating} " in " ".join(said.split())
    sides = ["updater.path", "updater.timer", "restart.path", "repair.timer", "salvage.path", "call@reboot.path"]
    node.run(["systemctl", "is-active", "ivy.target", *(f"ivy-{side}" for side in sides)])
    waits = node.path(f"/run/ivy-restarted/{calibrating.removeprefix('ivy-')}.waits")
    node.wait_for(waits.exists, 120, "the pass of the updater")
    node.wait_for(lambda: unit_property(node, other, "MainPID") not in ("0", before[other]), 120, "the restart")
    node.wait_for(lambda: node.run(["ivy", "status"], check=False).returncode == 0, 60, "all to be well")
    assert unit_property(node, calibrating, "MainPID") == before[calibrating]
    say_busy(node, calibrating, 0)
    node.wait_for(lambda: not waits.exists(), 60, "its turn")
    node.wait_for(lambda: unit_property(node, calibrating, "MainPID") not in ("0", before[calibrating]), 60, "it")


@pytest.mark.thorough
def test_a_package_of_a_fork_brings_its_libraries_and_groups(node: Node, package: Path, tmp_path: Path) -> None:
    """Without network, which no node here has."""
    tree = tmp_path / "tree"
    run(["dpkg-deb", "--raw-extract", package, tree])
    wheels = tree / "usr/share/ivy/wheels"
    wheels.mkdir(parents=True)
    wheel = write_wheel(wheels, "rain", {"rain.py": "MILLIMETRES = 8\n"})
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    (tree / "usr/lib/ivy/requirements.lock").write_text(f"rain==1.0 --hash=sha256:{digest}\n")
    with (tree / "usr/lib/sysusers.d/ivy-groups.conf").open("a") as groups:
        groups.write("g of-a-sensor -\n")
    run(["dpkg-deb", "--root-owner-group", "--build", tree, tmp_path / "fork.deb"])
    node.copy_in(tmp_path / "fork.deb", "/root/fork.deb")
    node.run(["apt-get", "install", "--yes", "--reinstall", "/root/fork.deb"], timeout=120)
    python = "/var/lib/ivy/current/.venv/bin/python3"
    assert node.run([python, "-c", "import rain; print(rain.MILLIMETRES)"]).stdout == "8\n"
    assert node.run(["getent", "group", "of-a-sensor"]).returncode == 0
    owners = node.run(["find", "/var/lib/ivy/current/.venv", "!", "-user", "root"]).stdout
    assert owners == ""
    assert node.run(["ivy", "is-running"]).returncode == 0


def test_remove_stops_and_keeps_data_and_purge_leaves_nothing(node: Node) -> None:
    node.wait_for(lambda: archive_lines(node) >= 1, 30, "a sample")
    node.run(["apt-get", "remove", "--yes", "ivy"], timeout=120)
    assert node.run(["find", "/proc", "-ignore_readdir_race", "-maxdepth", "1", "-user", "ivy"]).stdout == ""
    assert archive_lines(node) >= 1
    assert read_config(node)
    failed = node.run(["systemctl", "list-units", "--failed", "--no-legend"]).stdout
    assert failed == ""
    node.run(["apt-get", "purge", "--yes", "ivy"], timeout=120)
    for directory in ("/var/lib/ivy", "/etc/ivy", *RUN_DIRECTORIES, "/usr/lib/ivy"):
        assert not node.path(directory).exists(), directory
    assert "ivy" not in node.run(["getent", "passwd"]).stdout
    assert "ivy" not in node.run(["systemctl", "list-unit-files", "ivy*", "--no-legend"], check=False).stdout


@pytest.mark.thorough
def test_install_after_remove_finds_everything_again(node: Node, package: Path) -> None:
    config = read_config(node)
    config["general"]["system_identifier"] = "kept"
    write_config(node, config)
    node.run(["apt-get", "remove", "--yes", "ivy"], timeout=120)
    node.copy_in(package, "/root/again.deb")
    node.run(["apt-get", "install", "--yes", "/root/again.deb"], timeout=120)
    assert read_config(node)["general"]["system_identifier"] == "kept"
    assert node.run(["ivy", "is-running"]).returncode == 0
    for place in ("/run/ivy", "/run/ivy-backend"):
        assert node.run(["mountpoint", "--quiet", place], check=False).returncode == 0, place


def test_a_node_comes_back_by_itself_after_a_power_cut(node: Node) -> None:
    node.cut()
    node.boot()
    node.wait_for(lambda: node.run(["ivy", "status"], check=False).returncode == 0, 20, "all to be well")


def test_a_new_node_registers_at_its_first_boot(bed: Bed, node: Node) -> None:
    with ThingsBoardServer(lambda *_: BAD_CREDENTIALS, address=bed.address) as server:
        server.provisioning = provisioning = Provisioning("profile-key", "profile-secret")
        address = {"host": bed.address, "port": server.port, "tls": {"enabled": False}, "identifier": "roof-7"}
        file = node.path("/etc/ivy/provision.json")
        # At first with a mistake, which is said in words; and nobody else reads the secret meanwhile.
        file.write_text(json.dumps({**address, "provision_key": "profile-key", "provision_secret": "mistyped"}))
        node.run(["systemctl", "start", "ivy-provision"])
        node.wait_for(lambda: unit_property(node, "ivy-provision", "ActiveState") == "failed", 60, "a refusal")
        said = node.journal("--unit=ivy-provision", "--output=cat")
        assert "does not know the provision key or its secret" in said and "mistyped" not in said
        assert node.run(["stat", "-c", "%a", "/etc/ivy/provision.json"]).stdout == "600\n"
        assert "ivy-provision" in node.run(["ivy", "doctor"], check=False).stdout
        assert read_config(node).get("backend") is None
        # Then corrected.
        write_config(node, {**read_config(node), "updater": {**UPDATER, "seconds_of_probation": 2}})
        file.write_text(
            json.dumps({**address, "provision_key": "profile-key", "provision_secret": "profile-secret"})
        )
        node.reboot()
        node.wait_for(lambda: not file.exists(), 120, "the file to be gone, as the config was accepted")
        wait_until_connected(node, "thingsboard")
        [(name, token)] = provisioning.devices.items()
        connection = read_config(node)["backend"]["mqtt_connection"]
        assert (name, connection["username"]) == ("roof-7", "***")
        assert token in node.path("/var/lib/ivy/current/config/secrets.json").read_text()
        assert not node.path("/var/lib/ivy/registration.json").exists()
        node.wait_for(
            lambda: any(b"random_walk_position" in arrival.payload for arrival in list(server.arrivals)),
            30,
            "a sample",
        )
        journal = node.journal("--unit=ivy-provision", "--output=cat")
        assert "The platform lets this node in." in journal
        assert token not in journal and "profile-secret" not in journal
        assert unit_property(node, "ivy-provision", "Result") == "success"


# The last one, so that most of the minute has passed.
def test_the_journal_of_the_first_minute_is_clean(fresh: Fresh) -> None:
    bare = fresh.node
    bare.wait_for(lambda: time.monotonic() - fresh.since > MINUTE, MINUTE + 5, "the first minute to pass")
    complaints = bare.journal("--priority=warning", "--output=short")
    ours = [line for line in complaints.splitlines() if "ivy" in line]
    assert [line for line in ours if OF_THE_BED not in line and OF_NAMESPACES not in line] == []
    failed = bare.run(["systemctl", "list-units", "--failed", "--no-legend"]).stdout
    assert failed == ""
