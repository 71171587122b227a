"""Starts processes that add messages, and lets them begin together. What they do is in `writer.py`."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.support.backend_node import Node, Process

_PROGRAM = Path(__file__).with_name("writer.py")


@dataclass(frozen=True)
class Result:
    """What a writer found out."""

    count: int
    seconds: float
    bytes_to_disk: int
    percentile: float
    """Seconds that 99 of 100 messages took at most."""
    longest: float


def write(node: Node, writers: int, count: int, pause: float = 0) -> list[Result]:
    """Let several processes add messages at the same time.

    Args:
        node: Whose queue takes them.
        writers: How many processes.
        count: How many messages each of them adds.
        pause: Seconds after each message.
    """
    processes = [_start(node, count, pause) for _ in range(writers)]
    for process in processes:
        process.stdout.readline()  # type: ignore[union-attr]  # it is ready
    for process in processes:
        process.stdin.write("\n")  # type: ignore[union-attr]
        process.stdin.flush()  # type: ignore[union-attr]
    return [_result(process, count) for process in processes]


def _start(node: Node, count: int, pause: float) -> Process:
    return node.spawn([str(_PROGRAM), str(count), str(pause)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def _result(process: Process, count: int) -> Result:
    output, _ = process.communicate()
    seconds, bytes_to_disk, percentile, longest = output.split()
    return Result(count, float(seconds), int(bytes_to_disk), float(percentile), float(longest))
