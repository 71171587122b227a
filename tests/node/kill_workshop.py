"""Tries out ways to kill a pass of the updater, some at a time, and judges each. Which ones, the tests decide."""

import contextlib
import queue
import random
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from testbed.bed import Bed, Snapshot

from tests.node import aftermath
from tests.node.kill_site import BROKER_PORT, Case, Lane, Prepared, prepare
from tests.node.kills import Kill, record_pass
from tests.support import strace
from tests.support.installed import keep_answer
from tests.support.platforms import TentaPlatform
from tests.support.releases import append
from tests.support.sampling import let_edit
from tests.support.update_site import AT_ONCE, SHORT_PROBATION, UpdateSite

LANES = 3
CANNOT_RUN = "\n\ndef run(config, logger):\n    raise SystemExit(78)\n"
CASES = [
    Case("config", {"dummy_procedure": {"seconds_between_datapoints": 2}}, True),
    # It makes no topic, which the backend notices when it starts.
    Case("config-undone", {"general": {"system_identifier": "a+b"}}, False),
    Case("version", {}, True, "9.1.0"),
    Case("version-undone", {}, False, "9.2.0"),
]


@dataclass(frozen=True)
class Known:
    """A case, and how it goes when nothing is killed."""

    prepared: Prepared
    calls: list[strace.Call]
    after: dict[str, aftermath.Tree]


Trial: TypeAlias = tuple[Known, str, Kill]
"""A case, what is done to it in words, and how."""


@dataclass
class Workshop:
    """Nodes to kill, and where."""

    lanes: "queue.Queue[Lane]"
    known: list[Known]
    whole: dict[str, aftermath.Tree]
    """Releases, as they are when nothing is killed."""

    def at_once(self, trials: Sequence[Trial]) -> int:
        """Try out all of these, some at a time. Returns how many were killed; the others were over before.

        Raises:
            ExceptionGroup: Some did not end well; the others were tried out nevertheless.
        """
        # In random order: the result of a part of a sweep says something of all.
        shuffled = random.sample(trials, len(trials))
        with ThreadPoolExecutor(LANES) as pool:
            tried = [pool.submit(self._try, trial) for trial in shuffled]
        errors = [error for each in tried if isinstance(error := each.exception(), Exception)]
        if errors:
            raise ExceptionGroup(f"{len(errors)} of {len(trials)} kills did not end well", errors)
        return sum(each.result() for each in tried)

    def _try(self, trial: Trial) -> bool:
        known, name, kill = trial
        prepared = known.prepared
        lane = self.lanes.get()
        try:
            with lane.copy(prepared) as node:
                was_killed = kill(node)
                if not node.running:
                    aftermath.assert_whole(node, self.whole)
                    node.boot()
                aftermath.assert_well(node, lane, prepared)
                assert aftermath.releases(node) == known.after
        except Exception as error:
            error.add_note(f"{prepared.case.name}: {name}")
            print(f"{prepared.case.name}: {name}: FAILED", error, flush=True)
            raise
        finally:
            self.lanes.put(lane)
        print(f"{prepared.case.name}: {name}: good", flush=True)
        return was_killed


@contextlib.contextmanager
def open_workshop(bed: Bed, installed: Snapshot, directory: Path) -> Generator[Workshop, None, None]:
    """All that is needed to kill passes, from the disk of a node on which ivy is installed."""
    with contextlib.ExitStack() as stack:
        prepared = _prepare_all(bed, installed, directory, stack)
        lanes: queue.Queue[Lane] = queue.Queue()
        for number in range(1, LANES + 1):
            lanes.put(stack.enter_context(contextlib.closing(Lane(bed, number, directory))))
        with ThreadPoolExecutor(LANES) as pool:
            known = list(pool.map(lambda case: _get_to_know(case, lanes), prepared))
        whole = {version: files for each in known for version, files in each.after.items()}
        yield Workshop(lanes, known, whole)


def _prepare_all(bed: Bed, installed: Snapshot, directory: Path, stack: contextlib.ExitStack) -> list[Prepared]:
    """A node with all offers before it; the git server lives as long as the stack."""
    node = bed.node("kill", base=installed)
    node.boot()
    platform = TentaPlatform(directory / "broker", BROKER_PORT, bed.address)
    site = stack.enter_context(contextlib.closing(UpdateSite(bed, node, platform, directory)))
    node.run(["apt-get", "install", "--yes", "strace"], timeout=120)
    keep_answer(node)
    AT_ONCE(let_edit(node))
    site.connect()
    site.accepts(updater={**SHORT_PROBATION, "seconds_of_probation": 1})
    site.release("9.1.0")
    site.release("9.2.0", append("ivy/procedures/dummy_procedure.py", CANNOT_RUN))
    prepared = prepare(site, platform.recorder, CASES)
    node.destroy()
    return prepared


def _get_to_know(prepared: Prepared, lanes: "queue.Queue[Lane]") -> Known:
    """See how a case goes when nothing is killed."""
    lane = lanes.get()
    try:
        with lane.copy(prepared) as node:
            calls = record_pass(node)
            aftermath.assert_well(node, lane, prepared)
            return Known(prepared, calls, aftermath.releases(node))
    finally:
        lanes.put(lane)
