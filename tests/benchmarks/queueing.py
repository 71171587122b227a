"""How many messages a second the queue takes, short and long, from one process and from several."""

import statistics
from collections.abc import Iterator
from pathlib import Path

from testbed.broker import Broker

from tests.benchmarks.writers import Result, write
from tests.support import limits
from tests.support.backend_node import Node, data_message
from tests.support.row import Row, Sizes

ROUNDS = 5


def measure(directory: Path, broker: Broker, sizes: Sizes) -> Iterator[Row]:
    """Rate of `add_message` without a backend."""
    directory.mkdir()
    with Node(directory / "short", broker.port) as short, Node(directory / "long", broker.port) as long:
        long.fill(data_message(number=number) for number in range(sizes.queued))
        commits = limits.commit_rate(directory, sizes.added)
        yield Row("limit: SQLite commit of such a row, WAL, FULL", commits, "/s")
        for writers in (1, 4):
            # In turns: the disk of a busy machine is faster at one time than at another.
            rounds = [(_results(short, writers, sizes), _results(long, writers, sizes)) for _ in range(ROUNDS)]
            empty, full = (statistics.median(map(_rate, results)) for results in zip(*rounds, strict=True))
            name = f"add_message, {writers} writer{'s' if writers > 1 else ''}"
            yield Row(f"{name}, nothing queued", empty, "/s", f"≥ {0.8 * commits:.0f}" if writers == 1 else "")
            yield Row(f"{name}, {sizes.queued:,} queued", full, "/s", f"≥ {0.8 * empty:.0f}")
            percentile = statistics.median(max(each.percentile for each in results) for results, _ in rounds)
            yield Row(f"{name}, 99 %", 1e3 * percentile, "ms", "≤ 5")
            written = sum(each.bytes_to_disk for results, _ in rounds for each in results)
            per_message = written / (ROUNDS * (sizes.added // writers) * writers)
            yield Row(
                f"{name}, written to disk for each (limit: a block of 4.1 kB)", per_message / 1e3, "kB", "≤ 7"
            )
    yield from _while_many_drain(directory / "drain", broker, sizes)


def _while_many_drain(directory: Path, broker: Broker, sizes: Sizes) -> Iterator[Row]:
    """The longest that a message waits while an outage is made up for, and when the file shrinks afterwards."""
    with Node(directory, broker.port) as node:
        node.fill(data_message(number=number) for number in range(sizes.queued))
        node.start()
        node.wait_until_connected()
        longest, percentiles = 0.0, []
        while node.queue_length() > 100:
            [result] = write(node, 1, 200, 0.01)
            longest = max(longest, result.longest)
            percentiles.append(result.percentile)
        name = f"add_message while {sizes.queued:,} drain"
        yield Row(f"{name}, 99 %", 1e3 * statistics.median(percentiles), "ms", "≤ 5")
        yield Row(f"{name}, longest", 1e3 * longest, "ms", "≤ 1000")
        before = node.queue_bytes()
        node.spawn(["-c", _SHRINK]).wait()
        yield Row(f"the queue's file afterwards, of {before / 1e6:.0f} MB", node.queue_bytes() / 1e6, "MB", "≤ 2")


_SHRINK = """
from ivy.types.config import QueueConfig
from ivy.utils.messaging_agent import MessagingAgent
from ivy.utils.storage import bounds
bounds.enforce(QueueConfig(), MessagingAgent().database, 10**12)
"""


def _results(node: Node, writers: int, sizes: Sizes) -> list[Result]:
    return write(node, writers, sizes.added // writers)


def _rate(results: list[Result]) -> float:
    return sum(result.count for result in results) / max(result.seconds for result in results)
