"""Starts processes that add messages, and lets them begin together. What they do is in `writer.py`."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from testbed.waiting import wait_for

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


def count_syncs(node: Node, backend: Process, count: int, pause: float) -> int:
    """How often a writer and the backend make anything durable while messages are added, sent and removed."""
    writer, log = _start(node, count, pause), node.data.with_name("syncs")
    writer.stdout.readline()  # type: ignore[union-attr]  # it is ready
    pids = [writer.pid, backend.pid]
    calls = ["--follow-forks", "--trace=fsync,fdatasync,sync,syncfs", f"--output={log}"]
    tracer = subprocess.Popen(["strace", "--quiet=all", *calls, *(f"--attach={pid}" for pid in pids)])
    wait_for(lambda: all(map(_is_traced, pids)), 10, "strace")
    writer.communicate("\n")
    node.wait_until_empty()
    tracer.terminate()
    tracer.wait()
    return log.read_text().count("sync")


def _is_traced(pid: int) -> bool:
    return "TracerPid:\t0\n" not in Path(f"/proc/{pid}/status").read_text()


def _start(node: Node, count: int, pause: float) -> Process:
    return node.spawn([str(_PROGRAM), str(count), str(pause)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def _result(process: Process, count: int) -> Result:
    output, _ = process.communicate()
    seconds, bytes_to_disk, percentile, longest = output.split()
    return Result(count, float(seconds), int(bytes_to_disk), float(percentile), float(longest))
