"""A node whose disk forgets what was not flushed, and what was promised on it, which it does not forget."""

import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from testbed import disk, overlay
from testbed.bed import Node
from testbed.forgetful_disk import Recording
from testbed.run import run

from tests.node import disk_look
from tests.node.disk_look import Damage, Files
from tests.support.sampling import RETURNED, Sample

FIXED_SEED = 25
STATE = Path(RETURNED).parent


def be_forgetful(node: Node) -> None:
    """Give it the disk. It has no power then."""
    node.be_forgetful()
    keep_promises(node)


def keep_promises(node: Node) -> None:
    """Put what the sampler writes down onto another disk. To be repeated after each cut, before the boot."""
    place = promises(node).parent
    place.mkdir(exist_ok=True)
    inside = node.path(STATE)
    inside.mkdir(exist_ok=True)
    run(["mount", "--bind", place, inside])


def promises(node: Node) -> Path:
    """The file with the samples for which `add_message` has returned, on this machine."""
    return node.directory / "promises" / Path(RETURNED).name


def promised(file: Path, size: int) -> set[Sample]:
    """Those in the first bytes of such a file."""
    lines = file.read_bytes()[:size].splitlines(keepends=True) if file.exists() else []
    pairs = [line.split() for line in lines if line.endswith(b"\n")]
    return {(int(life), int(number)) for life, number in pairs}


@dataclass
class Recorded:
    """A change of a node that was recorded, and what its disk looked like before and after."""

    node: Node
    directory: Path
    before: Files
    after: Files = field(default_factory=dict)
    checks: list[tuple[int, str, Callable[[Path], bool]]] = field(default_factory=list)
    """What must hold on the disk (mounted there) from an instant on, in words."""

    def read(self) -> Recording:
        """What was recorded, when that is over."""
        return Recording(self.directory / "writes")

    def promise(self, what: str, holds: Callable[[Path], bool]) -> None:
        """From now on something is promised."""
        self.checks.append((self.node.disk.instant(), what, holds))


@contextmanager
def recorded(node: Node) -> Iterator[Recorded]:
    """Record all that is written by a node, to be looked at later."""
    node.run(["sync"])  # what a test has copied into it
    directory = Path(tempfile.mkdtemp(prefix="recording-", dir=node.directory.parent.parent))
    record = Recorded(node, directory, disk_look.files(node.root))
    node.disk.record(directory / "writes", promises(node))
    try:
        yield record
    finally:
        node.disk.stop_recording()
    record.after = disk_look.files(node.root)


@dataclass
class Found:
    """What was found at all instants that were looked at."""

    points: int = 0
    promised: int = 0
    lost: set[Sample] = field(default_factory=set)
    damage: Damage = field(default_factory=Damage)

    def __str__(self) -> str:
        return f"{self.points} points, {self.promised} promised, {len(self.lost)} lost, damage: {self.damage}"


def choose(instants: Sequence[int], most: int, chance: random.Random) -> list[int]:
    """At most so many of them, evenly, from a random one."""
    if len(instants) <= most:
        return list(instants)
    first = chance.random()
    return [instants[int((number + first) * len(instants) / most)] for number in range(most)]


def look_at(record: Recorded, points: Sequence[tuple[int, int]]) -> Found:
    """Make the disk of some instants, each with a seed, and look at each."""
    recording = record.read()
    found = Found()
    image = record.directory / "image"
    for instant, seed in sorted(points):
        recording.make_disk(instant, seed, image)
        said = promised(promises(record.node), recording.instants[instant - 1].said)
        with disk.mounted(image, record.directory / "mounted") as mounted, _as_root(record, mounted) as root:
            before = sum(map(len, found.damage.found.values()))
            disk_look.look(root, [record.before, record.after], found.damage)
            lost = said - disk_look.kept(root)
            for since, what, holds in record.checks:
                if instant >= since and not holds(root):
                    found.damage.add("promise", what)
            if lost or sum(map(len, found.damage.found.values())) != before:
                print(
                    f"instant {instant} of {len(recording.instants)}, seed {seed}: {len(lost)} lost, {found.damage}"
                )
        found.points += 1
        found.promised = max(found.promised, len(said))
        found.lost |= lost
    return found


@contextmanager
def _as_root(record: Recorded, mounted: Path) -> Iterator[Path]:
    root = record.directory / "root"
    overlay.mount(record.node.layers, mounted / "upper", mounted / "work", root)
    try:
        yield root
    finally:
        overlay.unmount(root)
