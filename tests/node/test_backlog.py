"""A long outage of the broker: the backlog drains fast, and live samples do not wait behind it."""

import statistics
import time

from testbed.bed import Node
from testbed.broker import Broker

from tests.support.installed import fill_queue, queue_length, unit_property, use_tenta
from tests.support.recorder import Recorder
from tests.support.sampling import add_sampler

BACKLOG = 100_000
LEAST_RATE = 2_000  # messages per second
MOST_DELAY = 0.2  # seconds; on a slow machine a tenth of what all takes


def backlog_arrived(recorder: Recorder) -> int:
    return sum(arrival.payload.count(b'"backlog"') for arrival in list(recorder.arrivals))


def test_a_backlog_drains_fast_and_live_samples_overtake_it(node: Node, broker: Broker, recorder: Recorder) -> None:
    use_tenta(node, broker, backend={"max_messages_per_second": 1_000_000})
    broker.stop()
    node.wait_for(
        lambda: not unit_property(node, "ivy-tenta", "StatusText").startswith("connected"), 30, "the outage"
    )
    fill_queue(node, BACKLOG)
    assert queue_length(node) >= BACKLOG
    add_sampler(node)
    broker.start()
    node.wait_for(lambda: backlog_arrived(recorder), 60, "the backlog to begin")
    began = time.time()
    node.wait_for(
        lambda: backlog_arrived(recorder) >= BACKLOG, BACKLOG / LEAST_RATE, "the backlog to drain in time"
    )
    drained = time.time()
    rate = BACKLOG / (drained - began)
    overtaking = [
        arrival.time - element["timestamp"]
        for arrival, element in recorder.timed_elements("measurements")
        if "life" in element["value"] and began < element["timestamp"] and arrival.time < drained
    ]
    print(f"{rate:.0f} messages/s, live samples after {1000 * statistics.median(overtaking):.0f} ms")
    assert statistics.median(overtaking) < max(MOST_DELAY, (drained - began) / 10)
    node.wait_for(lambda: queue_length(node) < 50, 10, "the queue to be empty")
    distinct = {
        element["value"]["backlog"]
        for element in recorder.elements("measurements")
        if "backlog" in element["value"]
    }
    assert len(distinct) == BACKLOG
