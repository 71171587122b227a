"""How many messages a second the queue takes, short and long, from one process and from several."""

import statistics
from collections.abc import Iterator
from pathlib import Path

from testbed.broker import Broker

from tests.benchmarks.writers import write
from tests.support.backend_node import Node, data_message
from tests.support.row import Row, Sizes

ROUNDS = 5  # in turns: the disk of a busy machine is faster at one time than at another


def measure(directory: Path, broker: Broker, sizes: Sizes) -> Iterator[Row]:
    """Rate of `add_message` without a backend."""
    directory.mkdir()
    with Node(directory / "short", broker.port) as short, Node(directory / "long", broker.port) as long:
        long.fill(data_message(number=number) for number in range(sizes.queued))
        for writers in (1, 4):
            rounds = [(_rate(short, writers, sizes), _rate(long, writers, sizes)) for _ in range(ROUNDS)]
            empty, full = (statistics.median(rates) for rates in zip(*rounds, strict=True))
            name = f"add_message, {writers} writer{'s' if writers > 1 else ''}"
            yield Row(f"{name}, nothing queued", empty, "/s")
            yield Row(f"{name}, {sizes.queued:,} queued", full, "/s", f"≥ {0.8 * empty:.0f}")


def _rate(node: Node, writers: int, sizes: Sizes) -> float:
    return sizes.added / max(result.seconds for result in write(node, writers, sizes.added // writers))
