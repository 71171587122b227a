"""An upgrade of the package whose making of a release is cut off: the node samples, and a second try succeeds."""

import contextlib
import random
from collections.abc import Generator

import pytest
from testbed.bed import Bed, Node, Snapshot
from testbed.broker import Broker
from testbed.run import PATIENCE

from tests.node import aftermath
from tests.node.kills import RECORD, choose
from tests.support import strace
from tests.support.installed import keep_answer, use_tenta
from tests.support.recorder import Recorder
from tests.support.releases import STATEMENTS, set_version
from tests.support.update_site import wait_for_sample

NEW = "9.3.0"
POINTS = 1
POINTS_IN_A_SWEEP = 200
INSTALL = ["python3", "-B", "-P", "-m", "ivy", "install"]
BUNDLED = "/usr/lib/ivy"


@pytest.fixture
def unpacked(bed: Bed, installed: Snapshot, broker: Broker) -> Snapshot:
    """A node at the moment when dpkg has unpacked a new version, and configured nothing."""
    node = bed.node("unpacked", base=installed)
    node.boot()
    node.run(["apt-get", "install", "--yes", "strace"], timeout=120)
    keep_answer(node)
    use_tenta(node, broker, dummy_procedure={"seconds_between_datapoints": 1})
    set_version(node.path(BUNDLED), NEW, [name for name in STATEMENTS if not name.startswith("debian/")])
    snapshot = node.snapshot("unpacked")
    node.destroy()
    return snapshot


@contextlib.contextmanager
def copy(bed: Bed, snapshot: Snapshot) -> Generator[Node, None, None]:
    node = bed.node("copy", base=snapshot)
    try:
        node.boot()
        yield node
    finally:
        node.destroy()


def install(node: Node, *before: str) -> int:
    """What the package's script does. Returns the exit status."""
    return node.run([*before, *INSTALL], env={"PYTHONPATH": BUNDLED}, check=not before, timeout=120).returncode


def settle(node: Node) -> None:
    """What the package's script does next; and then the new version has proved itself."""
    node.run(["ivy", "restart"])
    node.run(["ivy", "releases", "--wait", str(PATIENCE * 120)], timeout=150)


def test_the_power_is_cut(bed: Bed, unpacked: Snapshot, recorder: Recorder, request: pytest.FixtureRequest) -> None:
    with copy(bed, unpacked) as node:
        assert install(node, *strace.recording(RECORD)) == 0
        calls = list(filter(strace.is_persistent, strace.parse(node.path(RECORD).read_text())))
        settle(node)
        whole = aftermath.releases(node)
    chosen = choose(calls, POINTS_IN_A_SWEEP if request.config.getoption("--sweep") else POINTS)
    for call in random.sample(chosen, len(chosen)):
        with copy(bed, unpacked) as node:
            print(call, flush=True)
            assert install(node, *strace.killing(call)) != 0
            node.cut()
            aftermath.assert_whole(node, whole)
            node.boot()
            wait_for_sample(node, recorder)
            install(node)
            settle(node)
            wait_for_sample(node, recorder)
            aftermath.wait_for_end(node)  # it removes the release from before
            assert node.run(["ivy", "--version"]).stdout.split()[-1] == NEW
            assert aftermath.releases(node)[NEW] == whole[NEW]
            node.wait_for(lambda node=node: not aftermath.leftovers(node), 10, "nothing to be unfinished")  # type: ignore[misc]
            aftermath.assert_quiet(node)
    print(f"{len(chosen)} of {len(calls)} calls tried")
