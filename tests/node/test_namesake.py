"""Debian's own package `ivy` (Apache Ivy, with a higher version) does not replace ours, whatever an admin types.

Each node sees it in its pool, as in Debian. Here a repository of ours, or none, is beside it.
"""

import json
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
from testbed.bed import Bed, Node, Snapshot
from testbed.broker import Broker
from testbed.roots import NAMESAKE_VERSIONS, POOL, add_namesake, describe_pool, index_pool, suite
from testbed.run import Argv, run

from tests.node import released
from tests.support.backend_node import PASSWORD, SENSOR
from tests.support.installed import be_calm, install, use_tenta
from tests.support.recorder import Recorder
from tests.support.releases import PROJECT, THIS
from tests.support.update_site import wait_for_sample

OURS, RELEASED = f"1:{THIS}", "1.0.0"
NAMESAKE = NAMESAKE_VERSIONS[suite()]
AFTER_ITS_EPOCH_ROSE = "9:9.9.9-1"
UPGRADES = (
    ["apt-get", "upgrade", "--yes"],
    ["apt-get", "full-upgrade", "--yes"],
    ["unattended-upgrade"],
    ["apt-get", "autoremove", "--yes"],
)
REPOSITORY = "/srv/ivy"
SOURCE = f"deb [signed-by={REPOSITORY}/ivy-archive-keyring.asc] file:{REPOSITORY} {suite()} main\n"


@pytest.fixture(scope="module")
def world(bed: Bed, tmp_path_factory: pytest.TempPathFactory) -> Generator[tuple[Broker, Recorder], None, None]:
    """A broker, and an operator who sees what arrives there."""
    users = {SENSOR: PASSWORD, "operator": PASSWORD}
    with Broker(bed.address, 1884, users, directory=tmp_path_factory.mktemp("broker")) as broker:
        recorder = Recorder(broker.address, broker.port, "operator", PASSWORD)
        yield broker, recorder
        recorder.close()


@pytest.fixture(scope="module")
def bare(bed: Bed, furnished: Snapshot) -> Snapshot:
    """A node without ivy, that Debian keeps up to date by itself."""
    node = bed.node("unattended", base=furnished)
    node.boot()
    be_calm(node)
    unattended = ["apt-get", "install", "--yes", "--no-install-recommends", "unattended-upgrades"]
    node.run(unattended, timeout=300)
    return node.snapshot("unattended")


@pytest.fixture(scope="module")
def with_released(bed: Bed, bare: Snapshot, world: tuple[Broker, Recorder]) -> Snapshot:
    """A node that runs ivy 1.0.0 and delivers."""
    node = bed.node("released", base=bare)
    node.boot()
    install(node, released.package())
    use_tenta(node, world[0])
    return node.snapshot("released")


@pytest.fixture(scope="module")
def repository(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ours, with the package under test."""
    directory = tmp_path_factory.mktemp("repository")
    published = directory / "apt"
    command: Argv = [PROJECT / "packaging/apt-repository", "--make-key", "--key", directory / "apt.key"]
    run([*command, "--codename", suite(), "--output", published, package], timeout=120)
    return published


@pytest.fixture
def boot(bed: Bed) -> Iterator[Callable[[Snapshot], Node]]:
    """Boots a node with the disk of a snapshot; it is gone after the test."""
    made: list[Node] = []

    def make(base: Snapshot) -> Node:
        made.append(bed.node("namesake", base=base))
        made[-1].boot()
        return made[-1]

    yield make
    for node in made:
        node.destroy()


def add_repository(node: Node, repository: Path) -> None:
    """Ours beside Debian's."""
    node.copy_in(repository, REPOSITORY)
    node.path("/etc/apt/sources.list.d").joinpath("ivy.list").write_text(SOURCE)
    node.run(["apt-get", "update"], timeout=120)


def installed_version(node: Node) -> str:
    """The version of the package `ivy`, whichever it is."""
    return node.run(["dpkg-query", "--show", "--showformat=${Version}", "ivy"]).stdout


def assert_it_delivers(node: Node, recorder: Recorder, version: str) -> None:
    """The package is ours, of this version, and what is sampled now arrives."""
    assert installed_version(node) == version
    wait_for_sample(node, recorder)


def upgrade_in_every_way(node: Node, recorder: Recorder, version: str) -> None:
    """After all that an admin, or a timer, may do, the node still delivers by the same version."""
    for command in UPGRADES:
        node.run(command, env={"DEBIAN_FRONTEND": "noninteractive"}, timeout=600)
        assert installed_version(node) == version, command
    assert_it_delivers(node, recorder, version)


def doctor(node: Node) -> dict[str, str]:
    """What the doctor says of the package."""
    findings = json.loads(node.run(["ivy", "doctor", "--json"], check=False, timeout=120).stdout)
    [found] = [finding for finding in findings if finding["check"] == "package"]
    return dict(found)


def test_a_fresh_node_keeps_ours(
    bare: Snapshot, boot: Callable[[Snapshot], Node], package: Path, world: tuple[Broker, Recorder]
) -> None:
    broker, recorder = world
    node = boot(bare)
    install(node, package)
    use_tenta(node, broker)
    upgrade_in_every_way(node, recorder, OURS)
    pool = node.path(f"/{POOL}")
    add_namesake(pool, AFTER_ITS_EPOCH_ROSE)
    index_pool(pool, suite())
    node.run(["apt-get", "update"])
    assert AFTER_ITS_EPOCH_ROSE in node.run(["apt-cache", "madison", "ivy"]).stdout
    node.run(["apt-get", "full-upgrade", "--yes"], timeout=600)
    assert_it_delivers(node, recorder, OURS)
    for origin in ("Raspbian", "Ubuntu", "Debian Backports", "Debian"):  # those that have it, too
        describe_pool(pool, suite(), origin)
        node.run(["apt-get", "update", "--allow-releaseinfo-change"])
        assert f"  Candidate: {OURS}\n" in node.run(["apt-cache", "policy", "ivy"]).stdout
    assert doctor(node)["ok"]
    node.path("/etc/apt/preferences.d/ivy").unlink()
    said = doctor(node)
    assert not said["ok"] and f"ivy {AFTER_ITS_EPOCH_ROSE} would replace it" in said["text"]


@pytest.mark.thorough
def test_with_both_repositories_ours_is_installed(
    bare: Snapshot, boot: Callable[[Snapshot], Node], repository: Path, world: tuple[Broker, Recorder]
) -> None:
    broker, recorder = world
    node = boot(bare)
    add_repository(node, repository)
    node.run(["apt", "install", "--yes", "ivy"], timeout=300)
    use_tenta(node, broker)
    upgrade_in_every_way(node, recorder, OURS)


def test_from_1_0_0_the_upgrade_takes_ours_where_our_repository_is(
    with_released: Snapshot, boot: Callable[[Snapshot], Node], repository: Path, world: tuple[Broker, Recorder]
) -> None:
    node = boot(with_released)
    assert_it_delivers(node, world[1], RELEASED)
    add_repository(node, repository)
    upgrade_in_every_way(node, world[1], OURS)


@pytest.mark.thorough
def test_from_1_0_0_a_hold_keeps_it_until_ours_is_there(
    with_released: Snapshot, boot: Callable[[Snapshot], Node], package: Path, world: tuple[Broker, Recorder]
) -> None:
    node = boot(with_released)
    node.run(["apt-mark", "hold", "ivy"])
    upgrade_in_every_way(node, world[1], RELEASED)
    node.run(["apt-mark", "unhold", "ivy"])
    install(node, package)
    assert_it_delivers(node, world[1], OURS)


@pytest.mark.thorough
def test_where_debians_package_got_in_ours_goes_on_with_what_was_stored(
    with_released: Snapshot, boot: Callable[[Snapshot], Node], package: Path, world: tuple[Broker, Recorder]
) -> None:
    """What happens to 1.0.0 without all this, and the way back."""
    node = boot(with_released)
    assert_it_delivers(node, world[1], RELEASED)
    node.run(["apt-get", "upgrade", "--yes"], timeout=300)
    assert installed_version(node) == NAMESAKE
    node.cut()
    node.boot()
    assert node.run(["systemctl", "show", "--value", "--property=LoadState", "ivy.target"]).stdout == "not-found\n"
    install(node, package)
    assert_it_delivers(node, world[1], OURS)
