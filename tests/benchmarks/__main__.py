"""Prints a table of what ivy does on this machine, and what the machine itself can do, measured in the same run."""

import argparse
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from testbed.broker import Broker

from tests.benchmarks import many_links, on_the_wire, queueing, resources, sending
from tests.support import limits
from tests.support.backend_node import PASSWORD, SENSOR, free_port
from tests.support.row import Row, Sizes
from tests.support.tenta_server import TentaServer

FULL = Sizes(added=1000, queued=1_000_000, backlog=200_000, samples=300, idle_seconds=60, links=1000)
QUICK = Sizes(added=200, queued=100_000, backlog=20_000, samples=50, idle_seconds=15, links=100)

Measurement = Callable[[Path, Broker, Sizes], Iterator[Row]]
MEASUREMENTS: list[Measurement] = [
    limits.measure,
    queueing.measure,
    sending.measure,
    on_the_wire.measure,
    resources.measure,
    many_links.measure,
]


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests/benchmarks/run", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller numbers: 1 minute instead of 5")
    parser.add_argument("--directory", default="/var/tmp", help="on the disk to measure; not a tmpfs")
    arguments = parser.parse_args()
    sizes = QUICK if arguments.quick else FULL
    print(f"{'':<60} {'measured':>14}   {'wanted':>10}")
    with tempfile.TemporaryDirectory(prefix="ivy-", dir=arguments.directory) as scratch:
        users = {SENSOR: PASSWORD, "operator": PASSWORD}
        with Broker("127.0.0.1", free_port(), users, directory=Path(scratch, "broker")) as broker:
            server = TentaServer(broker.address, broker.port, "operator", PASSWORD)
            server.keeps = False
            server.start()
            for number, measure in enumerate(MEASUREMENTS):
                for row in measure(Path(scratch, str(number)), broker, sizes):
                    print(row, flush=True)
            server.close()


if __name__ == "__main__":
    main()
