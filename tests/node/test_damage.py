"""What a card or a power cut damages is repaired by the node itself: it samples, delivers, and can be updated."""

import contextlib
import queue
import random
import time
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from testbed.bed import Bed, Node, Snapshot

from ivy.utils.updates.releases import version_of
from tests.node.aftermath import acknowledgments, wait_for_end
from tests.node.damaged_files import Damage, all_of_them, some_of, zeros
from tests.node.kill_site import Case, Lane, Prepared, prepare
from tests.support.installed import unit_property
from tests.support.platforms import TentaPlatform
from tests.support.releases import append
from tests.support.update_site import SHORTEST_PROBATION, UpdateSite, wait_for_sample, with_tenta

LANES = 3
SECONDS = 300  # two minutes are promised; this machine has other work
VERSION = "9.1.0"
OF_THE_RELEASE = f"/var/lib/ivy/{VERSION}"
AGENT = f"{OF_THE_RELEASE}/ivy/utils/messaging_agent.py"
CASE = Case("config", {"dummy_procedure": {"seconds_between_datapoints": 2}}, accepted=True)
DUMMY = "ivy/procedures/dummy_procedure.py"
SAMPLE = [
    ("zeros", f"{VERSION}/ivy/utils/messaging_agent.py"),
    ("flipped", f"{VERSION}/ivy/utils/__pycache__/messaging_agent.*.pyc"),
    ("removed", f"{VERSION}/ivy/constants.py"),
    ("truncated", f"{VERSION}/units/ivy-tenta.service"),
    ("flipped", f"{VERSION}/manifest"),
    ("removed", "/var/lib/ivy/current"),
    ("zeros", "/var/lib/ivy/updates.json"),
    ("truncated", "/var/lib/ivy/data/state.json"),
    ("zeros", "/var/lib/ivy/backend/state.json"),
]


@pytest.fixture(scope="module")
def prepared(
    bed: Bed, installed: Snapshot, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Prepared, None, None]:
    """A node that runs a version from over the air, and to which an offer has come."""
    directory = tmp_path_factory.mktemp("damage")
    node = bed.node("n1", base=installed)
    node.boot()
    platform = TentaPlatform(directory / "broker", 1883, bed.address)
    with closing(UpdateSite(bed, node, platform, directory)) as site:
        site.connect(updater=SHORTEST_PROBATION)
        site.release(VERSION, of_its_own)
        site.accepts(VERSION)
        wait_for_end(node)
        [found] = prepare(site, platform.recorder, [CASE])
    node.destroy()
    yield found


@pytest.fixture
def lanes(bed: Bed, tmp_path_factory: pytest.TempPathFactory) -> Generator["queue.Queue[Lane]", None, None]:
    directory = tmp_path_factory.mktemp("lanes")
    with contextlib.ExitStack() as stack:
        lanes: queue.Queue[Lane] = queue.Queue()
        for number in range(1, LANES + 1):
            lanes.put(stack.enter_context(closing(Lane(bed, number, directory))))
        yield lanes


def test_damage_to_any_file_needs_no_visit(
    bed: Bed,
    prepared: Prepared,
    lanes: "queue.Queue[Lane]",
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    looked_at = bed.node("looked-at", base=prepared.snapshot)
    damages = all_of_them(looked_at)
    looked_at.destroy()
    if not request.config.getoption("--sweep"):
        damages = some_of(damages, SAMPLE)
    with capsys.disabled():
        table = try_all(lanes, prepared, damages)
    assert [line for line in table if line[1] != "well"] == []


def try_all(lanes: "queue.Queue[Lane]", prepared: Prepared, damages: Sequence[Damage]) -> list[tuple[Damage, str]]:
    """Try all, some at a time, in random order. Returns what became of each; it is printed as it comes."""

    def attempt(damage: Damage) -> tuple[Damage, str]:
        lane = lanes.get()
        began = time.monotonic()
        try:
            outcome = try_one(lane, prepared, damage)
        except Exception as error:  # the others are to be seen, too
            outcome = f"{type(error).__name__}: {error}"
        finally:
            lanes.put(lane)
        print(f"{damage!s:<90} {time.monotonic() - began:4.0f} s  {outcome[:3000]}", flush=True)
        return damage, outcome

    print()
    with ThreadPoolExecutor(LANES) as pool:
        return list(pool.map(attempt, random.sample(damages, len(damages))))


def try_one(lane: Lane, prepared: Prepared, damage: Damage) -> str:
    """Damage a node without power, boot it, and see that it samples, delivers and is updated. Returns how it is."""
    with lane.copy(prepared) as node:
        damage.do(node)
        node.boot()
        node.wait_for(lambda: acknowledgments(lane), SECONDS, "the decision")
        wait_for_sample(node, lane.recorder)
        node.wait_for(lambda: unit_property(node, "ivy-updater", "ActiveState") == "inactive", 60, "the end")
        if {"revision": prepared.revision, "success": True} not in acknowledgments(lane):
            return f"the offer was answered by {acknowledgments(lane)}"
        if not is_whole(node):
            return "the current release is not whole"
        failed = node.run(["systemctl", "list-units", "--failed", "--no-legend", "--plain"]).stdout
        return f"failed: {failed}" if failed else "well"


def of_its_own(tree: Path) -> None:
    """An edit by which a release has code that is in no other one."""
    append(DUMMY, f"\n# {version_of(tree)}\n")(tree)


def is_whole(node: Node) -> bool:
    look = ["sh", "/usr/lib/ivy/ivy/whole.sh", "/var/lib/ivy/current"]
    return node.run(look, check=False).returncode == 0


@pytest.fixture(scope="module")
def site(
    bed: Bed, installed: Snapshot, tmp_path_factory: pytest.TempPathFactory
) -> Generator[UpdateSite, None, None]:
    """A node that runs a version from over the air; the tests that follow share it."""
    node = bed.node("repaired", base=installed)
    node.boot()
    with closing(with_tenta(bed, node, tmp_path_factory.mktemp("site"))) as site:
        site.connect(updater=SHORTEST_PROBATION)
        site.release(VERSION, of_its_own)
        site.accepts(VERSION)
        wait_for_end(node)
        yield site
    node.destroy()


def lose_agent(node: Node) -> None:
    """The module that all services need, and its bytecode."""
    for path in node.path(AGENT).parent.glob("__pycache__/messaging_agent.*.pyc"):
        path.write_bytes(b"")
    zeros(node.path(AGENT))
    node.run(["systemctl", "restart", "--no-block", "ivy-dummy-procedure", "ivy-system-checks"])


def wait_for_repair(site: UpdateSite) -> None:
    began = time.monotonic()
    site.node.wait_for(lambda: is_whole(site.node), SECONDS, "the repair")
    print(f"repaired after {time.monotonic() - began:.0f} s")


@pytest.mark.thorough
def test_a_crash_loop_for_damage_is_ended_although_a_pass_waits_for_the_network(site: UpdateSite) -> None:
    node = site.node
    site.release("9.2.0", of_its_own)
    site.git.stop()
    revision = site.offer("9.2.0")
    waiting = "waiting for the source of version 9.2.0"
    node.wait_for(
        lambda: unit_property(node, "ivy-updater", "StatusText").startswith(waiting), 60, "the pass to wait"
    )
    node.link(False)
    lose_agent(node)
    for command in ("status", "doctor", "releases"):
        done = node.run(["ivy", command], check=False)
        assert done.stdout and not done.stderr, done.stderr
    wait_for_repair(site)
    assert node.path("/var/lib/ivy/current", follow=False).readlink().name == VERSION
    said = node.journal("--unit=ivy-repair", "--output=cat")
    assert said.count("the files of the current release are damaged") == 1
    node.link(True)
    site.wait_for_log(f"Version {VERSION} has damaged files: ivy/utils/messaging_agent.py")
    site.wait_for_samples()
    site.git.start()
    assert site.decision(revision), site.reason(revision)


def test_the_last_good_release_runs_where_nothing_else_helps(site: UpdateSite) -> None:
    node = site.node
    version = "9.2.5"
    site.release(version, of_its_own)
    site.accepts(version)
    node.run(["rm", "-rf", "/var/lib/ivy/source.git"])
    zeros(node.path(f"/var/lib/ivy/{version}/{DUMMY}"))
    node.cut()
    node.boot()
    node.wait_for(lambda: site.running()[0] == VERSION, SECONDS, "the last good release")
    site.wait_for_log(f"Version {version} is damaged beyond repair: version {VERSION} runs")
    site.wait_for_samples()
    site.release("9.3.0", of_its_own)
    site.accepts("9.3.0")


@pytest.mark.thorough
def test_damage_of_the_package_stops_nothing(site: UpdateSite) -> None:
    node = site.node
    damaged = ["ivy/service.py", "ivy/fits.sh", "ivy/whole.sh", "pyproject.toml", "units/ivy-reset-backoff"]
    kept = {name: node.path(f"/usr/lib/ivy/{name}").read_bytes() for name in damaged}
    for name in damaged:
        zeros(node.path(f"/usr/lib/ivy/{name}"))
    node.reboot()
    site.wait_for_samples()
    revision = site.offer(dummy_procedure={"seconds_between_datapoints": 2})
    assert site.decision(revision), site.reason(revision)
    said = node.run(["ivy", "doctor"], check=False).stdout
    assert "/usr/lib/ivy/ivy/fits.sh" in said
    for name, content in kept.items():
        node.path(f"/usr/lib/ivy/{name}").write_bytes(content)


@pytest.mark.thorough
def test_the_list_of_signers_comes_back(site: UpdateSite) -> None:
    signers = site.node.path("/etc/ivy/allowed_signers")
    text = signers.read_text()
    zeros(signers)
    site.release("9.4.0", of_its_own)
    site.accepts("9.4.0")
    assert signers.read_text() == text
