"""What the services cost when nothing happens: memory and wake-ups, with the intervals of the config's template."""

import time
from collections.abc import Iterator
from pathlib import Path

from testbed.broker import Broker
from testbed.waiting import wait_for

from tests.benchmarks.row import Row, Sizes
from tests.broker.node import Node, wake_ups

SERVICES = ("dummy-procedure", "system-checks", "tenta")


def measure(directory: Path, broker: Broker, sizes: Sizes) -> Iterator[Row]:
    """PSS and voluntary context switches of each service, and their sum."""
    with Node(directory, broker.port) as node:
        node.config["dummy_procedure"]["seconds_between_datapoints"] = 10
        node.config["system_checks"]["seconds_between_checks"] = 60
        node.write_config(node.config)
        pids = {service: node.start(service).pid for service in SERVICES}
        node.wait_until_connected()
        wait_for(lambda: "random_walk_position" in node.archive() or "Pausing" in node.log, 15, "a first sample")
        node.wait_until_empty()
        before = {service: wake_ups(pid) for service, pid in pids.items()}
        time.sleep(sizes.idle_seconds)
        rates = {service: (wake_ups(pid) - before[service]) / sizes.idle_seconds for service, pid in pids.items()}
        memory = {service: _pss(pid) for service, pid in pids.items()}
    yield from (Row(f"memory (PSS), {service}", memory[service], "MB") for service in SERVICES)
    yield Row("memory (PSS), all three", sum(memory.values()), "MB", "≤ 65")
    yield from (Row(f"context switches when idle, {service}", rates[service], "/s") for service in SERVICES)
    yield Row("context switches when idle, all three", sum(rates.values()), "/s", "≤ 2")


def _pss(pid: int) -> float:
    """In 10^6 bytes."""
    return int(Path(f"/proc/{pid}/smaps_rollup").read_text().partition("\nPss:")[2].split()[0]) * 1024 / 1e6
