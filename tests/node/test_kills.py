"""A pass of the updater that is killed at any instant: the node samples, and the offer gets its one decision."""

import random
from collections.abc import Generator, Sequence

import pytest
from testbed.bed import Bed, Snapshot

from tests.node import durability
from tests.node.kill_workshop import Known, Trial, Workshop, open_workshop
from tests.node.kills import choose, cut_at, cut_during, kill_at, kill_during
from tests.support import strace

POINTS_OF_EACH_CASE = 2
POINTS_OF_EACH_CASE_IN_A_SWEEP = 200
KILLS_OF_EACH_CASE_IN_A_SWEEP = 8
STEPS = ["fetch", "test"]


@pytest.fixture(scope="module")
def workshop(
    bed: Bed, installed: Snapshot, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Workshop, None, None]:
    with open_workshop(bed, installed, tmp_path_factory.mktemp("kills")) as workshop:
        yield workshop


def test_the_power_is_cut_at_each_call(workshop: Workshop, request: pytest.FixtureRequest) -> None:
    is_sweep = request.config.getoption("--sweep")
    most = POINTS_OF_EACH_CASE_IN_A_SWEEP if is_sweep else POINTS_OF_EACH_CASE
    trials: list[Trial] = []
    for known in workshop.known:
        points = points_of(known, is_sweep)
        chosen = choose(points, most)
        print(f"{known.prepared.case.name}: {len(chosen)} of {len(points)} calls")
        trials += [(known, f"cut before {call}", cut_at(call)) for call in chosen]
    killed = workshop.at_once(trials)
    print(f"{len(trials)} points tried, {killed} passes killed; each offer got its one decision")
    assert_most_were_killed(killed, trials)


@pytest.mark.thorough
def test_the_pass_alone_is_killed(workshop: Workshop, request: pytest.FixtureRequest) -> None:
    """At a call; and while foreign code runs for it, at which time the power is cut, too."""
    is_sweep = request.config.getoption("--sweep")
    at_calls = [
        (known, f"killed before {call}", kill_at(call))
        for known in workshop.known
        for call in choose(points_of(known, is_sweep), KILLS_OF_EACH_CASE_IN_A_SWEEP)
    ]
    [version] = [known for known in workshop.known if known.prepared.case.name == "version"]
    kills = {"killed": kill_during, "cut": cut_during}
    in_steps = [(version, f"{how} in {step}", kill(step)) for step in STEPS for how, kill in kills.items()]
    if not is_sweep:
        at_calls, in_steps = random.sample(at_calls, 2), random.sample(in_steps, 1)
    assert_most_were_killed(workshop.at_once(at_calls + in_steps), at_calls + in_steps)


def points_of(known: Known, is_sweep: bool) -> list[strace.Call]:
    """Where to kill. A sweep may miss some calls; where few are tried, they are such as are made each time."""
    return [
        call
        for call in known.calls
        if strace.is_persistent(call) and (is_sweep or not strace.is_of_the_queue(call))
    ]


def assert_most_were_killed(killed: int, trials: Sequence[Trial]) -> None:
    """A pass that meets another process at the queue may be over before it makes a call that was recorded."""
    assert len(trials) - killed <= max(1, len(trials) // 10)


def test_what_is_renamed_into_place_is_on_the_disk(workshop: Workshop) -> None:
    for known in workshop.known:
        name = known.prepared.case.name
        assert durability.lapses(known.calls) == [], name
        # Whether anything would be noticed: without these calls.
        syncs = [call.name for call in known.calls if call.name in ("fsync", "sync")]
        assert len(syncs) >= 10, name
        for sync in set(syncs):
            assert durability.lapses(call for call in known.calls if call.name != sync), name
