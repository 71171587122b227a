"""What leaves the queue, when, and what stays: `Removal` by itself, on a real queue."""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ivy.backend.delays import Delays
from ivy.backend.removal import Removal
from ivy.backend.resending import Resending
from ivy.types.messages import DataMessageBody, MessageQueueItem
from ivy.utils.logger import Logger
from ivy.utils.messaging_agent import MessagingAgent
from ivy.utils.storage.contents import FIRST_FOREIGN
from tests.support.helpers import BACKEND, make_config

MakeRemoval = Callable[..., Removal]
DELAYS = Delays(until_removed=0.0, between_retries=0.0)
DETAILS = "It is tried again once a day, and given up after a week. Others like it are not reported."


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Subjects and details of what the operator is told."""
    found: list[tuple[str, str]] = []
    monkeypatch.setattr(Logger, "warning", lambda _, subject, details="": found.append((subject, details)))
    return found


@pytest.fixture
def make_removal(agent: MessagingAgent, make_logger: type[Logger], told: list[tuple[str, str]]) -> MakeRemoval:
    config = make_config(backend=BACKEND)

    def make(*, is_former: bool = False, window: int = 500) -> Removal:
        logger = make_logger(config)
        resending = Resending(logger, 0.0, is_wanted=False)
        return Removal(agent, resending, config, logger, DELAYS, is_former=is_former, window=window)

    return make


@pytest.fixture
def queued(agent: MessagingAgent) -> list[int]:
    """The numbers of three messages in the queue."""
    for number in range(3):
        agent.add_message(DataMessageBody(data={"number": number}))
    return sorted(item.identifier for item in waiting(agent))


def waiting(agent: MessagingAgent) -> list[MessageQueueItem]:
    return agent.get_latest_messages_within(1e9, 100, set(), [])


def numbers(agent: MessagingAgent) -> list[int]:
    return sorted(item.identifier for item in waiting(agent))


def put_on_trial(root: Path, **connection: Any) -> None:
    """Let the active config be on trial, in place of one with another connection."""
    kept = root / "previous" / "config" / "config.previous.json"
    kept.parent.mkdir(parents=True)
    other = {**BACKEND, "mqtt_connection": {**BACKEND["mqtt_connection"], **connection}}
    kept.write_text(json.dumps(make_config(backend=other).model_dump(mode="json")))


class Counted(set[int]):
    """A set that knows how often another one was made of it."""

    copies = 0

    def __or__(self, other: Any) -> Any:
        self.copies += 1
        return super().__or__(other)


def test_what_is_under_way_is_looked_through_once_for_a_publication(make_removal: MakeRemoval) -> None:
    """There may be ten thousand, and a thousand messages in a publication."""
    removal, under_way = make_removal(), Counted(range(100, 200))
    removal.delivered(range(1, 101), under_way)
    assert removal.not_to_send == set(range(1, 100))
    assert under_way.copies <= 1


def test_what_was_delivered_leaves_the_queue(
    agent: MessagingAgent, make_removal: MakeRemoval, queued: list[int]
) -> None:
    removal = make_removal()
    removal.delivered(queued[:2], under_way=set())
    assert len(removal) == 2 and removal.not_to_send == set(queued[:2])
    removal.remove(at_once=False)
    assert numbers(agent) == queued[2:]
    assert len(removal) == 0 and not removal.not_to_send and not removal.must_wait


def test_what_a_power_cut_may_bring_back_is_a_part_of_the_window(
    agent: MessagingAgent, make_removal: MakeRemoval, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One for each sample is not worth a sync. But those in doubt do not add up."""
    removal, removed = make_removal(window=12), list[tuple[set[int], bool]]()

    def note(identifiers: set[int], *, is_durable: bool) -> None:
        removed.append((set(identifiers), is_durable))
        identifiers.clear()

    monkeypatch.setattr(agent, "remove_and_forget", note)
    for number in range(1, 6):
        removal.delivered([number], under_way=set())
        removal.remove(at_once=False)
    removal.delivered([6], under_way=set())
    removal.remove(at_once=True)
    assert removed == [({1}, False), ({2}, False), ({3}, False), ({4}, True), ({5}, False), ({6}, True)]


def test_a_message_of_several_parts_leaves_with_its_last_one(
    agent: MessagingAgent, make_removal: MakeRemoval, queued: list[int]
) -> None:
    removal, message = make_removal(), queued[0]
    removal.delivered([message], under_way={message})
    removal.remove(at_once=True)
    assert numbers(agent) == queued
    removal.delivered([message], under_way=set())
    removal.remove(at_once=True)
    assert numbers(agent) == queued[1:]


@pytest.mark.parametrize("breaks", [False, True])
def test_a_message_of_which_a_part_was_refused_stays_until_it_is_delivered_whole(
    agent: MessagingAgent, make_removal: MakeRemoval, queued: list[int], breaks: bool
) -> None:
    removal, message = make_removal(), queued[0]
    removal.refused([message], under_way={message})
    if breaks:
        removal.disconnected()
    else:
        removal.delivered([message], under_way=set())  # the other part
        removal.remove(at_once=True)
        assert numbers(agent) == queued
    removal.delivered([message], under_way=set())  # sent again, whole
    removal.remove(at_once=True)
    assert numbers(agent) == queued[1:]


@pytest.mark.parametrize("connection", [{"host": "elsewhere"}, {"client_id": "somebody"}])
def test_nothing_leaves_while_it_may_belong_to_another_connection(
    agent: MessagingAgent, make_removal: MakeRemoval, queued: list[int], root_dir: Path, connection: dict[str, str]
) -> None:
    put_on_trial(root_dir, **connection)
    removal = make_removal()
    removal.delivered(queued, under_way=set())
    removal.remove(at_once=True)
    assert numbers(agent) == queued and removal.must_wait and removal.not_to_send == set(queued)
    (root_dir / "previous" / "config" / "config.previous.json").unlink()
    (root_dir / "previous" / "config").rmdir()
    (root_dir / "previous").rmdir()
    removal.remove(at_once=True)
    assert numbers(agent) == [] and not removal.must_wait


def test_what_leaves_no_other_connection_waiting_leaves_during_a_trial(
    agent: MessagingAgent, make_removal: MakeRemoval, queued: list[int], root_dir: Path
) -> None:
    put_on_trial(root_dir)
    removal = make_removal()
    removal.delivered(queued, under_way=set())
    removal.remove(at_once=True)
    assert numbers(agent) == []


def test_what_the_disk_does_not_let_go_of_is_remembered(
    agent: MessagingAgent, make_removal: MakeRemoval, queued: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    removal = make_removal()
    removal.delivered(queued, under_way=set())
    with monkeypatch.context() as sick:
        sick.setattr(agent.store, "remove", _refuse)
        with pytest.raises(sqlite3.OperationalError):
            removal.remove(at_once=True)
    assert removal.must_wait and removal.not_to_send == set(queued)
    removal.remove(at_once=True)
    assert numbers(agent) == [] and not removal.must_wait


def _refuse(*_: object, **_options: object) -> None:
    raise sqlite3.OperationalError("disk I/O error")


def test_what_the_broker_does_not_take_is_set_aside_told_once_and_tried_again(
    agent: MessagingAgent, make_removal: MakeRemoval, queued: list[int], told: list[tuple[str, str]]
) -> None:
    removal = make_removal()
    removal.set_aside({queued[0]: "too long", queued[1]: "too long"})
    assert removal.not_to_send == set(queued[:2])
    removal.move_set_aside()
    assert numbers(agent) == queued[2:] and not removal.not_to_send
    assert told == [("A message was set aside: too long", DETAILS)]
    assert removal.next_retry() in queued[:2]


def test_a_former_broker_sets_nothing_aside_as_that_of_the_config_may_take_it(
    agent: MessagingAgent, make_removal: MakeRemoval, queued: list[int], told: list[tuple[str, str]]
) -> None:
    removal = make_removal(is_former=True)
    removal.set_aside({queued[0]: "too long"})
    removal.give_up({queued[1]}, elsewhere=True)
    removal.move_set_aside()
    removal.remove(at_once=True)
    assert numbers(agent) == queued and removal.not_to_send == set(queued[:2]) and not told


def test_what_is_sent_again_and_not_taken_keeps_nothing_waiting_during_a_trial(
    make_removal: MakeRemoval,
    queued: list[int],
    root_dir: Path,
    told: list[tuple[str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    removed: list[int] = []
    monkeypatch.setattr(Resending, "remove", lambda _, message_ids: removed.extend(message_ids))
    put_on_trial(root_dir, host="elsewhere")
    removal = make_removal()
    removal.set_aside({FIRST_FOREIGN + 1: "too long", queued[0]: "too long"})
    assert removed == [FIRST_FOREIGN + 1] and removal.not_to_send == {queued[0]}
    assert [subject for subject, _ in told] == ["A message of the archive is not sent again: too long"]


def test_what_no_platform_takes_leaves_the_queue(
    agent: MessagingAgent, make_removal: MakeRemoval, queued: list[int]
) -> None:
    removal = make_removal()
    removal.give_up({queued[0]}, elsewhere=False)
    removal.remove(at_once=True)
    assert numbers(agent) == queued[1:]
