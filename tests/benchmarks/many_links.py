"""What becomes of a fleet's links when their broker is restarted: how soon all deliver again, and what is lost."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from testbed.broker import Broker
from testbed.waiting import wait_for

from tests.support.backend_node import PASSWORD, PROJECT, free_port
from tests.support.recorder import Recorder
from tests.support.row import Row, Sizes

PROCESSES = 10
SECONDS_AWAY = 3.0
SECONDS_OF_SILENCE = 5.0


class CalmBroker(Broker):
    """One that saves its database when it is stopped: at a thousand messages a second it would do nothing else."""

    def _settings(self) -> list[str]:
        return [line for line in super()._settings() if not line.startswith("autosave")]


def measure(directory: Path, _broker: Broker, sizes: Sizes) -> Iterator[Row]:
    """Each link sends a number every second; that of a moment after an event shows that it delivers."""
    directory.mkdir()
    with CalmBroker("127.0.0.1", free_port(), {"operator": PASSWORD}, directory=directory / "broker") as broker:
        recorder = Recorder(broker.address, broker.port, "operator", PASSWORD)
        processes = [_start(broker.port, number, sizes.links // PROCESSES) for number in range(PROCESSES)]
        began = _seconds_until_all_deliver(recorder, sizes.links)
        yield Row(f"{sizes.links} links, connecting", sizes.links / began, "/s")
        broker.stop()
        time.sleep(SECONDS_AWAY)
        broker.start()
        yield Row(
            f"{sizes.links} links, until all deliver after a restart of the broker",
            _seconds_until_all_deliver(recorder, sizes.links),
            "s",
        )
        sent = sum(int(count) for process in processes for count in process.communicate("\n")[0].split())
        before = -1
        while before < (before := len(recorder.arrivals)):  # what the broker has acknowledged and not yet passed on
            time.sleep(SECONDS_OF_SILENCE)
        arrived = len({(each.topic, each.payload) for each in recorder.arrivals})
        recorder.close()
    yield Row(f"{sizes.links} links, lost of {sent:,}", sent - arrived, "", "0")


def _start(port: int, number: int, count: int) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "tests.benchmarks.links", str(port), "operator", PASSWORD]
    return subprocess.Popen(
        [*command, str(number * count), str(count)],
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _seconds_until_all_deliver(recorder: Recorder, count: int) -> float:
    began, first = time.monotonic(), len(recorder.arrivals)
    wait_for(
        lambda: len({each.topic for each in recorder.arrivals[first:]}) == count, 300, "all links", interval=0.1
    )
    return time.monotonic() - began
