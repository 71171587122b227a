"""What `apt install`, `remove`, `purge` and a second install do to a bare node."""

import json
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import pytest
from testbed.bed import Bed, Node

from tests.support.installed import install, queue_length, read_config, unit_property, write_config

SERVICES = ["ivy-dummy-procedure", "ivy-system-checks"]
MINUTE = 60
# systemd 262 says it of every service that ends where the kernel has no such controller, as in some test beds.
OF_THE_BED = "Failed to read pids.max for control group"


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
    entry = json.loads(bare.journal("--unit=ivy-system-checks", "--output=json", "--lines=50").splitlines()[-1])
    assert (entry["IVY_ORIGIN"], entry["IVY_LEVEL"]) == ("system-checks", "INFO")


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


def test_remove_stops_and_keeps_data_and_purge_leaves_nothing(node: Node) -> None:
    node.wait_for(lambda: archive_lines(node) >= 1, 30, "a sample")
    node.run(["apt-get", "remove", "--yes", "ivy"], timeout=120)
    assert node.run(["find", "/proc", "-maxdepth", "1", "-user", "ivy"]).stdout == ""
    assert archive_lines(node) >= 1
    assert read_config(node)
    failed = node.run(["systemctl", "list-units", "--failed", "--no-legend"]).stdout
    assert failed == ""
    node.run(["apt-get", "purge", "--yes", "ivy"], timeout=120)
    for directory in ("/var/lib/ivy", "/etc/ivy", "/run/ivy", "/usr/lib/ivy"):
        assert not node.path(directory).exists(), directory
    assert node.run(["getent", "passwd", "ivy"], check=False).returncode != 0
    assert "ivy" not in node.run(["systemctl", "list-unit-files", "ivy*", "--no-legend"], check=False).stdout


def test_install_after_remove_finds_everything_again(node: Node, package: Path) -> None:
    config = read_config(node)
    config["general"]["system_identifier"] = "kept"
    write_config(node, config)
    node.run(["apt-get", "remove", "--yes", "ivy"], timeout=120)
    node.copy_in(package, "/root/again.deb")
    node.run(["apt-get", "install", "--yes", "/root/again.deb"], timeout=120)
    assert read_config(node)["general"]["system_identifier"] == "kept"
    assert node.run(["ivy", "is-running"]).returncode == 0


def test_a_node_comes_back_by_itself_after_a_power_cut(node: Node) -> None:
    node.cut()
    node.boot()
    node.wait_for(lambda: node.run(["ivy", "status"], check=False).returncode == 0, 20, "all to be well")


# The last one, so that most of the minute has passed.
def test_the_journal_of_the_first_minute_is_clean(fresh: Fresh) -> None:
    bare = fresh.node
    bare.wait_for(lambda: time.monotonic() - fresh.since > MINUTE, MINUTE + 5, "the first minute to pass")
    complaints = bare.journal("--priority=warning", "--output=short")
    assert [line for line in complaints.splitlines() if "ivy" in line and OF_THE_BED not in line] == []
    failed = bare.run(["systemctl", "list-units", "--failed", "--no-legend"]).stdout
    assert failed == ""
