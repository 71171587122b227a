"""Messages that no broker takes: set aside in the queue's database."""

import time

import pytest

from ivy.types.messages import DataMessageBody
from ivy.utils.messaging_agent import MessagingAgent
from ivy.utils.storage import contents, set_aside
from tests.support import queue_file

DAY = 86_400.0


def _add(agent: MessagingAgent, count: int) -> None:
    for number in range(count):
        agent.add_message(DataMessageBody(data={"number": number}))


def _aside() -> list[tuple[int, str, int]]:
    return queue_file.execute("SELECT internal_id, reason, tries FROM POISON ORDER BY internal_id")


def _dropped(agent: MessagingAgent) -> int:
    return agent.database.run(contents.dropped)["poison"]


def test_it_leaves_the_queue_and_is_kept(agent: MessagingAgent) -> None:
    _add(agent, 3)
    agent.set_aside({2: "why"}, time.time() + DAY)
    assert [item.identifier for item in agent.get_n_latest_messages(9)] == [1, 3]
    assert agent.get_queue_length() == 2
    assert _aside() == [(2, "why", 0)]
    assert [item.identifier for item in agent.get_messages([2, 3, 4])] == [2, 3]
    assert agent.get_set_aside(DAY) is None, "not before a day is over"


def test_the_archive_has_it_durably_before(agent: MessagingAgent) -> None:
    _add(agent, 3)
    agent.set_aside({3: "why"}, 0)
    assert agent.database.run(contents.archived) == 3
    agent.add_message(DataMessageBody(data={"number": 3}))
    assert [item.identifier for item in agent.get_n_latest_messages(9)] == [1, 2, 4], "no number is given twice"


def test_it_survives_the_process(agent: MessagingAgent) -> None:
    _add(agent, 1)
    agent.set_aside({1: "why"}, time.time() - 1)
    agent.teardown()
    other = MessagingAgent()
    assert other.get_set_aside(DAY) == 1
    other.remove_messages([1])
    assert _aside() == []
    other.teardown()


def test_it_is_given_up_after_a_week_of_tries(agent: MessagingAgent) -> None:
    _add(agent, 1)
    for day in range(1 + set_aside.MOST_TRIES):
        assert _dropped(agent) == 0, f"day {day}"
        agent.set_aside({1: "why"}, 0)
    assert _aside() == []
    assert _dropped(agent) == 1
    assert agent.database.run(contents.dropped_since_report) == {"poison": 1}


def test_they_are_bounded(agent: MessagingAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(set_aside, "MOST_BYTES", 200)
    _add(agent, 20)
    agent.set_aside(dict.fromkeys(range(1, 21), "why"), 0)
    kept = [row[0] for row in _aside()]
    assert kept == list(range(21 - len(kept), 21)) and 0 < len(kept) < 10
    assert _dropped(agent) == 20 - len(kept)


@pytest.mark.parametrize(
    ("away", "is_synchronised", "is_due"),
    [
        (-1, True, True),
        (0.9 * DAY, True, False),
        (30 * 365 * DAY, True, True),  # said by a clock that was wrong
        (30 * 365 * DAY, False, False),  # said by a clock that was right, perhaps
    ],
)
def test_no_clock_makes_it_wait_for_ever(
    agent: MessagingAgent, monkeypatch: pytest.MonkeyPatch, away: float, is_synchronised: bool, is_due: bool
) -> None:
    monkeypatch.setattr("ivy.utils.host.clock.is_synchronised", lambda: is_synchronised)
    _add(agent, 1)
    agent.set_aside({1: "why"}, time.time() + away)
    assert (agent.get_set_aside(DAY) == 1) is is_due


def test_a_release_that_does_not_know_it_leaves_it_alone(agent: MessagingAgent) -> None:
    """Here: statements of the predecessor's, and 1.0's."""
    _add(agent, 2)
    agent.set_aside({1: "why"}, time.time() + DAY)
    queue_file.make_predecessors()
    queue_file.execute("DELETE FROM QUEUE WHERE internal_id IN (2)")
    assert _aside() == [(1, "why", 0)]


def test_a_table_of_that_name_with_other_columns_is_damage(agent: MessagingAgent) -> None:
    agent.teardown()
    queue_file.execute("DROP TABLE POISON")
    queue_file.execute("CREATE TABLE POISON (a)")
    other = MessagingAgent()
    _add(other, 1)
    assert other.get_queue_length() >= 1
    other.teardown()
