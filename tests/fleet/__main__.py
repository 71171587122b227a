"""A benchmark, by hand: how long a fleet of N takes to be provisioned and updated, and what each node costs.

packaging/build-deb && packaging/test lint && PYTHONPATH=.:packaging .venv/bin/python -m tests.fleet 100
"""

import argparse
import json
import os
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from testbed.bed import Bed, Node
from testbed.waiting import wait_for

from tests.fleet.desk import Play
from tests.fleet.fleet import Fleet

COST = """
import glob, json, os
memory = ticks = 0
for path in glob.glob("/proc/[0-9]*"):
    try:
        is_ivy = b"-m\\0ivy" in open(path + "/cmdline", "rb").read()
        fields = open(path + "/stat").read().rpartition(")")[2].split()
        ticks += is_ivy * (int(fields[11]) + int(fields[12]))
        pss = next(line for line in open(path + "/smaps_rollup") if line.startswith("Pss:"))
        memory += is_ivy * int(pss.split()[1])
    except (OSError, StopIteration):
        pass
print(json.dumps([memory / 1000, ticks / os.sysconf("SC_CLK_TCK")]))
"""
IDLE_SECONDS = 60


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fleet", description=__doc__.split("\n\n")[0])
    parser.add_argument("nodes", metavar="N", type=int)
    parser.add_argument("--forks", type=int, default=20, help="nodes that Ansible works on at once; default: 20")
    parser.add_argument("--interval", type=int, default=10, help="seconds between samples; default: 10")
    parser.add_argument("--keep", action="store_true", help="leave the fleet up until Ctrl-C")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ivy-fleet-") as scratch, Bed(_bed_name()) as bed:
        fleet = Fleet(bed, Path(scratch), options.nodes, max(1, options.nodes // 20), options.forks)
        try:
            _measure(fleet, options)
            if options.keep:
                print(f"{fleet.directory}: {', '.join(fleet.names)}; Ctrl-C ends it", flush=True)
                signal.pause()
        finally:
            fleet.close()


def _bed_name() -> str:
    return os.environ.get("IVY_TESTBED", "fleet-benchmark")


def _measure(fleet: Fleet, options: argparse.Namespace) -> None:
    _timed("bare nodes", fleet.set_up)
    interval = {"dummy_procedure": {"seconds_between_datapoints": options.interval}}
    _played("provision", fleet.desk.play("provision", ivy_node_config=interval, ivy_batch="100%"))
    _timed("all deliver", lambda: _wait_for_samples(fleet))
    _played("provision again", fleet.desk.play("provision", ivy_node_config=interval, ivy_batch="100%"))
    _print_cost(fleet)
    _played("status", fleet.desk.play("status"))
    fleet.maker.release("9.1.0", signer=fleet.signer)
    _played("staged update", fleet.desk.play("update", ivy_target="9.1.0", ivy_soak_seconds=1))
    print(f"{list(fleet.versions().values()).count('9.1.0')} of {options.nodes} run 9.1.0", flush=True)


def _timed(what: str, work: Callable[[], object]) -> None:
    began = time.monotonic()
    work()
    print(f"{what + ':':<20} {time.monotonic() - began:7.1f} s", flush=True)


def _played(what: str, play: Play) -> None:
    play.succeeded()
    print(f"{what + ':':<20} {play.seconds:7.1f} s, changed={play.recap('changed')}", flush=True)


def _wait_for_samples(fleet: Fleet) -> None:
    for name in fleet.names:
        wait_for(lambda name=name: fleet.arrived(name), 300, f"samples of {name}")  # type: ignore[misc]


def _print_cost(fleet: Fleet) -> None:
    """What all processes of ivy take on a node, in the mean and at most."""
    before = {name: _cost(node) for name, node in fleet.nodes.items()}
    began = time.monotonic()
    time.sleep(IDLE_SECONDS)
    after = {name: _cost(node) for name, node in fleet.nodes.items()}
    seconds = time.monotonic() - began
    memory = [after[name][0] for name in fleet.names]
    load = [100 * (after[name][1] - before[name][1]) / seconds for name in fleet.names]
    for what, values, unit in (("memory per node", memory, "MB"), ("CPU per node", load, "% of a core")):
        print(f"{what + ':':<20} {sum(values) / len(values):7.2f} {unit}, at most {max(values):.2f}", flush=True)


def _cost(node: Node) -> tuple[float, float]:
    """Proportional memory in MB, and CPU seconds, of ivy's processes."""
    memory, seconds = json.loads(node.run(["python3", "-c", COST]).stdout)
    return memory, seconds


if __name__ == "__main__":
    main()
