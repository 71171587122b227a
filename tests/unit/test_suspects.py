"""Which message is to blame for connections that break."""

from ivy.backend.poison import Suspects
from ivy.types.messages import DataMessageBody, MessageQueueItem

MOST = 100


def _items(*identifiers: int) -> list[MessageQueueItem]:
    body = DataMessageBody(data={"a": 1})
    return [MessageQueueItem(identifier=number, timestamp=0, message_body=body) for number in identifiers]


def _chosen(
    suspects: Suspects, *identifiers: int, in_flight: frozenset[int] = frozenset(), now: float = 1
) -> list[int]:
    return [item.identifier for item in suspects.choose(_items(*identifiers), set(in_flight), now)]


def _broken(*in_flight: int, now: float = 0) -> Suspects:
    """One break a while ago, and a new connection at once."""
    suspects = Suspects(MOST)
    suspects.connected()
    suspects.broken(set(in_flight), now - 10)
    suspects.connected()
    return suspects


def _accusing(identifier: int, now: float = 1) -> Suspects:
    """The second break: everything but a witness is there."""
    suspects = _broken(identifier, 98, 99)
    suspects.delivered([98])
    suspects.delivered([99])
    assert _chosen(suspects, identifier, now=now) == [identifier]
    suspects.broken({identifier}, now + 0.1)
    return suspects


def test_what_was_under_way_at_a_break_goes_last_and_alone() -> None:
    suspects = _broken(1, 2)
    assert _chosen(suspects, 1, 2, 3) == [3]
    assert _chosen(suspects, 1, 2, in_flight=frozenset({3})) == []
    assert _chosen(suspects, 1, 2) == [1]
    assert _chosen(suspects, 2, 3, in_flight=frozenset({1})) == []


def test_suspects_wait_a_little_for_another_to_go_first() -> None:
    suspects = _broken(1, 2, now=10)  # ten seconds before
    assert _chosen(suspects, 1, 2, now=4.9) == []
    assert _chosen(suspects, 1, 2, now=5) == [1]
    suspects = _broken(1, 2, now=10)
    suspects.delivered([3])
    assert _chosen(suspects, 1, 2, now=1) == [1]


def test_what_is_delivered_is_no_suspect_any_more() -> None:
    suspects = _broken(1, 2)
    assert suspects.delivered([1]) is None
    assert _chosen(suspects, 1, 2, 3) == [1, 3]


def test_it_is_to_blame_at_the_second_break_when_another_gets_through_next() -> None:
    suspects = _accusing(1)
    suspects.connected()
    assert _chosen(suspects, 1, 2, now=2) == [2]
    assert suspects.delivered([2]) == 1
    assert len(suspects) == 0
    assert suspects.delivered([3]) is None


def test_the_accused_and_other_suspects_wait_for_the_witness() -> None:
    suspects = _broken(1, 2, 3)
    suspects.delivered([3])
    _chosen(suspects, 1, 2)
    suspects.broken({1}, 1.1)
    suspects.connected()
    assert _chosen(suspects, 1, 2, now=2) == []
    assert _chosen(suspects, 1, 2, now=12) == [2]
    assert suspects.delivered([2]) == 1


def test_two_of_one_batch_are_both_found() -> None:
    suspects = _broken(1, 2, 3)
    suspects.delivered([3])
    for number, now in ((1, 1.0), (2, 2.0)):
        assert _chosen(suspects, *range(number, 3), now=now) == [number]
        suspects.broken({number}, now + 0.1)
        suspects.connected()
        assert suspects.delivered([9]) == number


def test_nobody_is_to_blame_if_the_witness_breaks_the_connection_too() -> None:
    suspects = _accusing(1)
    suspects.connected()
    suspects.broken({2}, 2)
    suspects.connected()
    assert suspects.delivered([3]) is None


def test_nobody_is_to_blame_if_the_broker_went_away() -> None:
    suspects = _accusing(1)
    suspects.lost()
    suspects.connected()
    assert suspects.delivered([2]) is None
    suspects = Suspects(MOST)
    suspects.broken({1, 2}, 0)
    suspects.lost()
    assert _chosen(suspects, 1, 2, 3) == [1, 2, 3]


def test_it_is_not_to_blame_if_nothing_got_through_before() -> None:
    suspects = _broken(1, 2)
    assert _chosen(suspects, 1, 2) == [1]
    suspects.broken({1}, 1.1)
    suspects.connected()
    assert _chosen(suspects, 1, 2) == [2]  # the one with fewer breaks first
    assert suspects.delivered([2]) is None
    assert _chosen(suspects, 1) == [1]  # at once, as it is proven now that others get through
    suspects.broken({1}, 1.2)
    suspects.connected()
    assert suspects.delivered([3]) == 1


def test_what_was_delivered_on_another_connection_proves_nothing() -> None:
    suspects = _broken(1, 2)
    suspects.delivered([2])
    suspects.connected()
    _chosen(suspects, 1)
    suspects.broken({1}, 1.1)
    suspects.connected()
    assert suspects.delivered([3]) is None


def test_it_is_not_to_blame_if_others_were_under_way() -> None:
    suspects = _broken(1)
    suspects.delivered([2])
    suspects.broken({1, 3}, 1.1)
    suspects.connected()
    assert suspects.delivered([4]) is None


def test_it_is_not_to_blame_if_the_connection_broke_long_after_it_was_sent() -> None:
    suspects = _broken(1)
    suspects.delivered([2])
    _chosen(suspects, 1, now=1)
    suspects.broken({1}, 60)
    suspects.connected()
    assert suspects.delivered([3]) is None


def test_it_is_not_to_blame_where_connections_break_without_it() -> None:
    suspects = _broken(9)
    suspects.delivered([9])
    suspects.broken({1}, 500)
    suspects.connected()
    suspects.delivered([2])
    _chosen(suspects, 1, now=501)
    suspects.broken({1}, 501.1)
    suspects.connected()
    assert suspects.delivered([3]) is None
    assert _chosen(suspects, 1, now=560) == []  # it waits
    assert _chosen(suspects, 1, now=601) == [1]
    suspects.broken({1}, 601.1)
    suspects.connected()
    assert suspects.delivered([4]) == 1  # the trouble is ten minutes old


def test_a_wait_without_a_witness_ends() -> None:
    suspects = _broken(1)
    _chosen(suspects, 1)
    suspects.broken({1}, 1.1)
    suspects.connected()
    assert suspects.waiting(2) == {1}
    assert _chosen(suspects, 1, now=62) == [1]


def test_the_waits_grow_to_a_day() -> None:
    suspects = _broken(0)
    now = 0.0
    for _ in range(30):
        suspects.delivered([2])
        suspects.broken({1, 9}, now)
        suspects.connected()
    suspects.delivered([3])
    assert _chosen(suspects, 1, now=86_399) == []
    assert _chosen(suspects, 1, now=86_401) == [1]


def test_suspects_do_not_wait_for_the_end_of_a_backlog_but_hold_it_up_little() -> None:
    suspects = _broken(1, 2)
    for suspect, others in ((1, range(10, 20)), (2, range(20, 30))):
        for number in others:
            assert _chosen(suspects, suspect, 3, 4) == [3, 4]
            suspects.delivered([number])
        assert _chosen(suspects, suspect, 3, in_flight=frozenset({4})) == []  # it goes alone
        assert _chosen(suspects, suspect, 3, 4) == [suspect]
        assert _chosen(suspects, suspect, 3, 4) == [suspect]  # it could not be sent yet
        suspects.delivered([suspect])


def test_a_backlog_does_not_wait_for_suspects_that_may_not_go() -> None:
    suspects = _broken(1)
    suspects.delivered([2])
    suspects.broken({1, 9}, 0)
    suspects.connected()
    for number in range(10, 30):
        suspects.delivered([number])
    assert _chosen(suspects, 1, 3, in_flight=frozenset({4})) == [3]


def test_of_too_many_suspects_the_oldest_become_ordinary() -> None:
    suspects = Suspects(4)
    for first in range(0, 1000, 2):
        suspects.connected()
        suspects.broken({0, first, first + 1}, first)
    assert len(suspects) == 4
    suspects.connected()
    assert _chosen(suspects, *range(990, 1001), 0, now=1000) == [*range(990, 997), 1000]


def test_a_message_that_is_not_in_the_queue_any_more_is_no_suspect() -> None:
    suspects = _broken(1, 2, 3)
    suspects.forget_all_but({2, 7})
    assert len(suspects) == 1
    assert _chosen(suspects, 1, 2, 3) == [1, 3]
    suspects.lost()
