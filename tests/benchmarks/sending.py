"""How soon a sample is at the broker, and how fast a backlog drains, with default settings."""

import time
from collections.abc import Iterator
from pathlib import Path

from testbed.broker import Broker
from testbed.waiting import wait_for

from tests.benchmarks.row import Row, Sizes, latency_rows
from tests.benchmarks.writers import write
from tests.broker.node import PASSWORD, Node, data_message
from tests.node.recorder import Recorder

SECONDS_BETWEEN_SAMPLES = 0.02


def measure(directory: Path, broker: Broker, sizes: Sizes) -> Iterator[Row]:
    """A broker that forwards a message has sent its PUBACK too, so an arrival is taken for one."""
    directory.mkdir()
    # Before there is a recorder: for one that is away, the broker would keep everything, and save it all each time.
    yield Row("drain of a backlog, nobody else", _drain_rate(directory / "alone", broker, sizes), "/s", "≥ 2 000")
    recorder = Recorder(broker.address, broker.port, "operator", PASSWORD)
    try:
        yield from _live(directory / "live", broker, recorder, sizes)
        recorder.arrivals.clear()
        yield from _backlog(directory / "backlog", broker, recorder, sizes)
    finally:
        recorder.close()


def _live(directory: Path, broker: Broker, recorder: Recorder, sizes: Sizes) -> Iterator[Row]:
    with Node(directory, broker.port) as node:
        backend = node.start()
        node.wait_until_connected()
        before = _written(backend.pid)
        [result] = write(node, 1, sizes.samples, SECONDS_BETWEEN_SAMPLES)
        node.wait_until_empty()
        wait_for(lambda: len(recorder.elements("measurements")) >= sizes.samples, 10, "all samples")
        yield from latency_rows("sample to PUBACK, live", _delays(recorder), "< 50")
        by_backend = (_written(backend.pid) - before) / sizes.samples
        yield Row("written to disk per message, by its sender", result.bytes_to_disk / sizes.samples / 1e3, "kB")
        yield Row("written to disk per message, by the backend", by_backend / 1e3, "kB")


def _written(pid: int) -> int:
    return int(Path(f"/proc/{pid}/io").read_text().partition("\nwrite_bytes: ")[2].split()[0])


def _delays(recorder: Recorder) -> list[float]:
    timed = recorder.timed_elements("measurements")
    return [arrival.time - element["timestamp"] for arrival, element in timed if "live" in element["value"]]


def _backlog(directory: Path, broker: Broker, recorder: Recorder, sizes: Sizes) -> Iterator[Row]:
    with Node(directory, broker.port) as node:
        node.fill(data_message(number=number) for number in range(sizes.backlog))
        node.start()
        wait_for(lambda: recorder.arrivals, 10, "the first messages", interval=0.001)
        samples = 0
        while node.queue_length() > sizes.backlog / 10:
            write(node, 1, 10, SECONDS_BETWEEN_SAMPLES)
            samples += 10
        node.wait_until_empty(600)
        wait_for(lambda: len(_delays(recorder)) >= samples, 10, "all samples", interval=0.5)
        yield from latency_rows("sample to PUBACK, while a backlog drains", _delays(recorder), "< 200")


def _drain_rate(directory: Path, broker: Broker, sizes: Sizes) -> float:
    with Node(directory, broker.port) as node:
        node.fill(data_message(number=number) for number in range(sizes.backlog))
        node.start()
        node.wait_until_connected()
        began = node.link["since"]
        node.wait_until_empty(600)
        return float(sizes.backlog / (time.time() - began))
