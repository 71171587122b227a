"""Keeping to what the platform allows."""

import time

import pytest

from ivy.backend.dialect import Limits, Publication
from ivy.backend.flow_control import Bucket, Pace


def _publications(*points: int) -> list[Publication]:
    return [Publication("t", b"", (1,), points=number) for number in points]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What time it is: the last element."""
    times = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: times[-1])
    return times


def test_a_bucket_gives_what_is_in_it_and_fills_again(clock: list[float]) -> None:
    bucket = Bucket(10, 5)
    assert bucket.seconds_until(10) == 0
    bucket.take(10)
    assert bucket.seconds_until(4) == pytest.approx(2)
    clock.append(102)
    assert bucket.seconds_until(4) == pytest.approx(0)
    clock.append(1000)
    bucket.seconds_until(1)
    bucket.take(10)
    assert bucket.seconds_until(1) > 0  # it never holds more than 10


def test_what_it_can_never_hold_is_given_when_it_is_full(clock: list[float]) -> None:
    bucket = Bucket(10, 5)
    assert bucket.seconds_until(1000) == 0
    bucket.take(1000)
    clock.append(clock[-1] + 490)
    assert bucket.seconds_until(1) > 0


def test_without_limits_there_is_no_waiting() -> None:
    pace = Pace()
    pace.take(_publications(*[1000] * 1000))
    assert pace.seconds_until(_publications(1)) == 0
    assert pace.may_be_in_flight(10**6)


def test_the_strictest_limit_counts(clock: list[float]) -> None:
    pace = Pace()
    pace.limit(Limits(publications=((100, 1.0), (1000, 60.0)), points=((20, 1.0),)))
    pace.take(_publications(16))
    assert pace.seconds_until(_publications(8)) == pytest.approx(0.5)  # 16 of 20 a second are made use of
    clock.append(clock[-1] + 0.5)
    assert pace.seconds_until(_publications(8)) == pytest.approx(0)


@pytest.mark.usefixtures("clock")
def test_a_reconnect_does_not_fill_the_buckets() -> None:
    pace = Pace()
    for _ in range(2):
        pace.limit(Limits(points=((10, 1.0),)))
        assert pace.seconds_until([]) == 0
        pace.take(_publications(8))
    assert pace.seconds_until(_publications(1)) > 1


def test_what_was_sent_before_the_limits_were_known_counts(clock: list[float]) -> None:
    pace = Pace()
    pace.take(_publications(*[2] * 50))
    pace.limit(Limits(points=((100, 1.0), (100_000, 3600.0))))
    assert pace.seconds_until(_publications(2)) > 0.02
    clock.append(clock[-1] + 5)
    assert pace.seconds_until(_publications(2)) == 0


def test_the_number_in_flight() -> None:
    pace = Pace()
    pace.limit(Limits(most_in_flight=100))
    assert pace.may_be_in_flight(100)
    assert not pace.may_be_in_flight(101)


def test_the_size_of_publications() -> None:
    pace = Pace()
    small, large = Publication("t", b"x" * 86), Publication("t", b"x" * 87)
    assert pace.are_small_enough([large])
    pace.limit(Limits(largest_publication=100))
    assert pace.are_small_enough([small, small])
    assert not pace.are_small_enough([small, large])
