"""What every backend owes its node, whatever the platform: one suite for all of them."""

import collections
import csv
import json
import random
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from testbed.waiting import wait_for

from tests.broker.trials import try_out
from tests.support.backend_node import MakeNode, Node, config_message, data_message, ended, free_port
from tests.support.platforms import Platform, TentaPlatform, ThingsBoardPlatform, judged

HASTY = {"to_try_again": 0.02}
LOG = {"variant": "log", "level": "ERROR", "subject": "a subject", "body": "a body"}
GENERAL = {"software_version": "1.0.1"}


@pytest.fixture(params=["tenta", "thingsboard"])
def platform(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[Platform, None, None]:
    """Each platform in turn; at the end, everything that has arrived must have been in its form."""
    tenta = request.param == "tenta"
    platform: Platform = TentaPlatform(tmp_path / "broker", free_port()) if tenta else ThingsBoardPlatform()
    with judged(platform):
        yield platform


@pytest.fixture(params=["5", "3.1.1"])
def protocol(request: pytest.FixtureRequest) -> str:
    """Each version of MQTT in turn."""
    return str(request.param)


@pytest.fixture
def node(make_node: MakeNode, platform: Platform, protocol: str) -> Node:
    """A node that is configured for the platform, and for that version."""
    return make_node(platform.port, provider=platform.provider, protocol=protocol)


def _numbers(platform: Platform) -> list[Any]:
    return [values["number"] for _, values in platform.samples() if "number" in values]


def _revisions(node: Node) -> list[int]:
    return [config["general"]["config_revision"] for config in node.pending()]


def _wait_for_revisions(node: Node, *revisions: int) -> None:
    wait_for(lambda: _revisions(node) == list(revisions), 10, f"the offers {revisions}")


def _wait_for_reconnect(node: Node, since: float) -> None:
    wait_for(lambda: node.link["connected"] and node.link["since"] > since, 10, "the connection to come back")


def test_everything_arrives_with_the_time_of_the_sampling(node: Node, platform: Platform) -> None:
    node.add(data_message(number=1, text="t"), LOG, config_message("accepted", 2), data_message(number=2))
    node.start()
    node.wait_until_empty()
    wait_for(lambda: len(platform.samples()) == 2 and platform.logs() and platform.decisions(), 5, "all messages")
    assert _numbers(platform) == [1, 2]
    assert platform.logs() == ["a subject\na body"]
    assert platform.decisions() == [(True, 2)]
    sampled = [float(row["timestamp"]) for row in csv.DictReader(node.archive().splitlines())]
    sent = [time for time, _ in platform.samples()]
    assert sent == pytest.approx([sampled[0], sampled[3]], abs=0.001)


def test_a_backlog_arrives_whole_and_live_samples_go_first(node: Node, platform: Platform) -> None:
    node.config["backend"]["max_messages_per_second"] = 2_500  # or it might be over before something is added
    node.write_config(node.config)
    node.fill(data_message(number=number) for number in range(5_000))
    node.start()
    wait_for(lambda: len(platform.samples()) > 0, 10, "the first messages")
    node.add(data_message(number=-1))
    node.wait_until_empty(60)
    wait_for(lambda: len(platform.samples()) >= 5_001, 10, "all messages", interval=0.5)
    numbers = _numbers(platform)
    assert set(numbers[:50]) <= set(range(4_900, 5_000))
    assert numbers.index(-1) < 4_500
    assert sorted(numbers) == list(range(-1, 5_000))


def test_a_message_leaves_the_queue_only_when_it_is_acknowledged(node: Node, platform: Platform) -> None:
    node.start(hurry={"between_reports": 0.1})
    node.wait_until_connected()
    platform.pause()
    node.add(*[data_message(number=number) for number in range(20)])
    seen = len(node.status.texts)
    wait_for(lambda: len(node.status.texts) >= seen + 3, 10, "the backend to report")
    assert node.queue_length() == 20
    platform.resume()
    node.wait_until_empty()
    wait_for(lambda: sorted(set(_numbers(platform))) == list(range(20)), 5, "all messages")


def test_at_most_one_window_comes_twice_when_the_connection_breaks(node: Node, platform: Platform) -> None:
    node.fill(data_message(number=number) for number in range(10_000))
    node.start(hurry=HASTY)
    wait_for(lambda: len(platform.samples()) > 0, 10, "the first messages")
    platform.restart()
    node.wait_until_empty(60)
    wait_for(lambda: set(_numbers(platform)) == set(range(10_000)), 10, "all messages", interval=0.5)
    times = collections.Counter(_numbers(platform))
    assert sum(times.values()) - len(times) <= 500


def test_a_broker_that_is_restarted_again_and_again_costs_no_sample(node: Node, platform: Platform) -> None:
    chance = random.Random(1)
    soon = {"of_a_suspect": 0.1, "for_a_witness": 0.1, "between_retries": 1.0, "between_looks_at_retries": 0.5}
    node.start(hurry={**HASTY, **soon})
    node.wait_until_connected()
    count = 0
    for _ in range(50):
        for _ in range(chance.randrange(4)):
            node.add(data_message(number=count))
            count += 1
        platform.restart()
    node.wait_until_empty(60)
    wait_for(lambda: set(_numbers(platform)) == set(range(count)), 10, "all messages", interval=0.5)
    assert node.execute("SELECT COUNT(*) FROM DROPPED") == [(0,)]


def test_what_cannot_be_sent_stands_in_nobodys_way_and_is_reported_once(node: Node, platform: Platform) -> None:
    node.config["logging_verbosity"]["message_sending"] = "WARNING"
    node.write_config(node.config)
    node.fill(data_message(number=float("nan")) for _ in range(120))
    node.start()
    node.add(data_message(number=1))
    node.wait_until_empty()
    wait_for(lambda: platform.logs() and _numbers(platform) == [1], 5, "the sample and the report")
    assert len(platform.logs()) == 1
    assert "stays in the archive only" in platform.logs()[0]


def test_a_long_log_message_is_cut(node: Node, platform: Platform) -> None:
    node.add({**LOG, "body": "b" * 100_000}, data_message(number=1))
    node.start()
    node.wait_until_empty()
    wait_for(platform.logs, 5, "the message")
    assert platform.logs()[0].startswith("a subject\nbbb")
    assert platform.logs()[0].endswith("[cut]")


def test_messages_stay_until_it_is_decided_which_broker_is_theirs(node: Node, platform: Platform) -> None:
    releases = try_out(node, host="the.accepted.one")
    node.add(*(data_message(number=number) for number in range(20)))
    process = node.start()
    wait_for(lambda: sorted(_numbers(platform)) == list(range(20)), 20, "all messages")
    node.add(data_message(number=20))
    wait_for(lambda: 20 in _numbers(platform), 10, "another one")
    assert node.queue_length() >= 21, "what another broker acknowledged is not lost to the accepted one"
    process.terminate()
    ended(process)
    assert node.queue_length() >= 21, "nor when it is undone"
    node.start()
    releases.end_probation()
    node.wait_until_empty()


def test_of_a_trial_with_the_same_broker_nothing_stays(node: Node, platform: Platform) -> None:
    try_out(node, password="an older one")
    node.add(data_message(number=1))
    node.start()
    node.wait_until_empty()
    wait_for(lambda: _numbers(platform) == [1], 10, "the message")  # the broker has it first


# A week without the broker of the config, and an hour of the one before it, in seconds.
WEEK = {"until_former": 2, "between_formers": 1e6}


def _move_away(node: Node, port: int, **general: Any) -> None:
    """Let the node's config have another broker than the one until now, which is remembered."""
    former = {"general": {**node.config["general"], **general}, "backend": node.config["backend"]}
    past = {"former_connections": [former], "connected_since": 1}
    (node.data.parent / "updates.json").write_text(json.dumps(past))
    connection = {**node.config["backend"]["mqtt_connection"], "port": port}
    node.write_config({**node.config, "backend": {**node.config["backend"], "mqtt_connection": connection}})


def test_a_broker_that_is_gone_for_good_costs_neither_operator_nor_samples(node: Node, platform: Platform) -> None:
    port = free_port()
    _move_away(node, port)
    node.add(*(data_message(number=number) for number in range(20)))
    node.start(hurry=WEEK | HASTY)
    wait_for(lambda: sorted(_numbers(platform)) == list(range(20)), 30, "all messages, at the broker before")
    wait_for(lambda: platform.logs(), 10, "the operator to be told")
    [told] = [log for log in platform.logs() if "No connection to" in log]
    assert f":{port} for 0 days" in told and "offer a config with a broker that is there" in told
    assert not node.link["connected"] and "accepted before, is used meanwhile" in node.link["reason"]
    platform.offer({"general": GENERAL}, 3)
    _wait_for_revisions(node, 3)
    node.wait_until_empty()


def test_the_broker_of_the_config_is_not_given_up(make_node: MakeNode, tmp_path: Path) -> None:
    """After the hour it has its turn again, and no message is lost meanwhile."""
    with closing(TentaPlatform(tmp_path / "former", free_port())) as former:
        port = free_port()
        node = make_node(former.port, provider="tenta")
        _move_away(node, port)
        node.start(hurry=WEEK | HASTY | {"of_a_former": 5})
        node.add(data_message(number=1))
        wait_for(lambda: _numbers(former) == [1], 30, "the broker before")
        wait_for(lambda: "meanwhile" not in str(node.link.get("reason")), 30, "the turn of the config's one")
        with closing(TentaPlatform(tmp_path / "own", port)) as own:
            node.add(data_message(number=2))  # now that somebody listens there
            wait_for(lambda: _numbers(own) == [2], 30, "the broker of the config")
            node.wait_until_empty()
            assert node.link["connected"] and node.link["reason"] is None
        assert _numbers(former) == [1]


def test_an_offer_becomes_pending_and_is_answered(node: Node, platform: Platform) -> None:
    node.start()
    node.wait_until_connected()
    platform.offer({"general": GENERAL, "more": {"a": [1, None]}}, 3)
    _wait_for_revisions(node, 3)
    assert node.pending() == [{"general": {**GENERAL, "config_revision": 3}, "more": {"a": [1, None]}}]
    wait_for(lambda: '""status"":""received""' in node.archive(), 5, "the answer")
    assert (node.data / "run-backend" / "pending-config").exists()


def test_an_offer_survives_until_the_node_comes(node: Node, platform: Platform) -> None:
    platform.offer({"general": GENERAL}, 3)
    node.start()
    _wait_for_revisions(node, 3)


def test_an_offer_survives_a_kill_of_the_backend(node: Node, platform: Platform) -> None:
    process = node.start()
    platform.offer({"general": GENERAL}, 3)
    _wait_for_revisions(node, 3)
    process.kill()
    node.start()
    platform.offer({"general": GENERAL}, 4)
    _wait_for_revisions(node, 4)


def test_offers_arrive_after_a_blip(node: Node, platform: Platform) -> None:
    node.start(hurry=HASTY)
    node.wait_until_connected()
    since = node.link["since"]
    platform.restart()
    _wait_for_reconnect(node, since)
    platform.offer({"general": GENERAL}, 3)
    _wait_for_revisions(node, 3)


def test_the_offer_that_came_last_waits_whatever_its_revision(node: Node, platform: Platform) -> None:
    """The updater decides what is old, and answers."""
    node.start(hurry={"between_offers": 0.1})  # with a config of revision 2
    node.wait_until_connected()
    for revision in (1, 5, 4, 4, 2, 5):
        platform.offer({"general": GENERAL}, revision)
    _wait_for_revisions(node, 4)


def test_offers_do_not_pile_up_without_bound(node: Node, platform: Platform) -> None:
    node.start()
    node.wait_until_connected()
    for revision in range(3, 40):
        platform.offer({"general": GENERAL}, revision)
    wait_for(lambda: _revisions(node) == [39], 20, "the newest to be kept")


@pytest.mark.parametrize(("size", "taken"), [(60_000, True), (65_536, False)])
def test_offers_are_bounded_in_size(node: Node, platform: Platform, size: int, taken: bool) -> None:
    node.start()
    node.wait_until_connected()
    platform.offer({"general": GENERAL, "x": "x" * size}, 3)
    if taken:
        _wait_for_revisions(node, 3)
    platform.offer({"general": GENERAL}, 4)
    _wait_for_revisions(node, 4)


def test_an_invalid_offer_is_rejected_at_once(node: Node, platform: Platform) -> None:
    node.start()
    node.wait_until_connected()
    platform.offer({"general": {}}, 3)
    platform.offer({"general": GENERAL}, 4)
    _wait_for_revisions(node, 4)
    wait_for(platform.decisions, 5, "the decision")
    assert platform.decisions() == [(False, 3)]
    assert node.log.count("A config offer was ignored") == 1


def test_what_is_no_offer_does_no_harm_and_is_not_reported_for_ever(node: Node, platform: Platform) -> None:
    process = node.start()
    node.wait_until_connected()
    for number in range(50):
        platform.send(b"{" * (number + 1))
    platform.send(b"\xff\xfe\x00")
    platform.offer({"general": GENERAL}, 3)
    _wait_for_revisions(node, 3)
    assert node.log.count("A config offer was ignored") == 16
    assert process.poll() is None


def test_refused_credentials_are_named_once(make_node: MakeNode, platform: Platform, protocol: str) -> None:
    node = make_node(platform.port, provider=platform.provider, username="wrong", protocol=protocol)
    node.start(hurry=HASTY)
    wait_for(lambda: "Not authorized" in str(node.link.get("reason")), 10, "the reason")
    assert "check client_id, username and password" in node.link["reason"]
    assert node.log.count("No connection") == 1


def test_sigterm_sends_what_is_queued_first(node: Node, platform: Platform) -> None:
    process = node.start()
    node.wait_until_connected()
    platform.pause()
    node.fill(data_message(number=number) for number in range(300))
    node.add(data_message(number=300))
    process.terminate()
    platform.resume()
    assert ended(process) == 0
    assert node.queue_length() == 0
    wait_for(lambda: sorted(set(_numbers(platform))) == list(range(301)), 5, "all messages")


def test_bodies_of_all_kinds_survive_any_text(node: Node, platform: Platform) -> None:
    nasty = 'quote " backslash \\ nul \0 snowman \N{SNOWMAN} pile \N{PILE OF POO}'
    node.fill([{"variant": "data", "data": {"number": 1, nasty: nasty}}, {**LOG, "subject": nasty, "body": nasty}])
    node.fill([json.loads(json.dumps(config_message("rejected", 1)))])
    node.start()
    node.wait_until_empty()
    wait_for(lambda: platform.samples() and platform.logs() and platform.decisions(), 5, "all messages")
