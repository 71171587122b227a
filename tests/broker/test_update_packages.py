"""Update packages of ThingsBoard: what a backend makes of them, and what its update dashboard shows then."""

import functools
import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from testbed.waiting import wait_for

from ivy import constants
from tests.support.backend_node import MakeNode, Node, data_message
from tests.support.platforms import ThingsBoardPlatform, judged
from tests.support.thingsboard_server import GRANTED, ThingsBoardServer
from tests.support.update_packages import UpdatePackages

HASTY = {"to_try_again": 0.02, "between_offers": 0.0}
OTHERS = "sw_title: the package is one of 'other', but this node runs 'ivy'; assign one with that title"


@pytest.fixture
def platform() -> Generator[ThingsBoardPlatform, None, None]:
    """A server; all states that a device reports there must be in its order."""
    with judged(ThingsBoardPlatform()) as platform:
        yield platform


@pytest.fixture
def node(make_node: MakeNode, platform: ThingsBoardPlatform) -> Node:
    """A node that is configured for the server."""
    return make_node(platform.port, provider="thingsboard")


def _state(node: Node) -> dict[str, Any]:
    file = node.data / "backend" / "state.json"
    state: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return state


def _wait_for_packages(node: Node, *versions: str) -> list[str]:
    """Wait until these wait for the updater, and return what tells their assignments apart."""

    def found() -> list[Any]:
        return [package["version"] for package in _state(node).get("packages", [])]

    wait_for(lambda: found() == list(versions), 10, f"the packages {versions}")
    return [package["assignment"] for package in _state(node)["packages"]]


def test_what_runs_is_shown_at_each_connect(node: Node, platform: ThingsBoardPlatform) -> None:
    node.start(hurry=HASTY)
    for kind in ("sw", "fw"):
        packages = platform.packages(kind)
        wait_for(functools.partial(packages.latest, "current_version"), 10, "the version that runs")
        assert packages.latest("current_title") == constants.NAME
        assert packages.latest("current_version") == constants.VERSION.as_identifier()
    shown = len(platform.server.stored)
    platform.server.cut()
    wait_for(lambda: len(platform.server.stored) > shown, 10, "it again")


def test_a_package_that_is_assigned_waits_for_the_updater_and_is_no_news_at_the_next_connect(
    node: Node, platform: ThingsBoardPlatform
) -> None:
    packages = platform.packages()
    packages.assign("v9.1.0")
    node.start(hurry=HASTY)
    first = _wait_for_packages(node, "9.1.0")
    flag = node.data / "run-backend" / Path(constants.PENDING_CONFIG_FLAG).name
    wait_for(flag.exists, 10, "the word for the updater")
    platform.server.cut()
    platform.packages("fw").assign("9.2.0", size=None, url="https://example.org/ivy.bin")
    second = _wait_for_packages(node, "9.1.0", "9.2.0")
    assert second[0] == first[0] and packages.latest("state") == "INITIATED"
    packages.unassign()
    packages.assign("9.1.0")
    wait_for(lambda: first[0] not in (node.data / "backend" / "state.json").read_text(), 10, "a new assignment")
    _wait_for_packages(node, "9.2.0", "9.1.0")


def test_a_package_of_another_project_is_shown_as_failed_with_the_reason(
    node: Node, platform: ThingsBoardPlatform
) -> None:
    packages = platform.packages()
    packages.assign("9.1.0", title="other")
    process = node.start(hurry=HASTY)
    wait_for(lambda: packages.latest("state") == "FAILED", 10, "the state")
    assert packages.latest("error") == OTHERS
    for _ in range(2):
        process.terminate()
        process.wait()
        process = node.start(hurry=HASTY)
        node.wait_until_connected()
        node.add(data_message(number=1))  # the answer to what was asked at the connect comes before its PUBACK
        node.wait_until_empty()
    assert packages.states() == ["FAILED"]
    packages.assign("9.1.0")
    _wait_for_packages(node, "9.1.0")


def _reported(*states: str, error: str | None = None, **current: str) -> UpdatePackages:
    """What the dashboard has of a device that reported these states."""
    packages = UpdatePackages(ThingsBoardServer(lambda *_: GRANTED))
    server = packages.server
    server.stop()
    for moment, state in enumerate(states):
        server.stored[moment, "sw_state"] = state
        if state == "FAILED" and error:
            server.stored[moment, "sw_error"] = error
        server.stored |= {(moment, key): value for key, value in current.items() if state == "UPDATED"}
    return packages


ROAD = ("DOWNLOADING", "DOWNLOADED", "VERIFIED", "UPDATING")


def test_the_dashboard_takes_the_states_in_its_order() -> None:
    running = {"current_sw_version": "9.1.0"}
    assert _reported(*ROAD, "UPDATED", *ROAD, "FAILED", "UPDATED", error="no", **running).faults() == []


@pytest.mark.parametrize(
    "states",
    [
        ("DOWNLOADED",),
        (*ROAD[:2], "UPDATING"),
        (*ROAD[:2], "DOWNLOADING"),
        (*ROAD, "DOWNLOADING"),
        ("DOWNLOADING", "DOWNLOADING"),
        ("downloading",),
        (*ROAD, "FAILED"),
        (*ROAD, "UPDATED"),
    ],
)
def test_it_can_make_nothing_of_others_nor_of_an_end_that_says_nothing(states: tuple[str, ...]) -> None:
    assert _reported(*states).faults() != []
