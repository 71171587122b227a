"""What a person does at the desk: look at the fleet, collect its data, and leave upgrades to Debian's own means."""

import gzip
import json
import re
from functools import partial
from pathlib import Path

import pytest
from testbed.roots import NAMESAKE_VERSIONS, suite
from testbed.run import run
from testbed.waiting import wait_for

from tests.fleet.conftest import Provisioned
from tests.fleet.faults import CRASHES
from tests.fleet.fleet import Fleet
from tests.support.packages import repacked
from tests.support.releases import THIS

GOOD, BAD = "9.5.0", "9.6.0"
NEWER = f"1:{THIS}+new"
NAMESAKE = NAMESAKE_VERSIONS[suite()]
PINS = ("/etc/apt/preferences.d/ivy", "/etc/apt/preferences.d/ivy-fleet")


@pytest.fixture(scope="module")
def published(
    provisioned: Provisioned, package: Path, node_package: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A newer package is in the repository, and no node has looked there since."""
    packages = (package, node_package)
    provisioned.fleet.publish(*(newer(each, tmp_path_factory.mktemp("newer")) for each in packages))


def test_the_status_is_an_aligned_table_also_of_nodes_that_cannot_be_reached(provisioned: Provisioned) -> None:
    fleet = provisioned.fleet
    away = fleet.names[-1]
    fleet.nodes[away].link(False)
    try:
        play = fleet.desk.play("status")
    finally:
        fleet.nodes[away].link(True)
    lines = play.output.splitlines()
    [start] = [number for number, line in enumerate(lines) if line.startswith("node ")]
    table = lines[start : start + 1 + len(fleet.names)]
    print("\n" + "\n".join(table))
    column = table[0].index("backend")
    assert [line.split()[0] for line in table] == ["node", *fleet.names]
    assert all(line[column - 1] == " " and line[column] != " " for line in table)
    assert re.search(r"  well +[a-z].*\bsystem-checks \d+ (s|min)\b", table[1])
    assert table[-1].endswith("  cannot be reached  -")


def test_only_new_days_are_collected(provisioned: Provisioned, tmp_path: Path) -> None:
    fleet = provisioned.fleet
    node = fleet.nodes["n1"]
    old = node.path("/var/lib/ivy/data/messages") / "2026-01-01.csv"
    old.write_text("timestamp,message_body\n")
    compressed = node.path("/var/lib/ivy/data/messages") / "2025-12-31.csv.gz"
    lines = b'1767139200.0,"{""variant"":""log""}"\n' * 6000  # more than is copied at once
    compressed.write_bytes(gzip.compress(b"timestamp,message_body\n" + lines))
    limit = ("--limit", "n1")
    fleet.desk.play("collect", *limit, ivy_archive=str(tmp_path)).succeeded()
    copy = tmp_path / "n1" / old.name
    assert copy.read_text() == old.read_text()
    plain = copy.with_name("2025-12-31.csv")
    assert plain.read_bytes() == gzip.decompress(compressed.read_bytes())
    before = copy.stat().st_mtime_ns, plain.stat().st_mtime_ns
    old.write_text("another board's\n")
    again = fleet.desk.play("collect", *limit, ivy_archive=str(tmp_path)).succeeded()
    assert (copy.stat().st_mtime_ns, plain.stat().st_mtime_ns) == before
    assert "both are kept: 2026-01-01" in " ".join(again.output.split())
    assert copy.with_name("2026-01-01.2.csv").read_text() == "another board's\n"


@pytest.mark.usefixtures("published")
@pytest.mark.thorough
def test_a_version_that_was_just_published_can_be_pinned(provisioned: Provisioned) -> None:
    fleet = provisioned.fleet
    limit = ("--limit", "n2", "--tags", "ivy_install")
    fleet.desk.play("provision", *limit, ivy_version=NEWER.removeprefix("1:")).succeeded()
    assert installed_version(fleet, "n2") == NEWER
    assert installed_version(fleet, "n2", "ivy-node") == NEWER
    again = fleet.desk.play("provision", *limit, ivy_version=NEWER).succeeded()
    assert again.recap("changed") == 0


@pytest.mark.thorough
def test_a_machine_may_be_no_appliance(provisioned: Provisioned) -> None:
    fleet = provisioned.fleet
    timer = ["systemctl", "is-active", "ivy-lost.timer"]
    limit = ("--limit", "n2", "--tags", "ivy_install")
    assert fleet.nodes["n2"].run(timer).stdout == "active\n"
    shown = ["systemctl", "show", "--property=InvocationID", "ivy-system-checks", "ivy-tenta"]
    lives = fleet.nodes["n2"].run(shown).stdout
    for changed in (1, 0):
        play = fleet.desk.play("provision", *limit, ivy_appliance=False).succeeded()
        assert play.recap("changed") == changed
        assert fleet.nodes["n2"].run(timer, check=False).stdout == "inactive\n"
    fleet.desk.play("provision", *limit).succeeded()
    assert fleet.nodes["n2"].run(timer).stdout == "active\n"
    assert fleet.nodes["n2"].run(shown).stdout == lives, "something was restarted"


@pytest.mark.thorough
def test_debians_package_of_the_name_is_replaced(provisioned: Provisioned) -> None:
    """As it is on a node with ivy 1.0.0 that was upgraded before anybody thought of it."""
    fleet = provisioned.fleet
    node = fleet.nodes["n3"]
    node.run(["apt-get", "update"])
    for pin in PINS:
        node.run(["mv", pin, f"{pin}.disabled"], check=False)
    node.run(["apt-get", "install", "--yes", "--allow-downgrades", f"ivy={NAMESAKE}"], timeout=300)
    assert installed_version(fleet, "n3") == NAMESAKE
    fleet.desk.play("provision", "--limit", "n3").succeeded()
    assert installed_version(fleet, "n3").startswith("1:")
    wait_for(lambda: fleet.status("n3")["well"], 60, "n3 to be well")
    again = fleet.desk.play("provision", "--limit", "n3").succeeded()
    assert again.recap("changed") == 0


@pytest.mark.usefixtures("published")
@pytest.mark.thorough
def test_unattended_upgrades_take_a_new_package_from_the_repository(provisioned: Provisioned) -> None:
    fleet = provisioned.fleet
    node = fleet.nodes["n1"]
    node.run(["apt-get", "install", "--yes", "--no-install-recommends", "unattended-upgrades"], timeout=300)
    node.run(["apt-get", "update"])
    offered = node.run(["apt-cache", "madison", "ivy"]).stdout
    versions = [line.split(" | ")[1].strip() for line in offered.splitlines()]
    assert versions[:2] == [NEWER, f"1:{THIS}"] and NAMESAKE in versions
    node.run(["unattended-upgrade"], timeout=300)
    assert installed_version(fleet, "n1") == NEWER
    assert fleet.status("n1")["version"] == THIS


@pytest.mark.usefixtures("published")
@pytest.mark.thorough
def test_the_key_of_the_repository_is_replaced(provisioned: Provisioned) -> None:
    """As ivy-fleet(7) says, to and fro."""
    fleet, node = provisioned.fleet, provisioned.fleet.nodes["n2"]
    update = ["apt-get", "update", "--error-on=any"]
    for old, new in (("apt", "second"), ("second", "apt")):
        fleet.publish(keys=[old, new], options=["--new-key"])
        node.run(update)
        fleet.desk.play("provision", "--limit", "n2", "--tags", "ivy_install").succeeded()
        node.run(update)
        fleet.publish(keys=[new], options=["--new-key"])
        node.run(update)
        fleet.desk.play("provision", "--limit", "n2", "--tags", "ivy_install").succeeded()
        node.run(update)


@pytest.mark.usefixtures("published")
@pytest.mark.thorough
def test_a_version_is_withdrawn(provisioned: Provisioned) -> None:
    fleet, node = provisioned.fleet, provisioned.fleet.nodes["n2"]
    limit = ("--limit", "n2", "--tags", "ivy_install")
    fleet.desk.play("provision", *limit, ivy_version=NEWER).succeeded()
    fleet.publish(options=["--withdraw", NEWER])
    node.run(["apt-get", "update"])
    findings = json.loads(node.run(["ivy", "doctor", "--json"], check=False, timeout=120).stdout)
    [found] = [finding for finding in findings if finding["check"] == "package"]
    assert "has withdrawn it" in found["text"]
    fleet.desk.play("provision", *limit, ivy_version=THIS).succeeded()
    assert installed_version(fleet, "n2") == f"1:{THIS}"
    assert fleet.desk.play("provision", *limit, ivy_version=NEWER).status != 0
    assert fleet.status("n2")["version"] == THIS


def test_the_play_waits_for_what_becomes_of_a_package(
    provisioned: Provisioned, package: Path, node_package: Path, tmp_path: Path
) -> None:
    fleet = provisioned.fleet
    for version, edit in ((GOOD, lambda _: None), (BAD, CRASHES)):
        made = (
            repacked(each, tmp_path / f"{version}-{each.stem}", version, edit) for each in (package, node_package)
        )
        fleet.publish(*made)
    pinned = partial(fleet.desk.play, "provision", "--limit", "n2", "--tags", "ivy_install")
    pinned(ivy_version=GOOD).succeeded()
    assert fleet.versions()["n2"] == GOOD
    for _ in range(2):  # it says so again, and does not try again
        failed = pinned(ivy_version=BAD)
        assert failed.recap("failed") == 1
        assert "ivy-dummy-procedure.service ended 3 times" in failed.output
    assert (installed_version(fleet, "n2"), fleet.versions()["n2"]) == (f"1:{BAD}", GOOD)
    pinned(ivy_version=THIS).succeeded()
    assert (installed_version(fleet, "n2"), fleet.versions()["n2"]) == (f"1:{THIS}", THIS)
    assert pinned(ivy_version=THIS).succeeded().recap("changed") == 0


def installed_version(fleet: Fleet, name: str, package: str = "ivy") -> str:
    """The version of a package on a node."""
    return fleet.nodes[name].run(["dpkg-query", "--show", "--showformat=${Version}", package]).stdout


def newer(package: Path, directory: Path) -> Path:
    """The same package, said to be a newer one."""
    tree = directory / "tree"
    run(["dpkg-deb", "--raw-extract", package, tree])
    control = tree / "DEBIAN" / "control"
    control.write_text(control.read_text().replace(f"Version: 1:{THIS}", f"Version: {NEWER}"))
    made = directory / package.name.replace("_all", "+new_all")
    run(["dpkg-deb", "--build", "--root-owner-group", tree, made])
    return made
