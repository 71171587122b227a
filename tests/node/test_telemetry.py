"""What arrives at a real Mosquitto from a node in normal operation, and how soon."""

import json
import statistics
import time

import pytest
from testbed.bed import Node
from testbed.broker import Broker

from tests.support.backend_node import PASSWORD
from tests.support.installed import unit_property, use_tenta
from tests.support.recorder import Recorder
from tests.support.validators import tenta

LATENCY_SAMPLES = 20
INTERVAL = 10  # seconds between samples in the config's template
MOST_DELAY = 0.5  # seconds: whoever polled would need longer. How long it really takes: tests.benchmarks
MOST_WAKE_UPS = 1.0  # per second, of all services together, while nothing is due
MOST_WRITTEN = 24e3  # bytes of a sample until its removal: 15 to 19 here; a sync more would double that
IDLE_SECONDS = 20
SERVICES = ["ivy-dummy-procedure", "ivy-system-checks", "ivy-tenta"]


def test_telemetry_has_tentas_exact_form(node: Node, broker: Broker, recorder: Recorder) -> None:
    use_tenta(node, broker, dummy_procedure={"seconds_between_datapoints": 1})
    element = recorder.wait_for_element("measurements", 10, "a step of the walk", "random_walk_position")
    assert abs(element["timestamp"] - time.time()) < 10
    recorder.wait_for_element(
        "measurements", 10, "the vital signs", "last_5_min_load_percent", "disk_usage_percent"
    )
    for arrival in recorder.arrivals:
        tenta.check(arrival.topic, arrival.payload, arrival.qos, "n1")
    status = unit_property(node, "ivy-tenta", "StatusText")
    assert status.startswith(f"connected to {broker.address}:1883, ")


def test_the_first_message_does_not_wait_for_an_interval_to_pass(
    node: Node, broker: Broker, recorder: Recorder
) -> None:
    use_tenta(node, broker)
    node.run(["systemctl", "stop", "ivy.target"])
    recorder.arrivals.clear()
    node.run(["systemctl", "start", "--no-block", "ivy.target"])
    recorder.wait_for_element("measurements", INTERVAL, "the first message")


def test_a_sample_is_soon_at_the_broker_and_wears_out_no_card(
    node: Node, broker: Broker, recorder: Recorder
) -> None:
    use_tenta(node, broker, dummy_procedure={"seconds_between_datapoints": 1})

    def delays() -> list[float]:
        steps = [a for a in list(recorder.arrivals) if b"random_walk_position" in a.payload]
        return [a.time - json.loads(a.payload)[-1]["timestamp"] for a in steps]

    node.wait_for(lambda: len(delays()) >= 2, 15, "first samples at the broker")
    sent, written = len(delays()), bytes_written(node)
    node.wait_for(lambda: len(delays()) >= LATENCY_SAMPLES, LATENCY_SAMPLES + 15, "samples at the broker")
    per_sample = (bytes_written(node) - written) / (len(delays()) - sent)
    print(f"{statistics.median(delays()) * 1e3:.1f} ms in the median, {per_sample / 1e3:.1f} kB written per sample")
    assert statistics.median(delays()) <= MOST_DELAY, sorted(delays())
    assert 1000 < per_sample <= MOST_WRITTEN


def bytes_written(node: Node) -> int:
    """What the services that a sample passes have written to the disk so far."""
    pids = [unit_property(node, service, "MainPID") for service in ("ivy-dummy-procedure", "ivy-tenta")]
    counts = [node.path(f"/proc/{pid}/io").read_text() for pid in pids]
    return sum(int(count.partition("\nwrite_bytes: ")[2].split()[0]) for count in counts)


def test_wrong_credentials_are_named_and_not_hammered(node: Node, broker: Broker, recorder: Recorder) -> None:
    wrong = {"host": broker.address, "port": 1883, "client_id": "n1", "username": "n1", "password": PASSWORD + "?"}
    with pytest.raises(Exception, match="waited"):
        use_tenta(node, broker, backend={"mqtt_connection": wrong})
    assert "refused the connection: Not authorized" in unit_property(node, "ivy-tenta", "StatusText")
    said = node.journal("--unit=ivy-tenta", "--grep=refused", "--output=cat")
    assert said.count("Not authorized") == 1
    assert PASSWORD not in node.journal()
    assert node.run(["ivy", "status"], check=False).returncode == 1


def test_nothing_wakes_up_while_nothing_is_due(node: Node, broker: Broker, recorder: Recorder) -> None:
    rarely = {
        "dummy_procedure": {"seconds_between_datapoints": 7200},
        "system_checks": {"seconds_between_checks": 7200},
    }
    use_tenta(node, broker, **rarely)
    recorder.wait_for_element("measurements", 10, "the vital signs")
    pids = [unit_property(node, service, "MainPID") for service in SERVICES]
    before = wake_ups(node, pids)
    until = time.monotonic() + IDLE_SECONDS
    node.wait_for(lambda: time.monotonic() > until, IDLE_SECONDS + 5, "the services to idle")
    per_second = (wake_ups(node, pids) - before) / IDLE_SECONDS
    print(f"{per_second:.2f} context switches/s")
    assert per_second <= MOST_WAKE_UPS


def wake_ups(node: Node, pids: list[str]) -> int:
    """Context switches of all threads; not those by which the machine's other work takes the processor away."""
    tasks = [task for pid in pids for task in node.path(f"/proc/{pid}/task").glob("*/status")]
    lines = [line for task in tasks for line in task.read_text().splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))
