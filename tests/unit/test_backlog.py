"""A backlog is held to a speed, and what is sampled meanwhile is not."""

import math
import time

import pytest

from ivy.backend import tenta_backend, thingsboard_backend
from ivy.backend.backlog import Backlog
from ivy.types.messages import DataMessageBody, MessageQueueItem
from ivy.utils.storage import contents
from tests.support.helpers import make_config

NOW = 1.7e9


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What time it is since the boot: the last element."""
    times = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: times[-1])
    monkeypatch.setattr(time, "time", lambda: NOW)
    return times


def items(*identifiers: int, age: float = 0.0) -> list[MessageQueueItem]:
    body = DataMessageBody(data={"a": 1})
    return [MessageQueueItem(identifier=each, timestamp=NOW - age, message_body=body) for each in identifiers]


def sent(backlog: Backlog, *waiting: int, room: int = 10_000, age: float = 0.0) -> list[int]:
    """Send what may be sent of these, the newest last."""
    looked_at = items(*waiting, age=age)[-backlog.room(room) :]
    chosen = [item.identifier for item in backlog.choose(looked_at)]
    backlog.take(chosen)
    return chosen


def test_without_a_number_nothing_is_held_back() -> None:
    backlog = Backlog(None)
    assert backlog.room(10_000) == 10_000
    assert len(sent(backlog, *range(1, 10_001))) == 10_000
    assert backlog.seconds_until_more() == math.inf and not backlog.is_behind


def test_a_backlog_is_sent_at_that_speed_the_newest_first(clock: list[float]) -> None:
    backlog = Backlog(1000)
    backlog.connected()
    waiting = list(range(1, 3_001))
    began, looked, count = clock[-1], 0.0, 0
    while waiting:
        looked = clock[-1] - began
        found = sent(backlog, *waiting)
        assert found == waiting[len(waiting) - len(found) :]
        del waiting[len(waiting) - len(found) :]
        count += len(found)
        assert count <= 1000 * (clock[-1] - began) + 250 + 1
        clock.append(clock[-1] + max(1e-6, min(1.0, backlog.seconds_until_more())))
    assert looked == pytest.approx(2.8, abs=0.3)


def test_what_is_sampled_meanwhile_is_not_held_back() -> None:
    backlog = Backlog(1000)
    backlog.connected()
    old = range(1, 1001)
    assert len(sent(backlog, *old)) == 250
    assert sent(backlog, *old, 1001, 1002) == [1001, 1002]
    assert sent(backlog, *old) == []
    assert 0 < backlog.seconds_until_more() <= 0.1


def test_many_live_messages_are_looked_for_at_once() -> None:
    backlog = Backlog(1000)
    backlog.connected()
    sent(backlog, *range(1, 1001))
    live = list(range(1001, 1101))
    while live:
        found = sent(backlog, *range(1, 751), *live)
        assert found, "nothing of it is waited for"
        live = [each for each in live if each not in found]
        assert backlog.is_behind or not live
    assert backlog.seconds_until_more() > 0


def test_what_came_during_an_outage_is_a_backlog() -> None:
    backlog = Backlog(10)
    backlog.connected()
    assert sent(backlog, 1) == [1]
    assert len(sent(backlog, *range(2, 30))) == 28
    backlog.connected()
    assert len(sent(backlog, *range(30, 60))) <= 3


def test_after_an_empty_queue_the_first_message_is_live() -> None:
    backlog = Backlog(1)
    backlog.connected()
    assert sent(backlog) == []
    assert sent(backlog, *range(5, 25)) == list(range(5, 25))


def test_old_messages_with_new_numbers_are_a_backlog() -> None:
    """What moves from the spare queue to the disk, or was in a logger's memory."""
    backlog = Backlog(10)
    backlog.connected()
    sent(backlog, 1)
    assert len(sent(backlog, *range(2, 100), age=3600.0)) <= 3


def test_messages_of_the_spare_queue_are_live_where_they_are_new() -> None:
    backlog = Backlog(10)
    backlog.connected()
    assert len(sent(backlog, *range(1, 100), -1, -2)) <= 3
    assert sent(backlog, *range(1, 90), -3, -4) == [-3, -4]


@pytest.mark.usefixtures("clock")
def test_the_least_speed_still_sends() -> None:
    backlog = Backlog(1)
    backlog.connected()
    assert sent(backlog, 1, 2, 3) == [3]
    assert backlog.seconds_until_more() == pytest.approx(1.0)


def test_only_tenta_needs_it_by_itself() -> None:
    config = make_config()
    assert tenta_backend.make_dialect(config).most_per_second == 1000
    assert thingsboard_backend.make_dialect(config).most_per_second is None


def test_what_is_sent_again_is_a_backlog_and_makes_no_live_message_one() -> None:
    backlog = Backlog(1000)
    backlog.connected()
    assert sent(backlog, 7) == [7]
    again = [contents.FIRST_FOREIGN + number for number in range(1000)]
    assert 0 < len(sent(backlog, *again, age=86_400.0)) <= 251
    assert sent(backlog, *range(8, 50)) == list(range(8, 50))
