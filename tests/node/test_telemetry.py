"""How soon a sample arrives at a real Mosquitto, and what sampling takes of the card and the processor."""

import json
import statistics
import time
from typing import Any

from testbed.bed import Node
from testbed.broker import Broker

from tests.support.installed import unit_property, use_tenta
from tests.support.recorder import Recorder

LATENCY_SAMPLES = 20
MOST_DELAY = 2.0  # seconds: whoever looked every five would need longer. What it really takes: tests.benchmarks
MOST_WAKE_UPS = 1.0  # per second, of all services together, while nothing is due
MOST_WRITTEN = 28e3  # bytes of a sample until its removal: 15 to 19 here, 25 beside other work
IDLE_SECONDS = 20
DATA = "/var/lib/ivy/data"
SERVICES = ["ivy-dummy-procedure", "ivy-system-checks", "ivy-tenta"]


def test_a_sample_is_soon_at_the_broker_and_wears_out_no_card(
    node: Node, broker: Broker, recorder: Recorder
) -> None:
    use_tenta(node, broker, dummy_procedure={"seconds_between_datapoints": 1})

    def delays() -> list[float]:
        pairs = recorder.timed_elements("measurements")
        return [
            arrival.time - each["timestamp"] for arrival, each in pairs if "random_walk_position" in each["value"]
        ]

    old = len(delays())  # of when there was no backend yet, some of them
    node.wait_for(lambda: len(delays()) >= old + 2, 15, "first samples at the broker")
    sent, written = len(delays()), bytes_written(node)
    node.wait_for(lambda: len(delays()) >= sent + LATENCY_SAMPLES, LATENCY_SAMPLES + 15, "samples at the broker")
    per_sample = (bytes_written(node) - written) / (len(delays()) - sent)
    median = statistics.median(delays()[sent:])
    print(f"{median * 1e3:.1f} ms in the median, {per_sample / 1e3:.1f} kB written per sample")
    assert median <= MOST_DELAY, sorted(delays()[sent:])
    assert 1000 < per_sample <= MOST_WRITTEN


def bytes_written(node: Node) -> int:
    """What the services that a sample passes have written to the disk so far."""
    pids = [unit_property(node, service, "MainPID") for service in ("ivy-dummy-procedure", "ivy-tenta")]
    counts = [node.path(f"/proc/{pid}/io").read_text() for pid in pids]
    return sum(int(count.partition("\nwrite_bytes: ")[2].split()[0]) for count in counts)


def test_nothing_wakes_up_while_nothing_is_due(node: Node, broker: Broker, recorder: Recorder) -> None:
    rarely = {
        "dummy_procedure": {"seconds_between_datapoints": 7200},
        "system_checks": {"seconds_between_checks": 7200},
    }
    use_tenta(node, broker, **rarely)
    pids = [unit_property(node, service, "MainPID") for service in SERVICES]

    def is_idle() -> bool:
        """For once: what they do at their start may go on for a while on a machine that is busy."""
        before, until = wake_ups(node, pids), time.monotonic() + IDLE_SECONDS
        node.wait_for(lambda: time.monotonic() > until, IDLE_SECONDS + 5, "some time to pass")
        per_second = (wake_ups(node, pids) - before) / IDLE_SECONDS
        print(f"{per_second:.2f} context switches/s")
        return per_second <= MOST_WAKE_UPS

    recorder.wait_for_element("measurements", 10, "the vital signs")
    node.wait_for(is_idle, IDLE_SECONDS, "the services to idle")


def wake_ups(node: Node, pids: list[str]) -> int:
    """Context switches of all threads; not those by which the machine's other work takes the processor away."""
    tasks = [task for pid in pids for task in node.path(f"/proc/{pid}/task").glob("*/status")]
    lines = [line for task in tasks for line in task.read_text().splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))


def test_what_is_sent_again_comes_with_its_own_times(node: Node, broker: Broker, recorder: Recorder) -> None:
    """Asked for by root, who becomes `ivy` for it, and done by the backend, which is another user."""
    use_tenta(node, broker, dummy_procedure={"seconds_between_datapoints": 1})

    def times() -> list[float]:
        return [e["timestamp"] for e in recorder.elements("measurements") if "random_walk_position" in e["value"]]

    def repeated() -> int:
        return sum(times().count(each) > 1 for each in set(times()))

    node.wait_for(lambda: len(times()) >= 5, 30, "samples at the broker")
    node.run(["ivy", "resend", "--since", "-1h", "--key", "random_walk*"])
    status = node.wait_for(lambda: done(node), 60, "all to be sent again")
    assert status["sent"] == status["messages"] >= 5
    node.wait_for(lambda: repeated() >= status["messages"], 10, "each sample a second time")
    owners = node.run(["stat", "-c", "%U:%G", f"{DATA}/resend.json", f"{DATA}/resend-progress.json"]).stdout
    assert owners.split() == ["ivy:ivy", "ivy-backend:ivy"]


def done(node: Node) -> dict[str, Any] | None:
    """What `ivy queue` says of what is sent again, once all was."""
    shown: dict[str, Any] = json.loads(node.run(["ivy", "queue", "--json"]).stdout)["resend"]
    return shown if shown["is_done"] else None
