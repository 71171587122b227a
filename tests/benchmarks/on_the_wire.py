"""What a sample costs on the wire: bytes of both directions above TCP, beside those of the sample itself."""

import json
from collections.abc import Iterator
from pathlib import Path

from testbed.broker import Broker
from testbed.waiting import wait_for

from tests.support.backend_node import Node, data_message, free_port
from tests.support.platforms import Platform, TentaPlatform, ThingsBoardPlatform
from tests.support.row import Row, Sizes
from tests.support.slow_line import SlowLine

SAMPLE = {"temperature": 21.53, "humidity": 40.2, "pressure": 1013.25, "wind": 3.1}
WANTED = {"tenta": ("≤ 130", "≤ 110"), "thingsboard": ("≤ 120", "≤ 95")}


def measure(directory: Path, _broker: Broker, sizes: Sizes) -> Iterator[Row]:
    """Live samples each come alone; those of a backlog together."""
    directory.mkdir()
    alone = len(json.dumps(SAMPLE, separators=(",", ":")))
    yield Row("bytes of a sample, as JSON without its time", alone, "B")
    for platform in (TentaPlatform(directory / "broker", free_port()), ThingsBoardPlatform()):
        live, backlog = WANTED[platform.provider]
        for protocol in ("5", "3.1.1"):
            version = f"{platform.provider}, MQTT {protocol}"
            place = directory / f"{platform.provider}-{protocol}"
            place.mkdir()
            yield Row(f"on the wire, a live sample, {version}", _live(platform, protocol, place, sizes), "B", live)
            of_many = _backlog(platform, protocol, place, sizes)
            yield Row(f"on the wire, one of a backlog, {version}", of_many, "B", backlog)
        platform.close()


def _live(platform: Platform, protocol: str, directory: Path, sizes: Sizes) -> float:
    with (
        SlowLine(platform.port, 0) as line,
        Node(directory / "live", line.port, provider=platform.provider, protocol=protocol) as node,
    ):
        node.start()
        node.wait_until_connected()
        _send_one(node, platform)  # the first one makes the topic known
        before = line.passed
        for _ in range(sizes.samples):
            _send_one(node, platform)
        return (line.passed - before) / sizes.samples


def _send_one(node: Node, platform: Platform) -> None:
    before = len(platform.samples())
    node.add(data_message(**SAMPLE))
    wait_for(lambda: len(platform.samples()) > before, 10, "the sample", interval=0.005)


def _backlog(platform: Platform, protocol: str, directory: Path, sizes: Sizes) -> float:
    with (
        SlowLine(platform.port, 0) as line,
        Node(directory / "backlog", line.port, provider=platform.provider, protocol=protocol) as node,
    ):
        node.fill(data_message(**SAMPLE) for _ in range(sizes.backlog // 10))
        node.start()
        node.wait_until_empty(600)
        return line.passed / (sizes.backlog // 10)
