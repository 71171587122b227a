"""A power cut on a disk that forgets what nobody flushed: no promise is broken, and no file of ivy's is damaged."""

import json
import random
import sys
import time
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path

import pytest
from testbed.bed import Bed, Node, Snapshot
from testbed.roots import PROJECT
from testbed.run import CommandError, run
from testbed.tools import why_no_disk

from tests.node import disk_look, forgetful_node
from tests.node.aftermath import wait_for_end
from tests.node.disk_look import CURRENT, Damage
from tests.node.forgetful_node import FIXED_SEED, Found, Recorded, choose, look_at, promised, promises, recorded
from tests.support.installed import be_calm, install, read_config, use_backend
from tests.support.platforms import TentaPlatform
from tests.support.sampling import add_sampler, arrived, be_impatient, mark, sampled
from tests.support.update_site import MARKED, REPOSITORY, SHORTEST_PROBATION, UpdateSite, with_tenta

WHY_NOT = why_no_disk()
pytestmark = pytest.mark.skipif(WHY_NOT is not None, reason=f"no disk that forgets: {WHY_NOT}")

CUTS, CUTS_IN_A_SWEEP = 10, 200
POINTS = 20
WINDOW = 500
SECONDS_OF_AN_UPDATE = 12.0
SEED = random.SystemRandom().randrange(10**6)

Say = Callable[[str], None]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    """Tells what was found, whoever listens."""

    def say(line: str) -> None:
        with capsys.disabled():
            print(f"\n{line}", end="", flush=True)

    return say


@pytest.fixture
def platform(bed: Bed, tmp_path: Path) -> Generator[TentaPlatform, None, None]:
    with closing(TentaPlatform(tmp_path / "broker", 1883, bed.address)) as platform:
        yield platform


@pytest.fixture
def forgetful(node: Node) -> Node:
    """A node with such a disk."""
    forgetful_node.be_forgetful(node)
    node.boot()
    return node


@pytest.fixture
def sampling(forgetful: Node, platform: TentaPlatform) -> Node:
    """The same, as it samples and sends."""
    be_impatient(forgetful)
    updater = {"repository": REPOSITORY, "provider": "github", "provider_host": "github.com", **SHORTEST_PROBATION}
    use_backend(forgetful, platform.provider, platform.address, platform.port, updater=updater)
    add_sampler(forgetful)
    forgetful.wait_for(lambda: arrived(platform.samples()), 20, "the first samples")
    return forgetful


@pytest.fixture
def updated(bed: Bed, forgetful: Node, tmp_path: Path) -> Generator[UpdateSite, None, None]:
    """The same, as it gets its updates over the air."""
    with closing(with_tenta(bed, forgetful, tmp_path)) as site:
        site.connect(updater=SHORTEST_PROBATION)
        forgetful.run(["sync"])  # what the test has written itself
        yield site


@pytest.fixture
def cuts(request: pytest.FixtureRequest) -> list[int]:
    """The seed of each cut of a running node."""
    return seeds(CUTS_IN_A_SWEEP if request.config.getoption("--sweep") else CUTS)


def seeds(count: int) -> list[int]:
    """The first half is the same in each run."""
    fixed, fresh = random.Random(FIXED_SEED), random.Random(SEED)
    return [(fixed if number < count / 2 else fresh).randrange(10**6) for number in range(count)]


Check = Callable[[str, Recorded], None]


@pytest.fixture
def check(request: pytest.FixtureRequest, say: Say) -> Check:
    """Looks at the disks of a change that was recorded, says what was found, and fails if that is not nothing."""

    def check(name: str, record: Recorded) -> None:
        written = record.read().written()
        if request.config.getoption("--sweep"):
            chosen = written
        else:
            halves = [choose(written, POINTS // 2, random.Random(seed)) for seed in (FIXED_SEED, SEED)]
            chosen = [instant for half in halves for instant in half]
        found = look_at(record, list(zip(chosen, seeds(len(chosen)), strict=True)))
        say(f"{name}, fresh seed {SEED}: {len(written)} instants, {found}")
        assert found == Found(found.points, found.promised)

    return check


def test_what_nobody_flushed_is_forgotten(bed: Bed, furnished: Snapshot) -> None:
    """And nothing else: a sync in the node is a flush of the disk."""
    node = bed.node("sick", base=furnished)
    with pytest.raises(CommandError, match="forgets nothing"):
        by_command(bed, "cut", "--forget", "sick")
    by_command(bed, "disk", "sick", "forgetful")
    node.boot()
    node.run(["sh", "-c", "echo old >/root/changed; sync; echo new >/root/changed; echo content >/root/lost"])
    with recorded(node) as record:
        node.run(["sh", "-c", "echo content >/root/kept && sync /root/kept"])
        synced = node.disk.instant()
    flushes = [instant.write is None for instant in record.read().instants[:synced]]
    assert flushes.index(True) > 0, "it was written, then flushed"
    assert by_command(bed, "cut", "--forget", "--seed", "7", "sick").startswith("seed 7: of ")
    node.boot()
    assert node.path("/root/kept").read_text() == "content\n"
    assert node.path("/root/changed").read_text() in ("old\n", "new\n", "")
    check_illness(bed, node)
    node.destroy()


def by_command(bed: Bed, *arguments: str) -> str:
    """Returns what the command says."""
    command = [sys.executable, str(PROJECT / "packaging/testbed/testbed"), *arguments]
    return run(command, env={"IVY_TESTBED": bed.name, "PYTHONDONTWRITEBYTECODE": "1"}).stdout


def check_illness(bed: Bed, node: Node) -> None:
    """Bad sectors, and a disk that takes nothing any more."""
    node.run(["sh", "-c", "seq 100000 >/root/file; seq 9 >/root/other"])
    by_command(bed, "disk", "sick", "bad", "/root/file", "--on", "read")
    with pytest.raises(CommandError, match="Input/output error"):
        node.run(["cat", "/root/file"])
    assert node.run(["cat", "/root/other"]).stdout.split() == list("123456789")
    by_command(bed, "disk", "sick", "healthy")
    assert node.run(["tail", "-n1", "/root/file"]).stdout == "100000\n"
    by_command(bed, "disk", "sick", "bad", "/root/file", "--on", "write")
    write = ["dd", "if=/dev/zero", "of=/root/file", "conv=notrunc,fsync", "count=8"]
    with pytest.raises(CommandError, match="Input/output error"):
        node.run(write)
    by_command(bed, "disk", "sick", "healthy")
    node.run(write)
    by_command(bed, "disk", "sick", "read-only")
    create = ["sh", "-c", "echo >/root/new && sync /root/new"]
    with pytest.raises(CommandError):
        node.run(create)
    by_command(bed, "cut", "--forget", "sick")
    node.boot()
    node.run(create)


def test_no_sample_and_no_config_is_lost(
    sampling: Node, platform: TentaPlatform, cuts: list[int], check: Check, say: Say
) -> None:
    node = sampling
    with recorded(node) as record:
        wait_for_new_samples(node, platform)
        platform.stop()
        apply_config(node, record)
        platform.start()
        wait_for_new_samples(node, platform)
    check("samples and a config by hand", record)
    damage = Damage()
    for number, seed in enumerate(cuts):
        cut(node, platform, seed, is_broker_there=bool(number % 2), damage=damage, say=say)
    node.run(["systemctl", "stop", "ivy-fast-sampler"])
    wanted = sampled(node)
    node.wait_for(lambda: wanted <= arrived(platform.samples()).keys(), 60, "all samples at the broker")
    counts = arrived(platform.samples())
    archive = disk_look.archived_bodies(node.root)
    missing = wanted - set(disk_look.samples(archive))
    failed = node.run(["systemctl", "list-units", "--failed", "--no-legend", "--plain"]).stdout.splitlines()
    twice = counts.total() - len(counts)
    result = f"{len(wanted - counts.keys())} lost, {twice} twice, {len(missing)} not archived, damage: {damage}"
    say(f"{len(cuts)} cuts, fresh seed {SEED}: {len(wanted)} promised, {result}, failed: {failed}")
    assert not missing
    assert twice <= len(cuts) * WINDOW
    assert not damage.found
    assert not failed
    platform.check()


def apply_config(node: Node, record: Recorded) -> None:
    """As the admin does."""
    config = read_config(node)
    config["dummy_procedure"]["seconds_between_datapoints"] += 1
    node.path("/root").joinpath("config.json").write_text(json.dumps(config))
    node.run(["ivy", "config", "apply", "--now", "/root/config.json"])
    promise_interval(record, config["dummy_procedure"]["seconds_between_datapoints"])


def promise_interval(record: Recorded, seconds: int) -> None:
    """From now on, the config is this one."""

    def holds(root: Path) -> bool:
        config = json.loads((root / CURRENT / "config" / "config.json").read_text())
        return bool(config["dummy_procedure"]["seconds_between_datapoints"] == seconds)

    record.promise("the config that was accepted", holds)


def wait_for_new_samples(node: Node, platform: TentaPlatform) -> None:
    since = mark(node)
    node.wait_for(lambda: sampled(node, since) & arrived(platform.samples()).keys(), 60, "new samples")


def cut(node: Node, platform: TentaPlatform, seed: int, *, is_broker_there: bool, damage: Damage, say: Say) -> None:
    """Cut a node's power at a random moment, look at its disk, and let it go on with that.

    Without a broker what is queued is seen, and with one the archive, as what was sent is in the queue no more.
    """
    if not is_broker_there:
        platform.stop()
    time.sleep(random.Random(seed).uniform(0.2, 2))  # a random moment is what is tested
    before = disk_look.files(node.root)
    _, fate = node.forget(seed)
    wanted = promised(promises(node), promises(node).stat().st_size)
    disk_look.look(node.path("/"), [before], damage)
    lost = wanted - disk_look.kept(node.root)
    say(f"cut by seed {seed}: {fate}, {len(lost)} lost, damage: {damage}")
    assert not lost
    forgetful_node.keep_promises(node)
    node.boot()
    if not is_broker_there:
        platform.start()
    wait_for_new_samples(node, platform)


def test_an_update_and_an_offer_of_a_config(updated: UpdateSite, check: Check) -> None:
    updated.release("9.1.0", MARKED)
    with recorded(updated.node) as update:
        updated.accepts("9.1.0")
        update.promise("the release that was accepted", lambda root: (root / CURRENT).readlink().name == "9.1.0")
        updated.wait_for_samples()
    with recorded(updated.node) as offer:
        updated.accepts(dummy_procedure={"seconds_between_datapoints": 2})
        promise_interval(offer, 2)
        updated.wait_for_samples()
    check("update", update)
    check("offer of a config", offer)


@pytest.mark.thorough
def test_cuts_during_updates(updated: UpdateSite, cuts: list[int], say: Say) -> None:
    """Each offer gets its decision, and what runs then is whole."""
    node = updated.node
    for version in ("9.1.0", "9.2.0"):
        updated.release(version, MARKED)
    damage = Damage()
    for number, seed in enumerate(cuts):
        version = ("9.1.0", "9.2.0")[number % 2]
        revision = updated.offer(version)
        time.sleep(random.Random(seed).uniform(0, SECONDS_OF_AN_UPDATE))  # a random moment is what is tested
        before = disk_look.files(node.root)
        _, fate = node.forget(seed)
        disk_look.look(node.path("/"), [before], damage)
        running = node.path(f"/{CURRENT}", follow=False).readlink().name
        say(f"cut by seed {seed}: {fate}, now {running}, damage: {damage}")
        node.boot()
        assert updated.decision(revision), updated.reason(revision)
        assert updated.running()[0] == version
        updated.wait_for_samples()
    assert not damage.found


def test_an_environment_that_is_made_again(updated: UpdateSite, check: Check) -> None:
    node = updated.node
    wait_for_end(node)  # of a pass that was begun before, and would not look again
    [mark] = node.path(f"/{CURRENT}/.venv").glob("lib/python3.*/site-packages/ivy.pth")
    inside, content = mark.relative_to(node.path(f"/{CURRENT}")), mark.read_text()
    mark.unlink()
    mark.parents[3].joinpath("fits").unlink()
    with recorded(node) as record:
        node.run(["systemctl", "start", "ivy-updater"])
        wait_for_end(node)
        assert mark.read_text() == content
        record.promise("an environment", lambda root: (root / CURRENT / inside).read_text() == content)
        updated.wait_for_samples()
    check("repair of an environment", record)


def test_an_installation(bed: Bed, furnished: Snapshot, package: Path, check: Check) -> None:
    node = bed.node("new", base=furnished)
    node.boot()
    node.path("/etc/dpkg/dpkg.cfg.d/testbed").unlink()  # or dpkg would sync nothing
    be_calm(node)
    forgetful_node.be_forgetful(node)
    node.boot()
    with recorded(node) as record:
        install(node, package)
        record.promise("all files of the package", has_package)
    check("installation", record)
    node.destroy()


def has_package(root: Path) -> bool:
    """Whether all files of the package are on a disk as they should be."""
    sums = (root / "var/lib/dpkg/info/ivy.md5sums").read_text().splitlines()
    return all(disk_look.has_digest(root / line[34:], line[:32]) for line in sums) and bool(sums)
