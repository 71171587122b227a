"""Puts the fast sampler into a node, and compares what it sampled with what arrived."""

import itertools
import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from testbed.bed import Node

UNIT = """\
[Unit]
Description=ivy procedure: fast sampler
PartOf=ivy.target

[Service]
ExecStart=/usr/bin/ivy run fast-sampler
PrivateNetwork=yes
StateDirectory=fast-sampler
"""
RETURNED = "/var/lib/fast-sampler/returned.txt"
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


def procedure_unit(name: str) -> str:
    """The unit of a procedure, as a release brings it."""
    return f"[Unit]\nPartOf=ivy.target\n\n[Service]\nExecStart=/usr/bin/ivy run {name}\nPrivateNetwork=yes\n"


def release_file(node: Node, name: str) -> str:
    """Where a file of the current release is, in the node."""
    return node.run(["readlink", "-f", "/var/lib/ivy/current"]).stdout.strip() + "/" + name


def let_edit(node: Node, release: str = "/var/lib/ivy/current") -> Path:
    """Let a release be edited: else what differs from its manifest is taken for damage. Returns where it is."""
    for name in ("manifest", "manifest.bytecode"):
        node.path(f"{release}/{name}").unlink(missing_ok=True)
    return node.path(release)


def be_impatient(node: Node) -> None:
    """Shorten the time limits of all services."""
    drop_in = node.path("/etc/systemd/system") / "ivy-.service.d" / "90-test.conf"
    drop_in.parent.mkdir(exist_ok=True)
    drop_in.write_text(IMPATIENT)
    node.run(["systemctl", "daemon-reload"])


def sampled(node: Node, since: int = 0) -> set[Sample]:
    """Every sample for which `add_message` has returned. A line torn by a kill is none.

    Args:
        node: Where to look.
        since: Leave out those before; what `mark` said then.
    """
    with node.path(RETURNED).open("rb") as file:
        file.seek(since)
        lines = file.read().splitlines(keepends=True)
    pairs = [line.split() for line in lines if line.endswith(b"\n")]
    return {(int(life), int(number)) for life, number in pairs}


def mark(node: Node) -> int:
    """How far the sampler has come, for `sampled`."""
    return node.path(RETURNED).stat().st_size


def arrived(samples: Iterable[tuple[float, dict[str, Any]]]) -> Counter[Sample]:
    """Every sample of the sampler among the samples of a platform, and how often."""
    return Counter((values["life"], values["number"]) for _, values in samples if "life" in values)


def times(samples: Iterable[tuple[float, dict[str, Any]]]) -> list[float]:
    """When each sample of the sampler was taken, in Unix seconds, the oldest first."""
    return sorted(taken for taken, values in samples if "life" in values)


def longest_gap(taken: Iterable[float], since: float, until: float) -> float:
    """The longest time in seconds between two samples of that period."""
    inside = [moment for moment in taken if since <= moment <= until]
    return max(later - earlier for earlier, later in itertools.pairwise(inside))
