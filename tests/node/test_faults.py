"""Nothing is lost and little is sent twice, whatever dies or is cut off, at random moments while sampling."""

import itertools
import random
from collections import Counter
from collections.abc import Generator
from pathlib import Path

import pytest
from testbed.bed import Bed, Node

from tests.node.faults import Cause, Faults
from tests.node.sampling_node import prepare
from tests.support.backend_node import SENSOR
from tests.support.cases import with_few
from tests.support.platforms import MortalPlatform, MortalThingsBoard, TentaPlatform
from tests.support.sampling import arrived, sampled

TIMES_EACH = 1
TIMES_EACH_IN_A_SWEEP = 5
SECONDS_OF_STALL = 5.0
SECONDS_OF_STALL_IN_A_SWEEP = 58.0  # up to 70: the backend gives the connection up after 60
WINDOW = 500  # max_parallel_messages
LINKS = [("tenta", "5"), ("thingsboard", "3.1.1")]
LINKS_IN_A_SWEEP = list(itertools.product(["tenta", "thingsboard"], ["5", "3.1.1"]))
SEED = random.SystemRandom().randrange(10**6)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    links = LINKS_IN_A_SWEEP if metafunc.config.getoption("--sweep") else with_few(LINKS)
    metafunc.parametrize(("platform", "protocol"), links, indirect=["platform"])


@pytest.fixture
def platform(request: pytest.FixtureRequest, bed: Bed, tmp_path: Path) -> Generator[MortalPlatform, None, None]:
    """Each platform in turn."""
    platform: MortalPlatform = (
        TentaPlatform(tmp_path / "broker", 1883, bed.address)
        if request.param == "tenta"
        else MortalThingsBoard(tmp_path / "broker", 1883, bed.address, SENSOR)
    )
    yield platform
    platform.close()


def schedule(faults: Faults, sweep: bool) -> list[tuple[str, Cause]]:
    """All that is to happen, in random order. The longest fault takes more than a minute."""
    times = dict.fromkeys(faults.kinds(), TIMES_EACH_IN_A_SWEEP if sweep else TIMES_EACH)
    times["broker stalled and killed"] = min(2, times["broker stalled and killed"])
    times |= dict.fromkeys(faults.moments(), 3)
    causes = faults.kinds() | faults.moments()
    some = [(name, causes[name]) for name, count in times.items() for _ in range(count)]
    faults.chance.shuffle(some)
    return some


def test_no_sample_is_lost_whatever_fails(
    node: Node,
    platform: MortalPlatform,
    protocol: str,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sweep = bool(request.config.getoption("--sweep"))
    prepare(node, platform, protocol)
    stall = SECONDS_OF_STALL_IN_A_SWEEP if sweep else SECONDS_OF_STALL
    faults = Faults(node=node, platform=platform, chance=random.Random(SEED), least_stall=stall)
    some = schedule(faults, sweep)
    of_each = Counter(name for name, _ in some if name in faults.kinds())
    with capsys.disabled():
        print(f"\n{platform.provider} by MQTT {protocol}, seed {SEED}: {of_each.total()} faults, {dict(of_each)}")
    for name, cause in some:
        faults.cause(name, cause)
    node.run(["systemctl", "stop", "ivy-fast-sampler"])
    wanted = sampled(node) - faults.excused
    try:
        node.wait_for(lambda: wanted <= arrived(platform.samples()).keys(), 60, "all samples at the broker")
    finally:
        failed = node.run(["systemctl", "list-units", "--failed", "--no-legend", "--plain"]).stdout.splitlines()
        with capsys.disabled():
            duplicates = report(node, faults, platform, failed)
    platform.check()
    assert duplicates <= len(some) * WINDOW
    assert not failed


def report(node: Node, faults: Faults, platform: MortalPlatform, failed: list[str]) -> int:
    """Print what became of the samples. Returns how many came twice."""
    counts = arrived(platform.samples())
    duplicates = counts.total() - len(counts)
    taken = sampled(node)
    lost = taken - counts.keys() - faults.excused
    print(f"{len(taken)} samples, {len(lost)} lost {sorted(lost)[:10]}, {duplicates} duplicates, failed: {failed}")
    unread = len(faults.excused - counts.keys())
    print(f"of damaged queues, SQLite could not read {len(faults.excused)} others, of which {unread} are lost")
    return duplicates
