"""A broker that does not take a certain message, as no Mosquitto does: it names it, or breaks the connection."""

import json
import math
import time

import pytest
from testbed.waiting import wait_for

from tests.broker.fake import Broker5, Picky
from tests.broker.trials import try_out
from tests.support.backend_node import MakeNode, Node, data_message, ended

HASTY = {"to_try_again": 0.02}
CODES = {"payload format invalid": 0x99, "topic name invalid": 0x90, "packet too large": 0x95, "unspecified": 0x80}


def _aside(node: Node) -> list[tuple[float, int]]:
    """What is set aside: its number, and how often it was tried again."""
    rows = node.execute("SELECT message_body, tries FROM POISON ORDER BY internal_id")
    return [(json.loads(body)["data"]["number"], tries) for body, tries in rows]


@pytest.mark.parametrize("code", CODES.values(), ids=CODES)
def test_what_is_named_is_found_without_an_end_of_the_connection(make_node: MakeNode, code: int) -> None:
    with Picky(code) as broker:
        node = make_node(broker.port)
        node.config["logging_verbosity"]["message_sending"] = "WARNING"
        node.write_config(node.config)
        node.fill(data_message(number=number) for number in [*range(20), 13.5, *range(20, 200)])
        node.start()
        node.wait_until_empty(30)
        assert sorted(broker.numbers()) == list(range(200))
        assert _aside(node) == [(13.5, 0)]
        assert broker.connections == 1
        assert len(broker.refused) <= math.log2(50) + 2
        logs = [element["message"] for _, element in broker.arrived if "message" in element]
        assert len(logs) == 1 and "A message was set aside" in logs[0]


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_without_a_reason_few_connections_break(make_node: MakeNode, protocol: str) -> None:
    with Picky(None) as broker:
        node = make_node(broker.port, protocol=protocol)
        node.fill(data_message(number=number) for number in [*range(20), 13.5, *range(20, 50)])
        node.start(hurry={**HASTY, "for_a_witness": 0.1})
        node.wait_until_empty(60)
        assert sorted(broker.numbers()) == list(range(50))
        assert broker.breaks <= math.log2(51) + 1
        assert _aside(node) == [(13.5, 0)]


def test_a_backlog_and_live_samples_do_not_wait_for_that(make_node: MakeNode) -> None:
    with Picky(None) as broker:
        # Slow, or it might be over before something is added.
        node = make_node(broker.port, max_parallel_messages=10, max_messages_per_second=2_500)
        newest = [13.5, *range(5001, 5010)]
        node.fill([data_message(number=number) for number in [*range(20, 5000), *newest]])
        node.start(hurry=HASTY)
        wait_for(lambda: broker.breaks >= 1, 10, "the first break")
        node.add(data_message(number=6000))
        wait_for(lambda: 6000 in broker.numbers(), 10, "a live sample")
        assert len(broker.numbers()) < 4000
        node.wait_until_empty(60)
        order = broker.numbers()
        assert order.index(5009) < 4000
        assert sorted(order) == [*range(20, 5000), *newest[1:], 6000]


def test_one_that_comes_alone_is_set_aside_when_others_get_through(make_node: MakeNode) -> None:
    with Picky(0x99) as broker:
        node = make_node(broker.port)
        node.start()
        node.wait_until_connected()
        node.add(data_message(number=13.5))
        wait_for(lambda: broker.refused, 10, "the refusal")
        assert _aside(node) == []
        node.add(data_message(number=1))
        node.wait_until_empty()
        assert _aside(node) == [(13.5, 0)]


def test_one_that_comes_alone_is_not_sent_again_and_again(make_node: MakeNode) -> None:
    with Picky(0x99) as broker:
        node = make_node(broker.port)
        node.add(data_message(number=13.5))
        node.start(hurry={"of_a_suspect": 0.4})
        wait_for(lambda: len(broker.refused) == 4, 20, "the third of the tries that come after it")
        assert node.queue_length() == 1
        broker.poison = set()
        node.wait_until_empty(20)
        assert broker.refused == [broker.refused[0]] * len(broker.refused) and len(broker.refused) <= 5
        assert broker.connections == 1


def test_a_platform_that_takes_nothing_costs_no_sample(make_node: MakeNode) -> None:
    """A device profile that wants another form, say: it is not the messages."""
    with Picky(0x99) as broker:
        broker.poison = set(range(100))
        node = make_node(broker.port)
        node.fill(data_message(number=number) for number in range(100))
        node.start(hurry={"to_probe": 0.1, "longest_to_probe": 0.5})
        wait_for(lambda: node.link.get("troubles"), 20, "the trouble")
        assert "Payload format invalid" in node.link["troubles"][0]
        assert node.queue_length() == 100 and _aside(node) == []
        broker.poison = set()
        node.wait_until_empty(20)
        assert sorted(broker.numbers()) == list(range(100)) and _aside(node) == []
        assert broker.connections == 1


def test_what_is_set_aside_is_tried_again_and_given_up_in_the_end(make_node: MakeNode) -> None:
    with Picky(0x99) as broker:
        node = make_node(broker.port)
        node.add(*(data_message(number=number) for number in [1, 13.5, 2]))
        node.start(hurry={"between_retries": 0.5, "between_looks_at_retries": 0.1, "between_losses": 0.2})
        number = 100
        while node.execute("SELECT COUNT(*) FROM DROPPED WHERE variant = 'poison'") == [(0,)]:
            node.add(data_message(number=number))
            number += 1
            node.wait_until_empty()
        assert len([each for each in broker.refused if len(each) == 1]) >= 7
        assert node.execute("SELECT count FROM DROPPED WHERE variant = 'poison'") == [(1,)]
        assert _aside(node) == []
        told = lambda: [e["message"] for _, e in list(broker.arrived) if "given up" in e.get("message", "")]  # noqa: E731
        wait_for(told, 10, "the report")
        assert "13.5" in node.archive()


def test_what_is_set_aside_is_delivered_once_the_platform_takes_it(make_node: MakeNode) -> None:
    """Also by another run of the backend, of which the first knew nothing."""
    with Picky(0x99) as broker:
        node = make_node(broker.port)
        node.fill(data_message(number=number) for number in [1, 13.5, 2])
        process = node.start()
        wait_for(lambda: _aside(node) == [(13.5, 0)], 20, "the message to be set aside")
        process.kill()
        ended(process)
        broker.poison = set()
        node.execute("UPDATE POISON SET next_try = 0")
        node.start(hurry={"between_looks_at_retries": 0.1})
        wait_for(lambda: 13.5 in broker.numbers(), 20, "the next try")
        wait_for(lambda: _aside(node) == [], 20, "its end")
        assert set(broker.numbers()) == {1, 2, 13.5}


def test_what_the_broker_of_a_trial_does_not_take_stays_for_the_accepted_one(make_node: MakeNode) -> None:
    with Picky(0x99) as broker:
        node = make_node(broker.port)
        try_out(node, host="the.accepted.one")
        node.add(*(data_message(number=number) for number in [1, 13.5, 2]))
        node.start()
        wait_for(lambda: set(broker.numbers()) == {1, 2}, 20, "the others")
        number = 3
        while [13.5] not in [[e["value"]["number"] for e in each] for each in list(broker.refused)]:
            node.add(data_message(number=number))
            number += 1
        node.add(data_message(number=number))
        wait_for(lambda: number in broker.numbers(), 20, "another one")
        assert _aside(node) == []
        assert node.queue_length() == number + 1


def test_a_message_that_is_larger_than_the_broker_takes_is_set_aside(make_node: MakeNode) -> None:
    with Broker5(maximum_packet_size=2000) as broker:
        node = make_node(broker.port)
        large = {f"key_{number}": number for number in range(500)}
        node.fill([data_message(number=1), data_message(number=13.5, **large), data_message(number=2)])
        node.start()
        node.wait_until_empty(20)
        assert sorted(broker.numbers()) == [1, 2]
        assert _aside(node) == [(13.5, 0)]
        assert broker.connections == 1
        assert "no more than 2000 bytes" in node.log


def test_a_broker_that_takes_no_message_as_large_as_any_costs_no_sample(make_node: MakeNode) -> None:
    """What its admin has set is no reason to empty a backlog."""
    large = {f"key_{number}": number for number in range(500)}
    with Broker5(maximum_packet_size=2000) as broker:
        node = make_node(broker.port)
        node.fill(data_message(number=number, **large) for number in range(50))
        node.start(hurry={"to_probe": 0.1, "longest_to_probe": 0.2})
        wait_for(lambda: node.link.get("troubles"), 20, "the trouble")
        assert "no more than 2000 bytes" in node.link["troubles"][0]
        time.sleep(1)  # some probes
        assert node.queue_length() == 50 and _aside(node) == [] and broker.topics == []
        node.add(data_message(number=1000))
        wait_for(lambda: broker.numbers() == [1000], 20, "one that is small enough")
        broker.set_terms(maximum_packet_size=100_000)
        broker.cut()
        node.wait_until_empty(20)
        assert node.link["troubles"] == []
    assert len(_aside(node)) <= 4
    assert len(broker.numbers()) + len(_aside(node)) == 51


def test_messages_that_are_too_large_keep_no_older_ones_from_being_sent(make_node: MakeNode) -> None:
    """Where nothing new comes that is small enough to open the topic again."""
    large = {f"key_{number}": number for number in range(500)}
    with Broker5(maximum_packet_size=2000) as broker:
        node = make_node(broker.port)
        node.fill(data_message(number=number) for number in range(3))
        node.fill(data_message(number=number, **large) for number in range(100, 110))
        node.start(hurry={"to_probe": 0.1, "longest_to_probe": 0.2})
        wait_for(lambda: sorted(broker.numbers()) == [0, 1, 2], 20, "the small ones")
