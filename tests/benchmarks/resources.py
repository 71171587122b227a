"""What the services cost when little happens: memory and wake-ups."""

import time
from collections.abc import Iterator
from pathlib import Path

from testbed.broker import Broker
from testbed.waiting import wait_for

from tests.support.backend_node import Node, wake_ups
from tests.support.row import Row, Sizes

SERVICES = ("dummy-procedure", "system-checks", "tenta")


def measure(directory: Path, broker: Broker, sizes: Sizes) -> Iterator[Row]:
    """PSS and voluntary context switches of each service, and their sum: with nothing due, then as templated."""
    directory.mkdir()
    with Node(directory / "idle", broker.port) as node:
        began = time.monotonic()
        pids = _start(node, 7200, 7200)
        yield Row("start of all services until the first messages are sent", time.monotonic() - began, "s", "≤ 2")
        rates = _rates(node, pids, sizes.idle_seconds)
        yield from _rows("context switches, idle", rates, "/s", "≤ 1")
    with Node(directory / "busy", broker.port) as node:
        pids = _start(node, 10, 60)
        wait_for(lambda: "random_walk_position" in node.archive() or "Pausing" in node.log, 15, "a first sample")
        rates = _rates(node, pids, sizes.idle_seconds)
        yield from _rows("context switches, a sample every 10 s", rates, "/s")
        memory = {service: _pss(pid) for service, pid in pids.items()}
        yield from _rows("memory (PSS)", memory, "MB", "≤ 62")


def _start(node: Node, between_samples: int, between_checks: int) -> dict[str, int]:
    node.config["dummy_procedure"]["seconds_between_datapoints"] = between_samples
    node.config["system_checks"]["seconds_between_checks"] = between_checks
    node.write_config(node.config)
    pids = {service: node.start(service).pid for service in SERVICES}
    node.wait_until_connected()
    wait_for(lambda: "disk_usage_percent" in node.archive(), 15, "the first check")
    node.wait_until_empty()
    return pids


def _rates(node: Node, pids: dict[str, int], seconds: float) -> dict[str, float]:
    node.wait_until_empty()
    before = {service: wake_ups(pid) for service, pid in pids.items()}
    time.sleep(seconds)
    return {service: (wake_ups(pid) - before[service]) / seconds for service, pid in pids.items()}


def _rows(name: str, values: dict[str, float], unit: str, wanted: str = "") -> Iterator[Row]:
    yield from (Row(f"{name}, {service}", value, unit) for service, value in values.items())
    yield Row(f"{name}, all three", sum(values.values()), unit, wanted)


def _pss(pid: int) -> float:
    """In 10^6 bytes."""
    return int(Path(f"/proc/{pid}/smaps_rollup").read_text().partition("\nPss:")[2].split()[0]) * 1024 / 1e6
