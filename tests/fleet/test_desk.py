"""What a person does at the desk: look at the fleet, collect its data, and leave upgrades to Debian's own means."""

from pathlib import Path

import pytest
from testbed.roots import NAMESAKE_VERSIONS, suite
from testbed.run import run
from testbed.waiting import wait_for

from tests.fleet.conftest import Provisioned
from tests.fleet.fleet import Fleet
from tests.support.releases import THIS

NEWER = f"1:{THIS}+new"
NAMESAKE = NAMESAKE_VERSIONS[suite()]
PINS = ("/etc/apt/preferences.d/ivy", "/etc/apt/preferences.d/ivy-fleet")


@pytest.fixture(scope="module")
def published(provisioned: Provisioned, package: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A newer package is in the repository, and no node has looked there since."""
    provisioned.fleet.publish(newer(package, tmp_path_factory.mktemp("newer")))


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
    assert table[1].split()[-1] == "well"
    assert table[-1].endswith("cannot be reached")


def test_only_new_days_are_collected(provisioned: Provisioned, tmp_path: Path) -> None:
    fleet = provisioned.fleet
    node = fleet.nodes["n1"]
    old = node.path("/var/lib/ivy/data/messages") / "2026-01-01.csv"
    old.write_text("timestamp,message_body\n")
    limit = ("--limit", "n1")
    fleet.desk.play("collect", *limit, ivy_archive=str(tmp_path)).succeeded()
    copy = tmp_path / "n1" / old.name
    assert copy.read_text() == old.read_text()
    before = copy.stat().st_mtime_ns
    again = fleet.desk.play("collect", *limit, ivy_archive=str(tmp_path)).succeeded()
    assert copy.stat().st_mtime_ns == before
    assert f"skipping: [n1] => (item={old.name})" in again.output


@pytest.mark.usefixtures("published")
def test_a_version_that_was_just_published_can_be_pinned(provisioned: Provisioned) -> None:
    fleet = provisioned.fleet
    limit = ("--limit", "n2", "--tags", "ivy_install")
    fleet.desk.play("provision", *limit, ivy_version=NEWER.removeprefix("1:")).succeeded()
    assert installed_version(fleet, "n2") == NEWER
    again = fleet.desk.play("provision", *limit, ivy_version=NEWER).succeeded()
    assert again.recap("changed") == 0


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


def installed_version(fleet: Fleet, name: str) -> str:
    """The version of the package on a node."""
    return fleet.nodes[name].run(["dpkg-query", "--show", "--showformat=${Version}", "ivy"]).stdout


def newer(package: Path, directory: Path) -> Path:
    """The same package, said to be a newer one."""
    tree = directory / "tree"
    run(["dpkg-deb", "--raw-extract", package, tree])
    control = tree / "DEBIAN" / "control"
    control.write_text(control.read_text().replace(f"Version: 1:{THIS}", f"Version: {NEWER}"))
    made = directory / f"ivy_{THIS}+new_all.deb"
    run(["dpkg-deb", "--build", "--root-owner-group", tree, made])
    return made
