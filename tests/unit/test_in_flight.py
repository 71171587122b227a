"""`ivy.backend.in_flight.InFlight`: the books of what is under way over a connection."""

from ivy.backend.dialect import Publication
from ivy.backend.in_flight import InFlight


def _publication(*message_ids: int) -> Publication:
    return Publication("topic", b"payload", message_ids)


def test_it_knows_what_is_under_way_and_since_when() -> None:
    in_flight, size = InFlight(), _publication().size
    assert in_flight.oldest is None and len(in_flight) == 0
    in_flight.add(1, _publication(1, 2), now=10)
    in_flight.add(2, _publication(2, 3), now=20, is_probe=True)
    assert in_flight.message_ids == {1, 2, 3}
    assert in_flight.size == 2 * size and in_flight.acknowledged == 0
    assert in_flight.oldest is not None and in_flight.oldest.at == 10
    sent = in_flight.pop(2, now=30)
    assert sent is not None and sent.is_probe and sent.under_way == 2 * size
    assert in_flight.message_ids == {1, 2}
    assert in_flight.size == in_flight.acknowledged == size


def test_how_long_it_took_to_carry_what_counts_from_the_last_acknowledgment_or_from_idleness() -> None:
    in_flight, size = InFlight(), _publication().size
    for token, at in ((1, 10), (2, 12)):
        in_flight.add(token, _publication(token), now=at)
    in_flight.pop(1, now=20)
    in_flight.add(3, _publication(3), now=22)
    found = [in_flight.pop(token, now=30) for token in (2, 3)]
    in_flight.add(4, _publication(4), now=40)
    found.append(in_flight.pop(4, now=50))
    assert [(sent.since, sent.acknowledged) for sent in found if sent] == [(10, 0), (20, size), (40, 3 * size)]


def test_an_acknowledgment_of_something_else_changes_nothing() -> None:
    in_flight = InFlight()
    in_flight.add(1, _publication(1), now=10)
    assert in_flight.pop(7, now=20) is None
    assert in_flight.size == _publication().size and in_flight.acknowledged == 0


def test_with_the_connection_all_of_it_is_gone() -> None:
    in_flight = InFlight()
    in_flight.add(1, _publication(1), now=10)
    in_flight.add(2, _publication(2), now=10)
    in_flight.pop(1, now=20)
    in_flight.clear()
    assert (len(in_flight), in_flight.size, in_flight.acknowledged) == (0, 0, 0)
