"""From the queue to a real broker: nothing is lost or waits behind what cannot be sent; the newest goes first."""

import collections
import csv
import json
from collections.abc import Iterable
from typing import Any

from testbed.broker import Broker
from testbed.waiting import wait_for

from tests.broker.fake import SparingBroker
from tests.support.backend_node import SENSOR, MakeNode, Node, config_message, data_message
from tests.support.recorder import Recorder
from tests.support.validators import tenta

OFTEN = {"between_reports": 0.1}
WINDOW = 500  # max_parallel_messages
LOG = {"variant": "log", "level": "ERROR", "subject": "s", "body": "b"}


def _numbers(elements: Iterable[dict[str, Any]]) -> list[int]:
    return [element["value"]["number"] for element in elements if "number" in element.get("value", {})]


def _backlog(length: int) -> list[dict[str, Any]]:
    return [data_message(number=number) for number in range(length)]


def _wait_for_turns(node: Node) -> None:
    """Wait until the backend has looked at everything there is: it reports in every turn, when started `OFTEN`."""
    seen = len(node.status.texts)
    wait_for(lambda: len(node.status.texts) >= seen + 3, 10, "the backend to report")


def test_everything_arrives_in_tentas_form_with_qos_1(node: Node, recorder: Recorder) -> None:
    node.add(data_message(number=1, text="left out"), LOG, config_message("accepted", 2), data_message(number=2))
    node.start()
    node.wait_until_empty()
    kinds = ("measurements", "logs", "acknowledgments")
    wait_for(lambda: [len(recorder.elements(kind)) for kind in kinds] == [2, 1, 1], 5, "all messages")
    for arrival in recorder.arrivals:
        tenta.check(arrival.topic, arrival.payload, arrival.qos, SENSOR)


def test_timestamps_are_those_of_the_sampling(node: Node, recorder: Recorder) -> None:
    node.add(data_message(number=1), LOG)
    node.start()
    node.wait_until_empty()
    wait_for(lambda: recorder.elements("measurements") and recorder.elements("logs"), 5, "both messages")
    sampled = [float(row["timestamp"]) for row in csv.DictReader(node.archive().splitlines())]
    sent = [recorder.elements(kind)[0]["timestamp"] for kind in ("measurements", "logs")]
    assert sent == sampled


def test_a_message_leaves_the_queue_only_when_it_is_acknowledged(
    node: Node, broker: Broker, recorder: Recorder
) -> None:
    node.start(hurry=OFTEN)
    node.wait_until_connected()
    broker.pause()
    node.add(*_backlog(20))
    _wait_for_turns(node)
    assert node.queue_length() == 20
    broker.resume()
    node.wait_until_empty()
    wait_for(lambda: len(recorder.elements("measurements")) >= 20, 5, "all messages")
    assert sorted(_numbers(recorder.elements("measurements"))) == list(range(20))


def test_what_tenta_has_no_word_for_stands_in_nobodys_way(node: Node, recorder: Recorder) -> None:
    node.fill(config_message("startup", 2) for _ in range(300))
    node.fill(data_message(text="no number") for _ in range(300))
    node.start()
    node.add(data_message(number=1))
    recorder.wait_for_element("measurements", 5, "the sample", '"number": 1')
    node.wait_until_empty()
    assert _numbers(recorder.elements("measurements")) == [1]
    assert recorder.elements("logs") == []  # and nothing is said of it where it would cost traffic


def test_the_newest_go_first(make_node: MakeNode, broker: Broker, recorder: Recorder) -> None:
    node = make_node(broker.port, max_messages_per_second=2_500)  # or it might be over before something is added
    node.fill(_backlog(5_000))
    node.start()
    wait_for(lambda: recorder.arrivals, 10, "the first messages")
    node.add(data_message(number=-1))
    node.wait_until_empty(60)
    wait_for(lambda: len(recorder.elements("measurements")) == 5_001, 10, "all messages", interval=0.5)
    numbers = _numbers(recorder.elements("measurements"))
    assert set(numbers[:50]) <= set(range(4_900, 5_000))
    assert numbers.index(-1) < 4_500
    assert sorted(numbers) == list(range(-1, 5_000))


def test_a_sample_waits_for_the_end_of_no_whole_window(make_node: MakeNode) -> None:
    """What is sampled while others are made ready goes next."""
    with SparingBroker() as broker:
        node = make_node(broker.port, max_parallel_messages=WINDOW)
        broker.generous = True  # until it is known that the line carries as much
        node.fill(_backlog(20 * WINDOW))
        node.start()
        wait_for(lambda: len(broker.received) > 5 * WINDOW, 10, "some windows")
        broker.generous = False
        wait_for(lambda: broker.unacknowledged == WINDOW, 10, "a full window")
        for _ in broker.waiting:
            broker.acknowledge_one()
        wait_for(lambda: broker.unacknowledged == WINDOW, 10, "the next one")
        assert max(broker.waiting) <= WINDOW / 2


def test_as_many_are_under_way_as_the_config_says(make_node: MakeNode) -> None:
    with SparingBroker() as broker:
        node = make_node(broker.port, max_parallel_messages=10_000)
        broker.generous = True
        node.fill(_backlog(50_000))
        node.start()
        wait_for(lambda: len(broker.received) > 10_000, 30, "some thousands")
        broker.generous = False
        wait_for(lambda: broker.unacknowledged == 10_000, 30, "a full window")


def test_no_more_than_the_window_is_ever_unacknowledged(make_node: MakeNode) -> None:
    with SparingBroker() as broker:
        node = make_node(broker.port, max_parallel_messages=7)
        node.fill([*_backlog(20), LOG, config_message("accepted", 3), LOG, *_backlog(20)])
        node.start(hurry=OFTEN)
        wait_for(lambda: broker.unacknowledged == 7, 10, "a full window")
        node.add(*_backlog(20))
        _wait_for_turns(node)
        while len(broker.received) < 63:
            broker.acknowledge_one()
            wait_for(lambda: broker.unacknowledged > 0, 10, "more messages")
        broker.generous = True
        while broker.unacknowledged:
            broker.acknowledge_one()
        node.wait_until_empty()
        assert broker.most_unacknowledged == 7


def test_at_most_one_window_comes_twice_when_the_connection_breaks(make_node: MakeNode) -> None:
    with SparingBroker() as broker:
        node = make_node(broker.port, max_parallel_messages=10)
        node.fill(_backlog(100))
        node.start()
        wait_for(lambda: broker.unacknowledged == 10, 10, "a full window")
        broker.generous = True
        broker.cut()
        node.wait_until_empty()
        times = collections.Counter(_numbers(broker.received))
        assert sorted(times) == list(range(100))
        assert sum(times.values()) == 110
        assert broker.most_unacknowledged == 10


def test_duplicates_after_a_kill_of_the_broker_are_bounded_by_one_window(
    node: Node, broker: Broker, recorder: Recorder
) -> None:
    node.fill(_backlog(20_000))
    node.start()
    wait_for(lambda: recorder.arrivals, 10, "the first messages")
    broker.kill()
    assert node.queue_length() > 0
    broker.start()
    node.wait_until_empty(30)
    times = collections.Counter(_numbers(recorder.elements("measurements")))
    assert sum(times.values()) - len(times) <= WINDOW


def test_at_most_one_window_comes_twice_when_the_backend_is_killed(node: Node, recorder: Recorder) -> None:
    node.fill(_backlog(20_000))
    first = node.start()
    wait_for(lambda: recorder.arrivals, 10, "the first messages")
    first.kill()
    assert node.queue_length() > 0
    node.start()
    node.wait_until_empty(30)
    wait_for(lambda: set(_numbers(recorder.elements("measurements"))) == set(range(20_000)), 10, "all", 0.5)
    assert len(recorder.elements("measurements")) <= 20_000 + WINDOW


def test_a_sample_wakes_the_backend(node: Node, recorder: Recorder) -> None:
    node.start(hurry={"between_reports": 60})
    node.wait_until_connected()
    node.add(data_message(number=1))
    recorder.wait_for_element("measurements", 5, "the sample", '"number": 1')
    assert json.loads(recorder.arrivals[0].payload)[0]["value"]["number"] == 1


def test_what_was_dropped_is_told_when_there_is_a_link_and_cannot_be_dropped(
    node: Node, recorder: Recorder
) -> None:
    node.add(data_message(number=1))
    node.execute("INSERT INTO DROPPED VALUES ('log', 10400, 0), ('archive', 7, 2)")
    node.start(hurry={"between_losses": 0.2})
    recorder.wait_for_element("logs", 10, "the report", "10400 log")
    assert "5 archive" in json.dumps(recorder.elements("logs"))
    wait_for(lambda: node.execute("SELECT COUNT(*) FROM DROPPED WHERE reported < count") == [(0,)], 10, "the note")
    node.stop_all()
    assert len(recorder.elements("logs")) == 1
    assert node.queue_length() == 0


def test_a_queue_that_somebody_holds_silences_nobody(node: Node, recorder: Recorder) -> None:
    node.add(data_message(number=1))
    node.start(hurry=OFTEN)
    node.wait_until_empty()
    with node.holding_the_queue():
        node.add(data_message(number=2))
        recorder.wait_for_element("measurements", 10, "the sample", '"number": 2')
        recorder.wait_for_element("logs", 10, "the report", "they wait in memory")
        # What it cannot remove it does not send again.
        node.add(data_message(number=3))
        recorder.wait_for_element("measurements", 10, "the sample", '"number": 3')
    node.add(data_message(number=4))
    recorder.wait_for_element("measurements", 10, "the sample", '"number": 4')
    node.wait_until_empty()
    assert _numbers(recorder.elements("measurements")) == [1, 2, 3, 4]
    archived = [json.loads(row["message_body"]) for row in csv.DictReader(node.archive().splitlines())]
    assert [body["data"]["number"] for body in archived if body["variant"] == "data"] == [1, 2, 3, 4]
