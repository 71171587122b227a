"""`ivy resend` up to a real broker: with their own times, behind all that waits, also after a kill."""

import datetime
import json
import math
import signal
import subprocess
import time
from collections.abc import Iterable
from typing import Any

import pytest
from testbed.waiting import wait_for

from tests.broker.fake import Broker5, Picky, SparingBroker
from tests.support.backend_node import MakeNode, Node, config_message, data_message, ended, wake_ups
from tests.support.recorder import Recorder

OFTEN = {"between_reports": 0.1}
BEGAN = datetime.datetime(2026, 10, 1, tzinfo=datetime.UTC).timestamp()


def _archive(node: Node, numbers: Iterable[float]) -> None:
    """Write samples that were sent long ago: a minute lies between each two."""
    directory = node.data / "messages"
    directory.mkdir(exist_ok=True)
    days: dict[datetime.date, list[str]] = {}
    for place, number in enumerate(numbers):
        timestamp = BEGAN + 60 * place
        body = json.dumps(data_message(number=number)).replace('"', '""')
        day = datetime.datetime.fromtimestamp(timestamp, datetime.UTC).date()
        days.setdefault(day, ["timestamp,message_body\n"]).append(f'{timestamp},"{body}"\n')
    for day, lines in days.items():
        (directory / f"{day}.csv").write_text("".join(lines))


def _ivy(node: Node, *arguments: str) -> str:
    command = node.spawn(["-m", "ivy", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    output, _ = command.communicate(timeout=240)
    assert command.returncode == 0, output
    return output


def _progress(node: Node) -> dict[str, Any]:
    shown: dict[str, Any] = json.loads(_ivy(node, "queue", "--json"))["resend"]
    return shown


def _numbers(elements: list[dict[str, Any]]) -> list[int]:
    return [element["value"]["number"] for element in elements if "number" in element["value"]]


def test_what_is_sent_again_survives_a_kill_with_its_own_times(node: Node, recorder: Recorder) -> None:
    count = 20_000
    _archive(node, range(count))
    node.add(data_message(number=-1))  # makes the queue
    lines = node.archive()
    backend = node.start(hurry=OFTEN)
    node.wait_until_empty()
    _ivy(node, "resend", "--since", "2026-10-01", "--until", "2026-11-01", "--kind", "data")
    wait_for(lambda: _sent(node) > 0, 20, "the progress to be kept", interval=0.01)
    backend.send_signal(signal.SIGKILL)
    ended(backend)
    kept = _sent(node)
    assert kept < count, "it was killed too late"
    recorder.publish("marker", "")  # what was acknowledged before came before it
    wait_for(lambda: any(each.topic == "marker" for each in recorder.arrivals), 10, "the marker")
    already = len(recorder.elements("measurements"))
    node.add(data_message(number=-2))
    node.start(hurry=OFTEN)
    wait_for(lambda: _progress(node)["is_done"], 60, "all to be sent again", interval=0.5)
    recorder.publish("last", "")  # what was acknowledged before came before it
    wait_for(lambda: any(each.topic == "last" for each in recorder.arrivals), 10, "the last of all")
    numbers = _numbers(recorder.elements("measurements"))
    assert sorted(set(numbers)) == list(range(-2, count))
    assert min(number for number in numbers[already:] if number >= 0) >= kept, "it went on where it was"
    for element in recorder.elements("measurements"):
        if element["value"]["number"] >= 0:
            assert element["timestamp"] == BEGAN + 60 * element["value"]["number"]
    assert _progress(node)["sent"] == _progress(node)["messages"] == count
    assert node.queue_length() == 0
    assert len(node.archive().splitlines()) == len(lines.splitlines()) + 1  # -2


def _sent(node: Node) -> int:
    try:
        return int(json.loads((node.data / "resend-progress.json").read_text())["sent"])
    except FileNotFoundError:
        return 0


def test_all_that_waits_goes_first(make_node: MakeNode) -> None:
    with SparingBroker() as broker:
        node = make_node(broker.port, max_parallel_messages=5)
        _archive(node, range(30))
        node.add(*(data_message(number=number) for number in range(100, 120)))
        node.start(hurry=OFTEN)
        wait_for(lambda: broker.unacknowledged == 5, 10, "a full window")
        _ivy(node, "resend", "--since", "2026-10-01", "--until", "2026-11-01")
        while len(broker.received) < 40:
            broker.acknowledge_one()
            wait_for(lambda: broker.unacknowledged > 0, 10, "more messages")
        assert all(number >= 100 for number in _numbers(broker.received)[:20])
        assert all(number < 30 for number in _numbers(broker.received)[20:])
        wait_for(lambda: broker.unacknowledged == 5, 10, "a full window")
        before = len(broker.received)
        node.add(data_message(number=200))
        broker.acknowledge_one()
        wait_for(lambda: len(broker.received) > before, 10, "the live message")
        assert _numbers(broker.received[before:])[0] == 200
        broker.generous = True
        while broker.unacknowledged:
            broker.acknowledge_one()
        wait_for(lambda: _progress(node)["is_done"], 20, "all to be sent again")
        assert sorted(_numbers(broker.received)) == [*range(30), *range(100, 120), 200]
        assert broker.most_unacknowledged == 5


def test_who_is_away_from_the_broker_searches_nothing(make_node: MakeNode) -> None:
    """Nobody could be sent what is found; and a node may be without a network, on a battery, for days."""
    with SparingBroker() as broker:
        node = make_node(broker.port)
        _archive(node, range(200_000))
        node.add(data_message(rare=1))
        backend = node.start()
        wait_for(lambda: broker.unacknowledged == 1, 10, "the message of the queue")
        _ivy(node, "resend", "--since", "2026-10-01", "--key", "rare")
        broker.acknowledge_one()
        node.wait_until_empty()
        wait_for(lambda: "Sending messages of the archive again" in node.log, 10, "the search to begin")
    wait_for(lambda: not node.link["connected"], 10, "the connection to be lost")
    before = wake_ups(backend.pid)
    time.sleep(2)
    assert wake_ups(backend.pid) - before < 20
    assert not _progress(node)["is_done"], "it was not searching any more"


@pytest.mark.parametrize("code", [0x99, None], ids=["named", "breaks"])
def test_a_message_that_the_broker_does_not_take_blocks_nothing(make_node: MakeNode, code: int | None) -> None:
    with Picky(code) as broker:
        node = make_node(broker.port)
        _archive(node, [*range(13), 13.5, *range(14, 20)])
        node.add(data_message(number=100))
        node.start(hurry={"to_try_again": 0.02, "for_a_witness": 600.0, "between_reports": 0.1})
        node.wait_until_empty()
        _ivy(node, "resend", "--since", "2026-10-01", "--until", "2026-11-01")
        wait_for(lambda: broker.refused or broker.breaks, 10, "the first refusal")
        live = 100  # who is suspected waits for one that gets through, after each connection that broke
        while not _progress(node)["is_done"]:
            live += 1
            node.add(data_message(number=live))
            wait_for(lambda: live in broker.numbers(), 10, "a live message")  # noqa: B023
        assert len(broker.refused) + broker.breaks <= math.log2(20) + 2
        assert broker.connections == 1 + broker.breaks
        assert sorted(broker.numbers()) == [*range(13), *range(14, 20), *range(100, live + 1)]
        assert node.log.count("A message of the archive is not sent again") == 1
        assert _progress(node)["sent"] == 20
        assert node.execute("SELECT COUNT(*) FROM POISON") == [(0,)]


class _Deaf(Broker5):
    """Has nobody to give some messages to."""

    nobody_at = "acknowledgments/"

    def judge(self, topic: str, elements: list[Any]) -> int:
        return 16 if topic.startswith(self.nobody_at) else 0


def test_a_topic_at_which_nobody_listens_does_not_hold_up_the_others(make_node: MakeNode) -> None:
    with _Deaf() as broker:
        node = make_node(broker.port)
        _archive(node, range(30))
        node.add(config_message("accepted", 3))
        node.start(hurry=OFTEN)
        wait_for(lambda: node.link.get("troubles"), 10, "the refusal")
        _ivy(node, "resend", "--since", "2026-10-01", "--until", "2026-11-01")
        wait_for(lambda: _progress(node)["is_done"], 20, "all to be sent again")
        assert sorted(broker.numbers()) == list(range(30))
        assert node.queue_length() == 1


def test_where_nobody_listens_one_is_sent_again_now_and_then(make_node: MakeNode) -> None:
    with _Deaf() as broker:
        broker.nobody_at = "measurements/"
        node = make_node(broker.port)
        _archive(node, range(30))
        node.add()
        node.start(hurry={**OFTEN, "to_probe": 0.1, "longest_to_probe": 60.0})
        node.wait_until_connected()
        _ivy(node, "resend", "--since", "2026-10-01", "--until", "2026-11-01")
        wait_for(lambda: len(broker.refused) >= 8, 20, "some probes")
        sizes = [len(elements) for elements in list(broker.refused)]
        assert sum(sizes) <= 30 + len(sizes), "each of them once, then one at a time"
        broker.nobody_at = "nowhere"
        broker.cut()
        wait_for(lambda: _progress(node)["is_done"], 20, "all to be sent again")
        assert sorted(broker.numbers()) == list(range(30))


def test_a_stop_does_not_wait_for_it(make_node: MakeNode) -> None:
    with SparingBroker() as broker:
        node = make_node(broker.port, max_parallel_messages=5, max_drain_time=600)
        _archive(node, range(1000))
        node.add(data_message(number=2000))
        backend = node.start(hurry=OFTEN)
        wait_for(lambda: broker.unacknowledged == 1, 10, "the message of the queue")
        broker.acknowledge_one()
        node.wait_until_empty()
        _ivy(node, "resend", "--since", "2026-10-01", "--until", "2026-11-01")
        wait_for(lambda: broker.unacknowledged == 5, 10, "a full window")
        backend.terminate()
        wait_for(lambda: "Stopping" in node.log, 10, "the backend to begin to stop")
        while broker.unacknowledged:
            broker.acknowledge_one()
        assert ended(backend) == 0
        assert _sent(node) == 5 and len(broker.received) == 6


def test_an_end_is_seen_at_once(make_node: MakeNode) -> None:
    with SparingBroker() as broker:
        node = make_node(broker.port, max_parallel_messages=5)
        _archive(node, range(1000))
        node.add(data_message(number=2000))
        node.start(hurry=OFTEN)
        wait_for(lambda: broker.unacknowledged == 1, 10, "the message of the queue")
        broker.generous = True
        broker.acknowledge_one()
        node.wait_until_empty()
        broker.generous = False
        _ivy(node, "resend", "--since", "2026-10-01", "--until", "2026-11-01")
        wait_for(lambda: broker.unacknowledged == 5, 10, "a full window")
        _ivy(node, "resend", "--cancel")
        node.add(data_message(number=2001))
        broker.generous = True
        while broker.unacknowledged:
            broker.acknowledge_one()
        node.wait_until_empty()
        assert _numbers(broker.received) == [2000, 0, 1, 2, 3, 4, 2001] and _progress(node) is None
