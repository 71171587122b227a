"""Nothing is lost and little is sent twice, whatever dies or is cut off, at random moments while sampling."""

import random
from collections import Counter
from collections.abc import Generator
from pathlib import Path

import pytest
from testbed.bed import Bed, Node

from tests.broker.platforms import MortalPlatform, MortalThingsBoard, TentaPlatform
from tests.node import damage, fake_clock, small_disk
from tests.node.conftest import use_backend
from tests.node.faults import Cause, Faults
from tests.node.sampling import add_sampler, arrived, be_impatient, sampled

WINDOW = 50  # max_parallel_messages
SEED = random.SystemRandom().randrange(10**6)
# With log messages each service has the queue open twice.
VERBOSITY = {"file_archive": "DEBUG", "console_prints": "DEBUG", "message_sending": "INFO"}


@pytest.fixture(params=["tenta", "thingsboard"])
def platform(request: pytest.FixtureRequest, bed: Bed, tmp_path: Path) -> Generator[MortalPlatform, None, None]:
    """Each platform in turn."""
    platform: MortalPlatform = (
        TentaPlatform(tmp_path / "broker", 1883, bed.address, "n1")
        if request.param == "tenta"
        else MortalThingsBoard(tmp_path / "broker", 1883, bed.address, "n1")
    )
    yield platform
    platform.close()


def schedule(faults: Faults, sweep: bool) -> list[tuple[str, Cause]]:
    """How often each of them, in random order. The longest one takes more than a minute."""
    times = {"broker stalled and killed": 2} if sweep else {}
    each = {name: times.get(name, 6 if sweep else 1) for name in faults.kinds()}
    everything = faults.kinds() | faults.moments()
    some = [(name, cause) for name, cause in everything.items() for _ in range(each.get(name, 3))]
    faults.chance.shuffle(some)
    return some


def test_no_sample_is_lost_whatever_fails(
    node: Node, platform: MortalPlatform, request: pytest.FixtureRequest
) -> None:
    sweep = bool(request.config.getoption("--sweep"))
    prepare(node, platform)
    faults = Faults(node, platform, random.Random(SEED), longest_stall=61 if sweep else 6)
    some = schedule(faults, sweep)
    count = sum(name in faults.kinds() for name, _ in some)
    print(f"{platform.provider}: seed {SEED}, {count} faults: {dict(Counter(name for name, _ in some))}")
    for name, cause in some:
        faults.cause(name, cause)
    node.run(["systemctl", "stop", "ivy-fast-sampler"])
    wanted = sampled(node) - faults.excused
    try:
        node.wait_for(lambda: wanted <= arrived(platform.samples()).keys(), 60, "all samples at the broker")
    finally:
        failed = node.run(["systemctl", "list-units", "--failed", "--no-legend", "--plain"]).stdout.splitlines()
        duplicates = report(node, faults, platform, failed)
    platform.check()
    assert duplicates <= len(some) * WINDOW
    assert not failed


def prepare(node: Node, platform: MortalPlatform) -> None:
    """A node that samples and sends, with all that faults need."""
    be_impatient(node)
    node.run(["apt-get", "install", "--yes", damage.PACKAGE])
    fake_clock.install(node)
    small_disk.insert(node)
    use_backend(node, platform.provider, platform.address, platform.port, logging_verbosity=VERBOSITY)
    add_sampler(node)
    node.wait_for(lambda: arrived(platform.samples()), 20, "the first samples")


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
