"""A line of some hundred bytes a second: what is new comes soon, and nothing is sent twice."""

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from testbed.waiting import wait_for

from tests.support.backend_node import MakeNode, data_message, free_port
from tests.support.platforms import TentaPlatform
from tests.support.slow_line import SlowLine

BYTES_PER_SECOND = 6000
BACKLOG = 40
SENSORS = {f"sensor_{number:02}_celsius": 20.5 + number / 7 for number in range(30)}
"""1.2 kB of them."""


@pytest.fixture
def platform(tmp_path: Path) -> Generator[TentaPlatform, None, None]:
    """A broker, and whoever listens there."""
    platform = TentaPlatform(tmp_path / "broker", free_port())
    yield platform
    platform.close()


def _arrived(platform: TentaPlatform) -> list[Any]:
    return [values["number"] for _, values in platform.samples()]


def test_a_batch_that_takes_long_is_not_given_up(platform: TentaPlatform, make_node: MakeNode) -> None:
    """It takes longer than a connection may be stalled."""
    with SlowLine(platform.port, bytes_per_second=BYTES_PER_SECOND) as line:
        node = make_node(line.port)
        node.fill(data_message(number=number, **SENSORS) for number in range(BACKLOG))
        node.start(hurry={"until_stalled": 4.0})
        node.wait_until_connected()
        node.add(data_message(number=-1, **SENSORS))
        node.wait_until_empty(120)
    wait_for(lambda: len(_arrived(platform)) == BACKLOG + 1, 20, "all of them")
    assert sorted(_arrived(platform)) == list(range(-1, BACKLOG))
    assert _arrived(platform).index(-1) < BACKLOG / 2
    assert node.log.count("Connected to") == 1


def test_a_message_that_takes_long_is_not_given_up(platform: TentaPlatform, make_node: MakeNode) -> None:
    """There is no acknowledgment on the way; but bytes move."""
    with SlowLine(platform.port, bytes_per_second=BYTES_PER_SECOND) as line:
        node = make_node(line.port)
        node.add(data_message(**{f"sensor_{number:04}": number + 1 / 7 for number in range(2000)}))
        node.start(hurry={"until_stalled": 5.0})
        node.wait_until_empty(120)
    assert node.log.count("Connected to") == 1
