"""Which message is to blame for connections that break."""

from ivy.backend.suspects import Suspects
from ivy.types.messages import DataMessageBody, MessageQueueItem


def _items(*identifiers: int) -> list[MessageQueueItem]:
    body = DataMessageBody(data={"a": 1})
    return [MessageQueueItem(identifier=number, timestamp=0, message_body=body) for number in identifiers]


def _chosen(suspects: Suspects, *identifiers: int, in_flight: frozenset[int] = frozenset()) -> list[int]:
    return [item.identifier for item in suspects.choose(_items(*identifiers), set(in_flight))]


def _broken_twice(*in_flight: int) -> Suspects:
    suspects = Suspects()
    for _ in range(2):
        assert suspects.broken(set(in_flight)) is None
        suspects.connected()
    return suspects


def test_one_break_changes_nothing() -> None:
    suspects = Suspects()
    assert suspects.broken({1, 2}) is None
    assert _chosen(suspects, 1, 2, 3) == [1, 2, 3]


def test_what_was_under_way_at_two_breaks_goes_last_and_alone() -> None:
    suspects = _broken_twice(1, 2)
    assert _chosen(suspects, 1, 2, 3) == [3]
    assert _chosen(suspects, 1, 2, in_flight=frozenset({3})) == []
    assert _chosen(suspects, 1, 2) == [1]
    assert _chosen(suspects, 2, 3, in_flight=frozenset({1})) == []


def test_it_is_to_blame_if_others_got_through_and_it_breaks_the_connection_alone() -> None:
    suspects = _broken_twice(1, 2)
    suspects.delivered([2])
    assert suspects.broken({1}) == 1
    assert _chosen(suspects, 1, 2) == [1, 2]


def test_it_is_not_to_blame_if_nothing_gets_through() -> None:
    suspects = _broken_twice(1, 2)
    for _ in range(5):
        assert suspects.broken({1}) is None
        suspects.connected()
    assert _chosen(suspects, 1, 2) == [2]  # the one with fewer breaks first


def test_it_is_not_to_blame_if_others_were_under_way() -> None:
    suspects = _broken_twice(1)
    suspects.delivered([2])
    assert suspects.broken({1, 3}) is None


def test_what_was_delivered_on_another_connection_proves_nothing() -> None:
    suspects = _broken_twice(1)
    suspects.delivered([2])
    suspects.connected()
    assert suspects.broken({1}) is None


def test_what_is_delivered_is_no_suspect_any_more() -> None:
    suspects = _broken_twice(1, 2)
    suspects.delivered([1])
    assert _chosen(suspects, 1, 2, 3) == [1, 3]
