"""Topics at which a broker takes nothing: when it is asked again."""

import math

from ivy.backend.delays import Delays
from ivy.backend.flow_control import Brake
from ivy.backend.gates import Gates
from ivy.backend.reasons import Fate


def _longest(_least: float, most: float) -> float:
    return most


def _closed(topic: str = "t") -> Gates:
    gates = Gates(jitter=_longest)
    assert gates.refused(topic, Fate.NOBODY_LISTENS, "nobody", 0, is_probe=False)
    return gates


def test_pauses_grow_from_a_second_to_a_minute() -> None:
    gates, now, pauses = _closed(), 0.0, []
    for _ in range(9):
        pauses.append(gates.seconds_until_due(now))
        now += pauses[-1]
        assert gates.due(now) == ["t"]
        gates.asked("t")
        assert gates.due(now + 1e6) == [], "one probe at a time"
        assert gates.seconds_until_due(now) == math.inf
        assert not gates.refused("t", Fate.NOBODY_LISTENS, "nobody", now, is_probe=True)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_what_was_under_way_when_it_closed_makes_no_pause_longer() -> None:
    gates = _closed()
    for _ in range(50):
        assert not gates.refused("t", Fate.NOBODY_LISTENS, "nobody", 0.1, is_probe=False)
    assert gates.due(1) == ["t"]


def test_pauses_have_jitter_but_never_less_than_a_second() -> None:
    gates = Gates(jitter=lambda least, _most: least)
    gates.refused("t", Fate.NOBODY_LISTENS, "nobody", 0, is_probe=False)
    gates.refused("t", Fate.NOBODY_LISTENS, "nobody", 0, is_probe=True)
    assert gates.seconds_until_due(0) == 1.5


def test_a_delivery_opens_it() -> None:
    gates = _closed()
    assert "t" in gates and gates.nobody_listens
    assert gates.delivered("other", 5) is None
    assert gates.delivered("t", 5) == 5
    assert "t" not in gates and not gates.nobody_listens and gates.troubles == []


def test_each_topic_is_by_itself_and_said_with_its_reason() -> None:
    gates = _closed()
    gates.refused("u", Fate.FORBIDDEN, "no", 0, is_probe=False)
    assert gates.troubles == ["t: nobody", "u: no"]
    gates.delivered("t", 1)
    assert gates.troubles == ["u: no"] and not gates.nobody_listens


def test_another_reason_is_news() -> None:
    gates = _closed()
    assert gates.refused("t", Fate.FORBIDDEN, "no", 1, is_probe=True)
    assert gates.troubles == ["t: no"]


def test_a_new_connection_is_asked_at_once() -> None:
    gates = _closed()
    gates.asked("t")
    gates.connected()
    assert gates.due(0) == ["t"]


def test_a_brake_is_pulled_longer_each_time_until_something_is_delivered() -> None:
    brake = Brake(Delays(to_slow_down=1, longest_to_slow_down=5))
    assert brake.pull(0) == 1
    assert brake.pull(0.5) == 1, "what came back together counts once"
    assert [brake.pull(1), brake.pull(3), brake.pull(7), brake.pull(12)] == [3, 7, 12, 17]
    brake.release()
    assert brake.pull(20) == 21
