"""How long a backend waits before it tries to connect again."""

from ivy.backend.backoff import Backoff


def _delays(backoff: Backoff, count: int) -> list[float]:
    return [backoff.next_delay() for _ in range(count)]


def test_the_first_try_is_made_at_once() -> None:
    assert Backoff().next_delay() == 0.0


def test_delays_double_and_end_at_a_quarter_of_an_hour() -> None:
    for _ in range(20):
        _, *delays = _delays(Backoff(), 30)
        for number, delay in enumerate(delays):
            full = min(900.0, 2.0**number)
            assert full / 2 <= delay <= full


def test_nodes_of_a_fleet_do_not_wait_alike() -> None:
    assert len({_delays(Backoff(), 6)[-1] for _ in range(20)}) > 1


def test_it_begins_anew_after_success() -> None:
    backoff = Backoff()
    _delays(backoff, 12)
    backoff.reset()
    first, second = _delays(backoff, 2)
    assert first == 0.0
    assert 0.5 <= second <= 1.0


def test_a_useful_connection_shortens_the_wait_but_allows_no_hot_loop() -> None:
    backoff = Backoff()
    _delays(backoff, 12)
    backoff.ease()
    assert 0.5 <= backoff.next_delay() <= 1.0
