"""How long a backend waits before it tries to connect again."""

import random

import pytest

from ivy.backend.delays import Backoff


def _longest(_least: float, most: float) -> float:
    return most


def _failures(backoff: Backoff, count: int, *, refused: bool) -> list[float]:
    return [backoff.next_delay(useful=False, refused=refused, lasted=30) for _ in range(count)]


@pytest.mark.parametrize(("refused", "longest"), [(False, 60.0), (True, 900.0)])
def test_delays_double_up_to_a_minute_or_where_it_is_refused_a_quarter_of_an_hour(
    refused: bool, longest: float
) -> None:
    expected = [min(longest, 2.0**number) for number in range(30)]
    assert _failures(Backoff(_longest), 30, refused=refused) == expected


def test_nodes_of_a_fleet_do_not_wait_alike() -> None:
    delays = [_failures(Backoff(random.Random(seed).uniform), 1, refused=False)[0] for seed in range(20)]
    assert len(set(delays)) == 20
    assert all(0.5 <= delay <= 1.0 for delay in delays)


def test_a_refusal_after_an_outage_is_not_punished_for_the_outage() -> None:
    backoff = Backoff(_longest)
    _failures(backoff, 12, refused=False)
    assert _failures(backoff, 2, refused=True) == [1.0, 2.0]
    assert _failures(backoff, 1, refused=False) == [60.0]


@pytest.mark.parametrize("refused", [False, True])
def test_after_a_connection_that_was_of_use_the_next_try_is_made_at_once(refused: bool) -> None:
    backoff = Backoff(_longest)
    _failures(backoff, 12, refused=refused)
    assert backoff.next_delay(useful=True, refused=False, lasted=1.0) == 0.0
    assert _failures(backoff, 2, refused=refused) == [1.0, 2.0]


def test_a_broker_that_breaks_each_useful_connection_makes_no_hot_loop() -> None:
    backoff = Backoff(_longest)
    for _ in range(10):
        assert backoff.next_delay(useful=True, refused=False, lasted=0.25) == 0.75
