"""A node in the field gets the next Debian: how long it does not sample, what is lost, what it can do afterwards.

By hand, because the next Debian changes from day to day: `packaging/test --suite forky upgrade`.
"""

import itertools
import os
import time
from collections.abc import Generator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from testbed import roots
from testbed.bed import Bed, Node, Snapshot
from testbed.waiting import WaitedInVain, wait_for

from tests.support.installed import install, queue_length, wait_until_connected
from tests.support.releases import THIS
from tests.support.sampling import arrived, mark, sampled, times, with_sampler
from tests.support.update_site import UpdateSite, with_tenta

BACKLOG = 3000
ADD = f"""
from ivy.types.messages import DataMessageBody
from ivy.utils.messaging_agent import MessagingAgent
agent = MessagingAgent()
for number in range({BACKLOG}):
    agent.add_message(DataMessageBody(data={{"backlog": number}}))
"""
# An admin who keeps what the node has, and is not there to be asked.
UPGRADE = ["apt-get", "--yes", "--quiet", "-o", "Dpkg::Options::=--force-confold", "full-upgrade"]
UPGRADE_SECONDS = 1800
SAMPLES_SECONDS = 300
DRAINED_SECONDS = 120
NOTEWORTHY_SECONDS = 1
VERSIONS = "cat /etc/debian_version; systemctl --version | head -n 1; python3 --version"

pytestmark = pytest.mark.skipif(
    roots.suite() == roots.SUITE, reason="by hand: packaging/test --suite forky upgrade"
)


@pytest.fixture
def node() -> Generator[Node, None, None]:
    """A node of today's Debian with ivy installed, which can reach the next one's packages without network."""
    package = Path("dist", f"ivy_{THIS}_all.deb")
    layers = (roots.upgrade_layer(roots.suite()), roots.node_root(roots.SUITE))
    bed = Bed(os.environ.get("IVY_TESTBED", "upgrade"))
    bed.down()  # of a run that was killed
    with bed:
        node = bed.node("n1", base=Snapshot("upgradable", layers))
        node.boot()
        install(node, package)
        yield node


@pytest.fixture
def site(node: Node, tmp_path: Path) -> Generator[UpdateSite, None, None]:
    """It runs a release that came over the air, as most nodes in the field do."""
    bed = Bed(os.environ.get("IVY_TESTBED", "upgrade"))
    with closing(with_tenta(bed, node, tmp_path)) as site:
        site.connect()
        site.release("9.1.0", with_sampler)
        site.accepts("9.1.0")
        yield site
        journal = Path("dist", f"upgrade-{roots.suite()}.journal")
        journal.write_text(node.journal("--output=short-precise"))
        print(f"the node's journal: {journal}")


def test_a_node_outlives_the_upgrade_of_its_debian(site: UpdateSite) -> None:
    node = site.node
    node.link(False)
    node.run(["env", "PYTHONPATH=/usr/lib/ivy", "/usr/bin/python3", "-B", "-c", ADD], timeout=300)
    assert queue_length(node) >= BACKLOG
    print(f"\n{versions(node)}, a backlog of {queue_length(node)} messages, no link")
    began = time.time()
    upgrade(node)
    upgraded = time.time()
    node.reboot(timeout=120)
    booted = time.time()
    wait_for_samples_on_disk(node)
    print(f"{versions(node)}: upgraded in {upgraded - began:.0f} s, rebooted in {booted - upgraded:.0f} s")
    node.link(True)
    wait_until_connected(node)
    node.wait_for(lambda: queue_length(node) < 100, DRAINED_SECONDS, "the backlog to drain")
    check_losses(site)
    for start, seconds in gaps(site, began):
        moment = "during the upgrade" if start + seconds < upgraded else "until after the reboot"
        print(f"no samples for {seconds:.1f} s from {start - began:.0f} s on ({moment})")
    site.accepts(dummy_procedure={"seconds_between_datapoints": 2})
    print("an offered config is accepted")
    site.release("9.2.0", with_sampler)
    site.accepts("9.2.0")
    print("an offered release is accepted")
    assert site.running()[0] == "9.2.0"
    check_losses(site)
    assert node.run(["ivy", "status"], check=False).returncode == 0


def gaps(site: UpdateSite, since: float) -> list[tuple[float, float]]:
    """When no sample was taken for a second or longer, and for how long."""
    taken = [moment for moment in times(site.platform.samples()) if moment >= since]
    pairs = [(before, after - before) for before, after in itertools.pairwise(taken)]
    return [(start, seconds) for start, seconds in pairs if seconds >= NOTEWORTHY_SECONDS]


def upgrade(node: Node) -> None:
    """As Debian's release notes have it; without network, which is away."""
    source = f"deb [trusted=yes] file:/{roots.UPGRADE_POOL} ./\n"
    node.path("/etc/apt/sources.list").write_text(source)
    node.run(["apt-get", "--quiet", "update"])
    done = node.run(UPGRADE, check=False, timeout=UPGRADE_SECONDS)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]


def versions(node: Node) -> str:
    return ", ".join(node.run(["sh", "-c", VERSIONS]).stdout.splitlines())


def wait_for_samples_on_disk(node: Node) -> None:
    """Without link: what the sampler has handed over since it was started again."""
    before = mark(node)
    node.wait_for(lambda: sampled(node, before), SAMPLES_SECONDS, "samples after the reboot")


def check_losses(site: UpdateSite) -> None:
    """All that was handed over before now arrives."""
    handed_over = sampled(site.node)

    def lost() -> tuple[int, int]:
        samples = site.platform.samples()
        backlog = {values["backlog"] for _, values in samples if "backlog" in values}
        return len(handed_over - arrived(samples).keys()), BACKLOG - len(backlog)

    with suppress(WaitedInVain):
        wait_for(lambda: lost() == (0, 0), 30, "what was sampled")
    assert lost() == (0, 0), "lost"
    print(f"lost: 0 of {len(handed_over)} samples and of {BACKLOG} in the backlog")
