"""Puts the fast sampler into a node, and compares what it sampled with what arrived."""

import itertools
import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from testbed.bed import Node

from tests.node.recorder import Recorder

UNIT = """\
[Unit]
Description=ivy procedure: fast sampler
PartOf=ivy.target

[Service]
ExecStart=/usr/bin/ivy run fast-sampler
PrivateNetwork=yes
"""
# Time limits for a test that cannot wait for minutes; what they limit stays the same.
IMPATIENT = """\
[Service]
WatchdogSec=2
TimeoutStartSec=10
TimeoutAbortSec=1
RestartSec=200ms
RestartSteps=0
RestartMaxDelaySec=infinity
"""

SAMPLER = Path(__file__).parent / "fast_sampler.py"

Sample = tuple[int, int]


def add_sampler(node: Node) -> None:
    """As a user adds a procedure: a module and a unit in the release."""
    release = node.path("/var/lib/ivy/current")
    node.copy_in(SAMPLER, release_file(node, "ivy/procedures/fast_sampler.py"))
    (release / "units" / "ivy-fast-sampler.service").write_text(UNIT)
    node.run(["ivy", "start"])


def with_sampler(tree: Path) -> None:
    """An edit that adds it to a release that is offered over the air."""
    shutil.copy(SAMPLER, tree / "ivy" / "procedures")
    (tree / "units" / "ivy-fast-sampler.service").write_text(UNIT)


def release_file(node: Node, name: str) -> str:
    """Where a file of the current release is, in the node."""
    return node.run(["readlink", "-f", "/var/lib/ivy/current"]).stdout.strip() + "/" + name


def be_impatient(node: Node) -> None:
    """Shorten the time limits of all services."""
    drop_in = node.path("/etc/systemd/system") / "ivy-.service.d" / "90-test.conf"
    drop_in.parent.mkdir(exist_ok=True)
    drop_in.write_text(IMPATIENT)
    node.run(["systemctl", "daemon-reload"])


def sampled(node: Node) -> set[Sample]:
    """Every sample for which `add_message` has returned. A line torn by a kill is none."""
    lines = node.path("/var/lib/ivy/data/returned.txt").read_text().splitlines(keepends=True)
    pairs = [line.split() for line in lines if line.endswith("\n")]
    return {(int(life), int(number)) for life, number in pairs}


def arrived(recorder: Recorder) -> Counter[Sample]:
    """Every sample that arrived, and how often."""
    values = [element["value"] for element in recorder.elements("measurements")]
    return Counter((value["life"], value["number"]) for value in values if "life" in value)


def times(recorder: Recorder) -> list[float]:
    """When each sample was taken that arrived, in Unix seconds, the oldest first."""
    elements = recorder.elements("measurements")
    return sorted(element["timestamp"] for element in elements if "life" in element["value"])


def longest_gap(taken: Iterable[float], since: float, until: float) -> float:
    """The longest time in seconds between two samples of that period."""
    inside = [moment for moment in taken if since <= moment <= until]
    return max(later - earlier for earlier, later in itertools.pairwise(inside))
