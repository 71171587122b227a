"""What a backend takes of the memory when messages are large: so much of it, however many may be under way."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from testbed.waiting import wait_for

from tests.support.backend_node import MakeNode, data_message, free_port
from tests.support.platforms import TentaPlatform

KEYS = 10_000
MESSAGES = 120
"""Of 250 kB each: they are no more than the window in messages, by far."""

MOST_MEGABYTES = 110
"""A backend has 30, and six times the bytes that are under way."""


def _samples() -> Iterator[dict[str, Any]]:
    for number in range(MESSAGES):
        yield data_message(number=number, **{f"sensor_{key:05}_celsius": 20.5 for key in range(KEYS)})


def _peak_megabytes(pid: int) -> float:
    return int(Path(f"/proc/{pid}/status").read_text().partition("VmHWM:")[2].split()[0]) / 1000


def test_large_messages_do_not_fill_the_memory(tmp_path: Path, make_node: MakeNode) -> None:
    platform = TentaPlatform(tmp_path / "broker", free_port())
    try:
        node = make_node(platform.port, max_parallel_messages=500)
        node.fill(_samples())
        backend = node.start()
        node.wait_until_empty(120)
        wait_for(lambda: len(platform.samples()) >= MESSAGES, 60, "all of them to arrive")
        peak = _peak_megabytes(backend.pid)
    finally:
        platform.close()
    print(f"{peak:.0f} MB")
    assert peak < MOST_MEGABYTES
