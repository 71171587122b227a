"""One node is away, one is held, one has a dead sensor and had a bad package: one update, and one table."""

import csv
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.fleet.conftest import Provisioned
from tests.fleet.faults import CRASHES
from tests.fleet.fleet import Fleet
from tests.support.packages import repacked

GOOD, BAD = "9.8.0", "9.7.0"
DEAD = "ivy-system-checks"
WHY = "the mast is being painted"


@pytest.fixture
def troubled(provisioned: Provisioned, package: Path, tmp_path: Path) -> Generator[Fleet, None, None]:
    """The last three nodes are in trouble."""
    fleet = provisioned.fleet
    held, away, sick = (fleet.nodes[name] for name in fleet.names[-3:])
    held.run(["ivy", "hold", WHY])
    made = repacked(package, sick.path("/root/made"), BAD, CRASHES)
    sick.run(["apt-get", "install", "--yes", f"/root/made/{made.name}"], timeout=300)
    sick.run(["ivy", "releases", "--wait", "300"], check=False, timeout=360)
    drop_in = sick.path(f"/etc/systemd/system/{DEAD}.service.d/dead.conf")
    drop_in.parent.mkdir(parents=True, exist_ok=True)
    drop_in.write_text("[Service]\nExecStart=\nExecStart=false\n")
    sick.run(["systemctl", "daemon-reload"])
    sick.run(["systemctl", "restart", DEAD], check=False)
    away.link(False)
    yield fleet
    away.link(True)
    drop_in.unlink()
    sick.run(["systemctl", "daemon-reload"])
    sick.run(["systemctl", "restart", DEAD])
    held.run(["ivy", "hold", "--end"])


@pytest.mark.thorough
def test_who_can_has_it_and_the_table_says_why_others_have_not(troubled: Fleet, tmp_path: Path) -> None:
    held, away, sick = troubled.names[-3:]
    troubled.maker.release(GOOD, signer=troubled.signer)
    before = troubled.versions()
    patience = {"ivy_soak_seconds": 2, "ivy_seconds_to_wait": 20}
    update = troubled.desk.play("update", ivy_target=GOOD, ivy_batch="100%", **patience)
    assert update.status != 0 and update.recap("failed") == 1, "the one that is away, named at the end"
    assert WHY in update.output
    report = tmp_path / "fleet.csv"
    table = troubled.desk.play("status", ivy_report=str(report))
    print(table.output[table.output.index("node  ") :])
    expected = dict.fromkeys(troubled.names, GOOD) | {held: before[held], away: before[away]}
    assert troubled.versions() == expected
    lines = {line["node"]: line for line in csv.DictReader(report.read_text().splitlines())}
    assert {name: line["version"] for name, line in lines.items()} == {**expected, away: ""}
    assert WHY in table.output
    problems = {name: line["problems"] for name, line in lines.items()}
    assert "cannot be reached" in problems[away] and DEAD in problems[sick]
    assert not [name for name in troubled.names[:-3] if problems[name]]
