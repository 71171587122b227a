"""Config offers from a real broker: taken into the state, or refused without harm."""

import json

import pytest
from testbed.broker import Broker
from testbed.waiting import wait_for

from tests.broker.offers import TOPIC, offer
from tests.support.backend_node import SENSOR, Node, data_message, stop
from tests.support.recorder import Recorder


def _revisions(node: Node) -> list[int]:
    return [config["general"]["config_revision"] for config in node.pending()]


def _wait_for_revisions(node: Node, *revisions: int) -> None:
    wait_for(lambda: _revisions(node) == list(revisions), 10, f"the offers {revisions}")


def test_an_offer_becomes_pending(node: Node, recorder: Recorder) -> None:
    node.start()
    node.wait_until_connected()
    recorder.publish(TOPIC, offer(3, more={"a": [1, None]}))
    _wait_for_revisions(node, 3)
    [config] = node.pending()
    general = {"software_version": "1.0.1", "system_identifier": SENSOR, "config_revision": 3}
    assert config == {"general": general, "more": {"a": [1, None]}}
    wait_for(lambda: '""status"":""received""' in node.archive(), 5, "the answer")


def test_an_offer_from_before_the_start_becomes_pending(node: Node, recorder: Recorder) -> None:
    recorder.publish(TOPIC, offer(3), retain=True)
    node.start()
    _wait_for_revisions(node, 3)


def test_the_offer_that_came_last_waits_whatever_its_revision(node: Node, recorder: Recorder) -> None:
    node.start(hurry={"between_offers": 0.1})  # with a config of revision 2
    node.wait_until_connected()
    for revision in (1, 5, 4, 5, 2, 4):
        recorder.publish(TOPIC, offer(revision))
    _wait_for_revisions(node, 4)


def test_an_offer_that_is_held_back_is_stored_when_the_backend_is_stopped(node: Node, recorder: Recorder) -> None:
    process = node.start(hurry={"between_offers": 600})
    node.wait_until_connected()
    recorder.publish(TOPIC, offer(3))
    _wait_for_revisions(node, 3)
    recorder.publish(TOPIC, offer(4))
    recorder.publish(TOPIC, "no offer")  # as it is reported, the one before it has come
    wait_for(lambda: "A config offer was ignored" in node.log, 10, "both to come")
    stop(process, 30)
    assert _revisions(node) == [4]


def test_an_offer_that_cannot_be_stored_stops_no_message_and_is_tried_again(node: Node, recorder: Recorder) -> None:
    recorder.publish(TOPIC, offer(3), retain=True)
    lock = node.data / "state.lock"
    lock.mkdir()  # nobody gets hold of the state
    node.add(*(data_message(number=number) for number in range(200)))
    node.start(hurry={"between_reports": 0.1})
    wait_for(lambda: node.queue_length() == 0, 20, "the queue to be empty")
    wait_for(lambda: len(recorder.elements("measurements")) == 200, 10, "all of it at whoever listens")
    lock.rmdir()
    _wait_for_revisions(node, 3)


def test_an_offer_arrives_after_a_blip_of_the_broker(node: Node, broker: Broker, recorder: Recorder) -> None:
    node.start()
    node.wait_until_connected()
    before = node.link["since"]
    broker.restart()
    wait_for(lambda: node.link["connected"] and node.link["since"] > before, 10, "the connection to come back")
    recorder.publish(TOPIC, offer(3))
    _wait_for_revisions(node, 3)


MALFORMED = {
    "no JSON": "{",
    "an array": "[]",
    "deep nesting": "[" * 100_000,
    "no version": json.dumps({"revision": 3, "configuration": {"general": {}}}),
    "too deep for the state": offer(3, x=json.loads("[" * 199 + "]" * 199)),
    "NaN": offer(3, x=float("nan")),
    "infinity": offer(3, x=1.5).replace("1.5", "1e999"),
    "too large": offer(3, x="x" * 1_000_000),
}


@pytest.mark.parametrize("payload", MALFORMED.values(), ids=MALFORMED.keys())
def test_what_is_no_offer_is_reported_and_does_no_harm(node: Node, recorder: Recorder, payload: str) -> None:
    process = node.start()
    node.wait_until_connected()
    recorder.publish(TOPIC, payload)
    recorder.publish(TOPIC, payload)
    recorder.publish(TOPIC, offer(4))
    _wait_for_revisions(node, 4)
    recorder.wait_for_element("logs", 5, "the report", "A config offer was ignored")
    assert node.log.count("A config offer was ignored") == 1
    assert process.poll() is None
    assert [path.name for path in node.data.glob("backend/state.json*")] == ["state.json"]


def test_bytes_that_are_no_text_do_no_harm(node: Node, recorder: Recorder) -> None:
    process = node.start()
    node.wait_until_connected()
    recorder.publish(TOPIC, b"\xff\xfe\x00")
    recorder.publish(TOPIC, offer(4))
    _wait_for_revisions(node, 4)
    assert process.poll() is None


def test_a_retained_malformed_offer_is_reported_once(node: Node, broker: Broker, recorder: Recorder) -> None:
    recorder.publish(TOPIC, "{", retain=True)
    node.start()
    wait_for(lambda: "A config offer was ignored" in node.log, 10, "the report")
    before = node.link["since"]
    broker.restart()
    wait_for(lambda: node.link["connected"] and node.link["since"] > before, 10, "the connection to come back")
    recorder.publish(TOPIC, offer(3))
    _wait_for_revisions(node, 3)
    assert node.log.count("A config offer was ignored") == 1


def test_a_retained_malformed_offer_is_not_answered_at_each_start(node: Node, recorder: Recorder) -> None:
    recorder.publish(TOPIC, json.dumps({"revision": 7, "configuration": {}}), retain=True)
    for _ in range(3):
        process = node.start()
        node.wait_until_connected()
        wait_for(lambda: "A config offer was ignored" in node.log, 10, "the report")
        node.add(data_message(number=1))  # the retained offer comes before its acknowledgment
        node.wait_until_empty()
        process.terminate()
        process.wait()
    assert node.log.count("A config offer was ignored") == 1
    wait_for(lambda: recorder.elements("acknowledgments"), 10, "the answer at whoever listens")
    assert [element["revision"] for element in recorder.elements("acknowledgments")] == [7]


def test_an_offer_that_was_taken_back_is_no_trouble(node: Node, recorder: Recorder) -> None:
    node.start()
    node.wait_until_connected()
    recorder.publish(TOPIC, "", retain=True)
    recorder.publish(TOPIC, offer(3))
    _wait_for_revisions(node, 3)
    assert "ignored" not in node.log


def test_offers_do_not_pile_up_without_bound(node: Node, recorder: Recorder) -> None:
    node.start()
    node.wait_until_connected()
    for revision in range(3, 40):
        recorder.publish(TOPIC, offer(revision))
    _wait_for_revisions(node, 39)
