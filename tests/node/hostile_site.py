"""One node for tests with bad intent, one after the other: whatever one does to it, the next ones see."""

import json
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path

from testbed.bed import Bed, Node, Snapshot

from ivy.utils.updates.decisions import MOST_IN_BURST
from tests.support.installed import STEPS_USERS, unit_property
from tests.support.sampling import let_edit
from tests.support.update_site import AT_ONCE, SHORTEST_PROBATION, UpdateSite, with_tenta

FIRST_UID_OF_TESTS = 2900
CANARY = "canary"
"""What no test may leave anywhere, neither as a file nor as the beginning of its name."""


@contextmanager
def open_site(bed: Bed, installed: Snapshot, directory: Path) -> Generator[UpdateSite, None, None]:
    """A node that is updated over the air. When all is done it is gone."""
    node = bed.node("n1", base=installed)
    node.boot()
    # How many processes a user may have is counted on the whole machine: those of other nodes' tests are another's,
    # and so are those of another bed.
    number = int(bed.address.split(".")[2])
    node.run(["usermod", "--uid", str(FIRST_UID_OF_TESTS + number), "ivy-test"])
    AT_ONCE(let_edit(node))
    with closing(with_tenta(bed, node, directory)) as site:
        site.connect(updater=SHORTEST_PROBATION)
        yield site
        # After so many the updater rests for a minute before each: then these are too many tests for one node.
        assert _decisions_about_offers(node) < MOST_IN_BURST
    node.destroy()


def assert_unharmed(site: UpdateSite) -> None:
    """Whatever a test did: nothing was executed or left behind, and the node samples."""
    node = site.node
    node.wait_for(lambda: unit_property(node, "ivy-updater", "SubState") == "dead", 30, "the pass to end")
    found = node.run(
        ["find", "/", "-ignore_readdir_race", "-xdev", "-name", f"{CANARY}*", "-o", "-path", "/proc", "-prune"]
    ).stdout
    assert CANARY not in found
    with_bits = ["-perm", "/6000", "(", "-type", "f", "-o", "!", "-path", "/var/lib/ivy/data*", ")"]
    assert node.run(["find", "/var/lib/ivy", "-ignore_readdir_race", *with_bits]).stdout == ""
    unfinished = ["find", "/var/lib/ivy", "-ignore_readdir_race", "-maxdepth", "1", "-name", "*.new"]
    assert node.run(unfinished).stdout == ""
    assert node.run(["pgrep", "--uid", STEPS_USERS], check=False).stdout == ""
    site.wait_for_samples()


def as_service(node: Node, *commands: str, user: str = "ivy") -> None:
    """What a service does that somebody else has taken over."""
    become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    node.run([*become, "sh", "-ec", "\n".join(commands)])


def _decisions_about_offers(node: Node) -> int:
    history = node.path("/var/lib/ivy/updates.json")  # none, where just one test was run, and its offer was none
    decisions = json.loads(history.read_text())["decisions"] if history.exists() else []
    return sum(decision["source"] == "backend" for decision in decisions)
