"""What updates cost: samples, bytes over the network, time, and room on the disk after many of them."""

import json
import statistics
import time
from collections import Counter
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from testbed.bed import Bed, Node
from testbed.run import PATIENCE

from ivy.types import calls
from tests.support.installed import STEPS_USERS, unit_property
from tests.support.releases import append
from tests.support.sampling import add_sampler, arrived, longest_gap, sampled, times, with_sampler
from tests.support.update_site import UpdateSite, with_tenta

UPDATES, UPDATES_IN_A_SWEEP = 6, 50
VERSION_EVERY = 2  # the others change the config only
SETTLED = 4  # after so many updates nothing may grow any more
MOST_GROWTH = 100_000  # bytes; a release takes 2 MB
MOST_BYTES = 20_000
MOST_SECONDS_WITHOUT_SAMPLES = 1.0
MOST_TIMES_A_RESTART = 3  # that many times a plain restart's gap, on a machine where this takes so long
WINDOW = 500  # max_parallel_messages
UNITS_AT_REST = {
    "ivy-owners.service",
    "ivy-provision.service",
    "ivy-repair.timer",
    "ivy-restart.path",
    "ivy-salvage.path",
    "ivy-salvage.service",
    "ivy-restart.service",
    "ivy-rollback.service",
    "ivy-updater.path",
    "ivy-updater.timer",
    "ivy.target",
    *(f"ivy-call@{method}.{kind}" for method in calls.BY_ROOT for kind in ("path", "service")),
}
SERVICES = {
    "ivy-dummy-procedure.service",
    "ivy-fast-sampler.service",
    "ivy-system-checks.service",
    "ivy-tenta.service",
}


@dataclass
class Costs:
    """Of updates in a row: when each was under way, and what it took."""

    periods: list[tuple[float, float]] = field(default_factory=list)
    last_version: tuple[float, float] = (0, 0)
    transferred: list[int] = field(default_factory=list)
    seconds_to_activate: list[float] = field(default_factory=list)
    restarts: list[tuple[float, float]] = field(default_factory=list)
    """When the sampler was restarted by hand, under the same load."""


@pytest.fixture
def site(bed: Bed, node: Node, tmp_path: Path) -> Generator[UpdateSite, None, None]:
    with closing(with_tenta(bed, node, tmp_path)) as site:
        site.connect()
        site.apply(site.config(updater={"seconds_of_probation": 1}))
        add_sampler(node)
        node.wait_for(lambda: arrived(site.platform.samples()), 20, "the first samples")
        yield site


def test_many_updates_in_a_row_cost_little_and_leave_nothing(
    site: UpdateSite, request: pytest.FixtureRequest
) -> None:
    costs, before, temporary = Costs(), 0, temporary_files(site.node)
    for number in range(UPDATES_IN_A_SWEEP if request.config.getoption("--sweep") else UPDATES):
        if number == SETTLED:
            before = bytes_on_disk(site.node)
        if number % VERSION_EVERY == 0:
            change_version(site, f"9.0.{number}", costs)
        else:
            change_config(site, costs)
        costs.restarts.append(restart(site))
    check_disk(site.node, before)
    check_units(site.node)
    assert temporary_files(site.node) <= temporary
    check_samples(site, costs)
    print(f"bytes over the network: {costs.transferred}")
    print(f"seconds from offer to activation: {[round(seconds, 1) for seconds in costs.seconds_to_activate]}")
    print(steps(site.node, costs.last_version))
    assert max(costs.transferred[1:]) <= MOST_BYTES


def restart(site: UpdateSite) -> tuple[float, float]:
    """Restart the sampler by hand. Returns from when until when it was away, a sample before and after included."""
    began = time.time() - 1
    site.node.run(["systemctl", "restart", "ivy-fast-sampler"])
    since = time.time()
    site.node.wait_for(lambda: times(site.platform.samples(-20))[-1:] > [since], 30, "new samples")
    return began, time.time()


def most_seconds_without_samples(taken: list[float], restarts: list[tuple[float, float]]) -> float:
    """A second; more where this machine is so slow that a plain restart takes as long."""
    usual = statistics.median(longest_gap(taken, *period) for period in restarts)
    print(f"a plain restart: {usual:.2f} s without samples")
    return max(MOST_SECONDS_WITHOUT_SAMPLES, MOST_TIMES_A_RESTART * usual)


def change_config(site: UpdateSite, costs: Costs) -> None:
    began = time.time()
    revision = site.offer(dummy_procedure={"seconds_between_datapoints": 1 + len(costs.periods) % 2})
    assert site.decision(revision), site.reason(revision)
    costs.periods.append((began, time.time()))


def change_version(site: UpdateSite, version: str, costs: Costs) -> None:
    def edit(tree: Path) -> None:
        with_sampler(tree)
        append("ivy/procedures/dummy_procedure.py", f"\n# {version}\n")(tree)

    site.release(version, edit)
    transferred, began = site.git.bytes_transferred(), time.time()
    revision = site.offer(version)
    site.node.wait_for(lambda: site.running()[0] == version, 90, f"{version} to be activated")
    costs.seconds_to_activate.append(time.time() - began)
    assert site.decision(revision), site.reason(revision)
    costs.last_version = (began, time.time())
    costs.periods.append(costs.last_version)
    costs.transferred.append(site.git.bytes_transferred() - transferred)


def bytes_on_disk(node: Node) -> int:
    """All but the data, which samples make grow; when what is not needed any more was removed."""
    wait_until_at_rest(node)
    said = node.run(["du", "--summarize", "--block-size=1", "--exclude=/var/lib/ivy/data", "/var/lib/ivy"]).stdout
    return int(said.split()[0])


def check_disk(node: Node, before: int) -> None:
    growth = bytes_on_disk(node) - before
    print(f"{growth} bytes more on disk than {SETTLED} updates before")
    assert growth < MOST_GROWTH
    found = json.loads(node.run(["ivy", "releases", "--json"]).stdout)["releases"]
    directories = {path.name for path in node.path("/var/lib/ivy").iterdir()}
    kept = {release["version"] for release in found}
    assert all(release["roles"] for release in found), "each is there for a reason"
    others = {"announced", "automation.lock", "backend", "current", "data", "source.git", "updates.json"}
    assert directories == kept | others


def wait_until_at_rest(node: Node) -> None:
    """Also the updater of the version that came has made its pass."""

    def is_at_rest() -> bool:
        said = node.run(["systemctl", "is-active", "ivy-updater.service"], check=False).stdout
        return said.strip() == "inactive" and not node.path("/run/ivy-backend/pending-config").exists()

    node.wait_for(is_at_rest, 30, "the updater to end")


def check_units(node: Node) -> None:
    said = node.run(["systemctl", "list-units", "--all", "--plain", "--no-legend", "ivy*"]).stdout
    found = {line.split()[0]: line.split()[1:4] for line in said.splitlines()}
    assert set(found) - {"ivy-updater.service"} == UNITS_AT_REST | SERVICES
    assert all(state[0] == "loaded" and state[1] in ("active", "inactive") for state in found.values()), said
    assert all(found[unit][2] == "running" for unit in SERVICES), said
    assert node.run(["pgrep", "--uid", STEPS_USERS], check=False).stdout == ""


def temporary_files(node: Node) -> Counter[str]:
    """Those of the whole node, without the parts of their names that are random, and how many there are of each."""
    found = [*node.path("/tmp").iterdir(), *node.path("/var/tmp").iterdir()]
    names = (path.name.rpartition("-")[0] or path.name for path in found)
    return Counter(name for name in names if "timedated" not in name)  # it comes when it is asked, and goes


def check_samples(site: UpdateSite, costs: Costs) -> None:
    site.node.run(["systemctl", "stop", "ivy-fast-sampler"])
    site.node.wait_for(
        lambda: sampled(site.node) <= set(arrived(site.platform.samples())), 30, "all samples at the broker"
    )
    counts = arrived(site.platform.samples())
    taken = times(site.platform.samples())
    gaps = [longest_gap(taken, *period) for period in costs.periods]
    print(f"longest gaps in sampling: {[round(gap, 2) for gap in gaps]} s")
    duplicates = counts.total() - len(counts)
    print(f"{len(counts)} samples, {duplicates} doubled")
    assert duplicates <= WINDOW * len(costs.periods)
    # Where this machine has other work for a moment, some may be longer; each is 0.3 s where it has none.
    assert statistics.median(gaps) < most_seconds_without_samples(taken, costs.restarts), gaps


def steps(node: Node, period: tuple[float, float]) -> str:
    """Where the time goes: what the updater said, and how many seconds after the offer."""
    began, ended = period
    journal = node.journal("--unit=ivy-updater", "--output=json", f"--since=@{began:.3f}", f"--until=@{ended:.3f}")
    entries = [json.loads(line) for line in journal.splitlines()]
    said = [(int(entry["__REALTIME_TIMESTAMP"]) / 1e6 - began, entry["MESSAGE"]) for entry in entries]
    return "\n".join(f"{seconds:5.1f} s {message}" for seconds, message in said)


@pytest.mark.thorough
def test_sampling_goes_on_while_there_is_no_link(site: UpdateSite) -> None:
    """The backend can neither drain nor connect; what the admin wants is in effect at once, and judged later."""
    node = site.node
    config = site.config(backend={"max_drain_time": 20}, archive={"max_days": 99})  # which concerns all services
    node.path("/root/config.json").write_text(json.dumps(config))
    site.release("9.1.0", with_sampler)
    periods = [
        change_without_link(site, "config", "apply", "/root/config.json"),
        change_without_link(site, "update", "9.1.0"),
    ]
    assert site.running()[0] == "9.1.0"
    restarts = [restart(site) for _ in range(3)]
    node.run(["systemctl", "stop", "ivy-fast-sampler"])
    node.wait_for(lambda: sampled(node) <= set(arrived(site.platform.samples())), 30, "all samples at the broker")
    counts, taken = arrived(site.platform.samples()), times(site.platform.samples())
    gaps = [longest_gap(taken, *period) for period in periods]
    doubled = counts.total() - len(counts)
    print(
        f"longest gaps in sampling without a link: {[round(gap, 2) for gap in gaps]} s; {doubled} samples doubled"
    )
    assert doubled <= WINDOW * len(periods)
    assert min(gaps) < most_seconds_without_samples(taken, restarts)


def change_without_link(site: UpdateSite, *command: str) -> tuple[float, float]:
    """Cut the link, change something, repair the link. Returns from when until when it was cut."""
    node = site.node
    old = unit_property(node, "ivy-fast-sampler", "MainPID")
    site.platform.stop()
    node.wait_for(lambda: not is_connected(node), 30, "the backend to see that")
    began = time.time()
    by_hand = node.popen(["ivy", *command])
    node.wait_for(lambda: has_new_sampler(node, old), 90, "samples after the change")
    sampling_again = time.time()
    node.wait_for(lambda: time.time() > sampling_again + 1, 5, "some of them")
    site.platform.start()
    assert by_hand.wait(timeout=PATIENCE * 100) == 0
    return began, sampling_again + 1


def is_connected(node: Node) -> bool:
    return unit_property(node, "ivy-tenta", "StatusText").startswith("connected to")


def has_new_sampler(node: Node, old: str) -> bool:
    is_running = unit_property(node, "ivy-fast-sampler", "SubState") == "running"
    return is_running and unit_property(node, "ivy-fast-sampler", "MainPID") not in (old, "0")
