"""A node whose next boot loses what is stored says so, takes its package again all the same, and has a way out."""

import json
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
from testbed.bed import Node
from testbed.broker import Broker

from tests.support.cases import with_few
from tests.support.installed import queue_length, unit_property, use_tenta, wait_until_connected
from tests.support.recorder import Recorder
from tests.support.releases import THIS

ROOT, DATA = "/var/lib/ivy", "/var/lib/ivy/data"
LOST = "is lost at the next boot"
BOTH_LOST = f"{LOST}: {DATA} (overlay), {ROOT} (overlay)"
AS_NOBODY = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
SERVICES = ["dummy-procedure", "system-checks", "updater", "restart", "rollback"]
# As the initramfs of a Raspberry Pi has it, but for a part of the disk only. Below are the release, and an old one.
OVERLAY = """
cp --archive "$(readlink -f /var/lib/ivy/current)" /var/lib/ivy/0.9.0
mount -t tmpfs memory /mnt
mkdir /mnt/upper /mnt/work
mount -t overlay overlay -o lowerdir=/var/lib/ivy,upperdir=/mnt/upper,workdir=/mnt/work /var/lib/ivy
"""


@contextmanager
def mounted(node: Node, mount: str, *points: str) -> Generator[None, None, None]:
    """Mount something where ivy stores things, and give the node its disk back afterwards."""
    node.run(["ivy", "stop"])
    node.run(["sh", "-ec", mount])
    node.run(["ivy", "start"])
    wait_until_connected(node)
    yield
    node.run(["ivy", "stop"])
    for point in points:
        node.run(["umount", point])
    node.run(["ivy", "start"])
    wait_until_connected(node)
    node.wait_for(lambda: problems(node) == [], 30, "all to be well again")


def problems(node: Node, *prefix: str) -> list[str]:
    result = node.run([*prefix, "ivy", "status", "--json"], check=False)
    status = json.loads(result.stdout)
    assert (result.returncode == 0) is status["well"] is (not status["problems"])
    found: list[str] = status["problems"]
    return found


@pytest.fixture
def connected(node: Node, broker: Broker, recorder: Recorder) -> Node:  # somebody must listen there
    use_tenta(node, broker)
    node.wait_for(lambda: problems(node) == [], 30, "all to be well")
    return node


def releases(node: Node) -> set[str]:
    """Also those that are not whole."""
    names = node.run(["ls", "--almost-all", ROOT]).stdout.split()
    return set(names) - {"announced", "automation.lock", "backend", "current", "data"}


def wait_until_all_is_sent(node: Node) -> None:
    node.run(["systemctl", "restart", "ivy-system-checks"])
    node.wait_for(lambda: queue_length(node) == 0, 30, "all to be sent")


def test_what_an_overlay_in_memory_does_to_a_node(connected: Node, recorder: Recorder, package: Path) -> None:
    node = connected
    finding = {"check": "storage", "ok": False}
    with mounted(node, OVERLAY, ROOT, "/mnt"):
        for prefix in ([], AS_NOBODY):
            assert any(BOTH_LOST in problem for problem in problems(node, *prefix)), prefix
        assert f"PROBLEM:  disk: what is stored here {BOTH_LOST}" in node.run(["ivy", "status"], check=False).stdout
        findings = json.loads(node.run(["ivy", "doctor", "--json"], check=False).stdout)
        assert [found["text"] for found in findings if finding.items() <= found.items()] == [
            f"what is stored here {BOTH_LOST}"
        ]
        recorder.wait_for_element("logs", 30, "the operator to be told", BOTH_LOST, "partition of its own")
        wait_until_all_is_sent(node)

        node.run(["apt-get", "install", "--reinstall", "--yes", f"/root/{package.name}"], timeout=300)
        wait_until_connected(node)
        assert node.run(["readlink", f"{ROOT}/current"]).stdout == f"{THIS}\n"
        node.wait_for(lambda: len(problems(node)) == 1, 30, "no other problem")
        assert BOTH_LOST in problems(node)[0]
        node.wait_for(lambda: releases(node) == {THIS}, 30, "the old release to be removed, and no more left over")

        wait_until_all_is_sent(node)
        told = [element for element in recorder.elements("logs") if LOST in json.dumps(element)]
        assert len(told) == 1, "once until the next boot, however often the service is started"


@pytest.mark.thorough
def test_data_in_memory(connected: Node) -> None:
    tmpfs = f"mount -t tmpfs -o mode=2770,uid=ivy,gid=ivy memory {DATA}"
    with mounted(connected, tmpfs, DATA):
        [problem] = problems(connected)
        assert f"{LOST}: {DATA} (tmpfs);" in problem


@pytest.mark.parametrize("options", with_few(["bind", "bind,nofail"]))
def test_a_partition_of_its_own_is_there_before_the_services(new_node: Callable[[str], Node], options: str) -> None:
    node = new_node("n1")
    node.run(["ivy", "stop"])
    node.run(["sh", "-ec", f"mkdir /srv/partition; cp -a {ROOT}/. /srv/partition; rm -r {ROOT}/*"])
    with node.path("/etc/fstab").open("a") as fstab:
        fstab.write(f"/srv/partition {ROOT} none {options} 0 0\n")
    node.reboot()
    node.wait_for(lambda: problems(node) == [], 30, "all to be well")
    mount = int(
        node.run(["systemctl", "show", "--value", "-pActiveEnterTimestampMonotonic", "var-lib-ivy.mount"]).stdout
    )
    for service in SERVICES:
        assert "var-lib-ivy.mount" in unit_property(node, f"ivy-{service}", "After").split(), service
    assert 0 < mount < int(unit_property(node, "ivy-system-checks", "ExecMainStartTimestampMonotonic"))
