"""What only Tenta has: names of keys that it takes, numbers only, and logs in packets that its broker takes."""

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from testbed.waiting import wait_for

from tests.support.backend_node import MakeNode, Node, free_port
from tests.support.platforms import TentaPlatform, judged


@pytest.fixture
def platform(tmp_path: Path) -> Generator[TentaPlatform, None, None]:
    """A broker; at the end, everything that has arrived must have been in Tenta's form."""
    platform = TentaPlatform(tmp_path / "broker", free_port())
    with judged(platform):
        yield platform


@pytest.fixture
def node(make_node: MakeNode, platform: TentaPlatform) -> Node:
    """A node whose operator reads warnings."""
    node = make_node(platform.port)
    node.config["logging_verbosity"]["message_sending"] = "WARNING"
    node.write_config(node.config)
    return node


def test_samples_arrive_under_names_that_depend_on_their_keys_only(node: Node, platform: TentaPlatform) -> None:
    data: dict[str, Any] = {"温度": 21.5, "CH4 (wet)": float("nan"), "CH4 wet": 2.1, "state": "on", "co2": 400.0}
    node.fill({"variant": "data", "data": data} for _ in range(3))
    node.start()
    node.wait_until_empty()
    wait_for(lambda: len(platform.samples()) == 3 and platform.logs(), 10, "the samples and a report")
    assert [value for _, value in platform.samples()] == [{"u6e29_u5ea6": 21.5, "ch4_wet_2": 2.1, "co2": 400}] * 3
    [report] = platform.logs()
    assert "'CH4 (wet)': left out: it is not a finite number" in report
    assert "'state': left out: it is a text" in report


@pytest.mark.parametrize("character", ["\N{SNOWMAN}", "\N{PILE OF POO}"])
def test_a_long_log_line_beyond_ascii_arrives(node: Node, platform: TentaPlatform, character: str) -> None:
    node.fill([{"variant": "log", "level": "ERROR", "subject": "s", "body": character * 15_000} for _ in range(5)])
    node.start()
    node.wait_until_empty()
    wait_for(lambda: len(platform.logs()) == 5, 10, "the log lines")
    assert all(len(arrival.payload) <= 60_000 for arrival in platform.recorder.arrivals)
    assert len(platform.logs()[0]) > 14_900
