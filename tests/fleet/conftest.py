"""The fleet for the tests: 4 nodes, in a sweep 20, provisioned once from bare Debian."""

from collections.abc import Generator
from dataclasses import dataclass

import pytest
from testbed.bed import Bed, Snapshot

from tests.fleet.desk import Play
from tests.fleet.fleet import Fleet
from tests.support.beds import bed, furnished, node_package, package

__all__ = ["bed", "furnished", "node_package", "package"]

SIZE, CANARIES = 4, 1
SIZE_IN_A_SWEEP, CANARIES_IN_A_SWEEP = 20, 3


@dataclass(frozen=True)
class Provisioned:
    """How the first plays went."""

    fleet: Fleet
    check: Play
    """`--check --diff` on bare nodes."""
    first: Play


@pytest.fixture(scope="session")
def fleet(
    bed: Bed, furnished: Snapshot, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Generator[Fleet, None, None]:
    """Bare nodes, and a desk with a repository that holds the package."""
    is_sweep = request.config.getoption("--sweep")
    size, canaries = (SIZE_IN_A_SWEEP, CANARIES_IN_A_SWEEP) if is_sweep else (SIZE, CANARIES)
    fleet = Fleet(bed, tmp_path_factory.mktemp("fleet"), size, canaries, furnished=furnished)
    yield fleet
    fleet.close()


@pytest.fixture(scope="session")
def provisioned(fleet: Fleet, package: object) -> Provisioned:
    """Nodes that the role has made of bare ones."""
    fleet.set_up()
    check = fleet.desk.play("provision", "--check", "--diff", "--limit", fleet.names[-1])
    first = fleet.desk.play("provision", "-vvv", ivy_batch="100%")
    return Provisioned(fleet, check, first)
