"""A staged update while links and power fail: nothing is lost, a bad release stops at the canaries."""

import csv
import json
import random
from pathlib import Path

import pytest
from testbed.waiting import wait_for

from tests.fleet.conftest import Provisioned
from tests.fleet.faults import CRASHES, Weather
from tests.fleet.fleet import Fleet
from tests.support.releases import THIS

BAD, GOOD = "9.1.0", "9.2.0"
SEED = random.SystemRandom().randrange(10**6)
SECONDS_BETWEEN_FAULTS = 10  # somewhere in the fleet, in the mean
SOAK = {"ivy_soak_seconds": 2, "ivy_batch": "50%"}
DEAD = "ivy-system-checks"  # on one node, from before the update
DROP_IN = f"/etc/systemd/system/{DEAD}.service.d/dead.conf"


def samples(directory: Path, name: str) -> set[float]:
    """The timestamps of all data messages in the collected archive of a node."""
    found = set()
    for path in (directory / name).glob("*.csv"):
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        found |= {float(row["timestamp"]) for row in rows if json.loads(row["message_body"])["variant"] == "data"}
    return found


def weather(fleet: Fleet, chance: random.Random) -> Weather:
    """It begins when the first canary tries the bad release, so that a trial is interrupted for sure."""

    def is_on_trial() -> bool:
        return fleet.versions()[fleet.canaries[0]] == BAD

    return Weather(list(fleet.nodes.values()), chance, SECONDS_BETWEEN_FAULTS, is_on_trial)


def test_a_bad_release_stops_at_the_canaries_and_a_good_one_goes_everywhere(
    provisioned: Provisioned, tmp_path: Path
) -> None:
    """Also to a node of which one sensor was dead before; that is named."""
    fleet, chance = provisioned.fleet, random.Random(SEED)
    fleet.maker.release(BAD, CRASHES, signer=fleet.signer)
    fleet.maker.release(GOOD, signer=fleet.signer)
    broken = fleet.nodes[fleet.names[-1]]
    drop_in = broken.path(DROP_IN)
    drop_in.parent.mkdir(parents=True, exist_ok=True)
    drop_in.write_text("[Service]\nExecStart=\nExecStart=false\n")
    broken.run(["systemctl", "daemon-reload"])
    broken.run(["systemctl", "restart", DEAD], check=False)
    with weather(fleet, chance) as storm:
        bad = fleet.desk.play("update", ivy_target=BAD, **SOAK)
        good = fleet.desk.play("update", ivy_target=GOOD, **SOAK)
    print(
        f"seed {SEED}, {dict(storm.counts)}: bad release stopped after {bad.seconds:.0f} s,"
        f" good one everywhere after {good.seconds:.0f} s"
    )
    assert bad.status != 0
    assert f"the node goes on with version {THIS}" in bad.output, bad.output[-6000:]
    assert "the sensor is not there" in bad.output, bad.output[-6000:]
    for name in fleet.names:
        assert decided(fleet, name, BAD) <= {False}
        assert bool(decided(fleet, name, BAD)) == (name in fleet.canaries)
    good.succeeded()
    assert set(fleet.versions().values()) == {GOOD}
    found = json.loads(broken.run(["ivy", "releases", "--json"]).stdout)["decisions"]
    assert [DEAD in found["reason"] for found in found if found["accepted"] and found["version"] == GOOD] == [True]
    drop_in.unlink()
    broken.run(["systemctl", "daemon-reload"])
    broken.run(["systemctl", "restart", DEAD])
    for name in fleet.names:
        wait_for(lambda name=name: fleet.status(name)["well"], 60, f"{name} to be well")  # type: ignore[misc]
    assert_nothing_is_lost(fleet, tmp_path)


def decided(fleet: Fleet, name: str, version: str) -> set[bool]:
    """What a node decided about a version."""
    found = json.loads(fleet.nodes[name].run(["ivy", "releases", "--json"]).stdout)["decisions"]
    return {decision["accepted"] for decision in found if decision["version"] == version}


def assert_nothing_is_lost(fleet: Fleet, directory: Path) -> None:
    """What the archives hold has arrived at the broker."""
    fleet.desk.play("collect", ivy_archive=str(directory)).succeeded()
    lost = 0
    for name in fleet.names:
        taken = samples(directory, name)
        assert len(taken) > 20, f"{name} took {len(taken)} samples"
        wait_for(lambda name=name, taken=taken: taken <= set(fleet.arrived(name)), 60, f"all samples of {name}")  # type: ignore[misc]
        lost += len(taken - set(fleet.arrived(name)))
    print(f"{sum(len(samples(directory, name)) for name in fleet.names)} samples in the archives, {lost} lost")


@pytest.mark.parametrize(
    "variables", [{}, {"ivy_target": "9.9.9", "ivy_canaries": "nobody"}, {"ivy_target": "v9.9.9"}]
)
def test_without_canaries_or_version_nothing_is_updated(
    provisioned: Provisioned, variables: dict[str, str]
) -> None:
    play = provisioned.fleet.desk.play("update", **variables)
    assert play.status != 0
    assert "Name the version, without a v," in play.output


def test_a_list_of_nodes_is_just_those(provisioned: Provisioned) -> None:
    fleet = provisioned.fleet
    some = [*fleet.canaries, *fleet.names[-2:]]
    play = fleet.desk.play("update", "--list-hosts", ivy_target=GOOD, ivy_nodes=",".join(some))
    of_others = play.output.partition("Update the others")[2].partition("play #")[0]
    listed = of_others.partition("hosts (")[2].split()
    assert sorted(name for name in listed if name in fleet.names) == sorted(fleet.names[-2:]), play.output
