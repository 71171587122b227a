"""How soon a sample is at the platform, and how fast a backlog drains, near and far, with each platform."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from testbed.broker import Broker
from testbed.waiting import wait_for

from tests.benchmarks.writers import count_syncs, write
from tests.support import limits
from tests.support.backend_node import Node, data_message, free_port
from tests.support.platforms import Platform, TentaPlatform, ThingsBoardPlatform
from tests.support.row import Row, Sizes, latency_rows
from tests.support.slow_line import SlowLine

SECONDS_BETWEEN_SAMPLES = 0.02
SAMPLES_ALONE, SECONDS_ALONE = 10, 1.5  # each leaves the queue before the next one comes
ROUND_TRIP = 0.1
SECONDS_AT_A_DISTANCE = 10
MOST_IN_PARALLEL = 10_000


def measure(directory: Path, broker: Broker, sizes: Sizes) -> Iterator[Row]:
    """A platform that has a message has sent its PUBACK too, or is about to: an arrival is taken for one."""
    directory.mkdir()
    # Without a recorder, who would take half of the machine: for a speed, this broker is the platform.
    yield from _speeds("tenta", broker.port, directory / "tenta-speeds", sizes)
    tenta = TentaPlatform(directory / "tenta-broker", free_port())
    yield from _delays_and_bytes(tenta, directory / "tenta", sizes)
    tenta.close()
    thingsboard = ThingsBoardPlatform()
    yield from _speeds("thingsboard", thingsboard.port, directory / "thingsboard-speeds", sizes)
    yield from _delays_and_bytes(thingsboard, directory / "thingsboard", sizes)
    thingsboard.close()


def _speeds(provider: str, port: int, directory: Path, sizes: Sizes) -> Iterator[Row]:
    directory.mkdir()
    yield from limits.paho_rows(provider, port, sizes)
    local = _drain_rate(directory / "near", sizes.backlog, provider=provider, port=port)
    yield Row(f"drain, {provider}", local, "/s", "≥ 10 000")
    with SlowLine(port, ROUND_TRIP) as line:
        for window in (limits.WINDOW, 4 * limits.WINDOW):
            possible = limits.paho_rate(provider, line.port, window, SECONDS_AT_A_DISTANCE)
            yield Row(f"limit: paho, {provider}, arrays of {window}, 100 ms", possible, "/s")
            backend = {"provider": provider, "port": line.port, "max_parallel_messages": window}
            rate = _drain_rate(directory / f"far-{window}", round(SECONDS_AT_A_DISTANCE * possible), **backend)
            yield Row(f"drain, {provider}, {window} in parallel, 100 ms", rate, "/s", f"≥ {8 * window:,}")
        backend = {"provider": provider, "port": line.port, "max_parallel_messages": MOST_IN_PARALLEL}
        rate = _drain_rate(directory / "far-most", sizes.backlog, **backend)
        yield Row(f"drain, {provider}, {MOST_IN_PARALLEL:,} in parallel, 100 ms", rate, "/s", "≥ 25 000")


def _drain_rate(directory: Path, backlog: int, **backend: Any) -> float:
    with Node(directory, **backend) as node:
        node.fill(data_message(number=number) for number in range(backlog))
        node.start()
        node.wait_until_connected()
        began = node.link["since"]
        node.wait_until_empty(600)
        return float(backlog / (time.time() - began))


def _delays_and_bytes(platform: Platform, directory: Path, sizes: Sizes) -> Iterator[Row]:
    directory.mkdir()
    yield from _live(platform, directory / "live", sizes)
    yield from _while_a_backlog_drains(platform, directory / "backlog", sizes)


def _live(platform: Platform, directory: Path, sizes: Sizes) -> Iterator[Row]:
    with Node(directory, platform.port, provider=platform.provider) as node:
        backend = node.start()
        node.wait_until_connected()
        before = limits.written(backend.pid)
        [result] = write(node, 1, sizes.samples, SECONDS_BETWEEN_SAMPLES)
        node.wait_until_empty()
        wait_for(lambda: len(platform.delays("live")) >= sizes.samples, 10, "all samples")
        name = platform.provider
        yield from latency_rows(f"sample to PUBACK, {name}", platform.delays("live"), "≤ 20")
        by_sender = result.bytes_to_disk / sizes.samples / 1e3
        by_backend = (limits.written(backend.pid) - before) / sizes.samples / 1e3
        yield Row(f"written to disk per message, {name}, by its sender", by_sender, "kB")
        yield Row(f"written to disk per message, {name}, by the backend", by_backend, "kB")
        yield Row(f"written to disk per message, {name}, by both", by_sender + by_backend, "kB", "≤ 7")
        syncs = count_syncs(node, backend, SAMPLES_ALONE, SECONDS_ALONE) / SAMPLES_ALONE
        yield Row(f"syncs per message that is sent alone, {name}, by both", syncs, "", "≤ 2.2")


def _while_a_backlog_drains(platform: Platform, directory: Path, sizes: Sizes) -> Iterator[Row]:
    seen = len(platform.delays("live"))
    with Node(directory, platform.port, provider=platform.provider) as node:
        node.fill(data_message(number=number) for number in range(sizes.backlog))
        node.start()
        node.wait_until_connected()
        samples = seen
        while node.queue_length() > sizes.backlog / 10:
            write(node, 1, 10, SECONDS_BETWEEN_SAMPLES)
            samples += 10
        node.wait_until_empty(600)
        wait_for(lambda: len(platform.delays("live")) >= samples, 10, "all samples", interval=0.5)
        name = f"sample to PUBACK, {platform.provider}, while a backlog drains"
        yield from latency_rows(name, platform.delays("live")[seen:], "≤ 200")
