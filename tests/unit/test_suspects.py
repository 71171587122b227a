"""Which messages a broker does not take."""

import math

import pytest

from ivy.backend.poison import BROKE, Suspects

MOST = 2000
WHY = "the platform cannot read it"


class Broker:
    """Takes messages or not; a test sends what is to be sent, as a forwarder would."""

    def __init__(self, *poison: int, names: bool) -> None:
        self.suspects = Suspects(MOST)
        self.poison = set(poison)
        self.names = names
        self.breaks = 0
        self.sent = 0
        self.delivered: list[int] = []
        self.aside: dict[int, str] = {}
        self.now = 0.0
        self.suspects.connected()

    def offer(self, messages: list[int]) -> None:
        """Send messages together."""
        self.sent += 1
        if self.poison.isdisjoint(messages):
            self.delivered += messages
            self.aside |= self.suspects.delivered(messages)
        elif self.names:
            self.aside |= self.suspects.refused(messages, WHY, self.now)
        else:
            self.breaks += 1
            self.suspects.broken(messages, self.now)
            self.aside |= self.suspects.connected()

    def work(self, messages: list[int], batch: int) -> None:
        """Send all, newest last, until nothing is left that can be."""
        for _ in range(1000):
            done = {*self.delivered, *self.aside, *self.suspects.message_ids}
            others = [each for each in messages if each not in done][-batch:]
            test = self.suspects.next_test(others_wait=bool(others), in_flight=(), now=self.now)
            if not (chosen := others if test is None else list(test)):
                if not self.suspects.message_ids:
                    return
                self.now += max(1.0, self.suspects.seconds_until_test(self.now))
            else:
                self.offer(chosen)


@pytest.mark.parametrize("batch", [2, 3, 8, 50, 64, 500])
def test_a_poison_message_is_found_by_few_breaks_wherever_it_is(batch: int) -> None:
    for poison in {*range(0, batch, max(1, batch // 16)), batch - 1}:
        broker = Broker(poison, names=False)
        broker.offer([-1])
        broker.work(list(range(batch)), batch)
        assert broker.breaks <= math.log2(batch) + 1
        assert broker.aside == {poison: BROKE}
        assert sorted(broker.delivered) == [-1, *(each for each in range(batch) if each != poison)]


def test_one_that_came_alone_is_found_by_two_breaks() -> None:
    broker = Broker(7, names=False)
    broker.offer([-1])
    broker.work([7], 50)
    assert broker.breaks == 2
    assert broker.aside == {7: BROKE}


@pytest.mark.parametrize("names", [True, False])
def test_several_of_one_batch_are_all_found(names: bool) -> None:
    poison = {0, 1, 17, 48, 49}
    broker = Broker(*poison, names=names)
    broker.work(list(range(100)), 50)
    broker.offer([100])  # live samples never end
    assert broker.aside.keys() == poison
    assert sorted(broker.delivered) == [each for each in range(101) if each not in poison]


def test_what_is_named_breaks_nothing_and_is_found_by_half_and_half() -> None:
    broker = Broker(13, names=True)
    broker.work(list(range(50)), 50)
    assert broker.breaks == 0
    assert broker.aside == {13: WHY}
    assert broker.sent <= 2 * (math.log2(50) + 2)


def test_one_that_is_named_alone_is_set_aside_at_once_where_others_got_through() -> None:
    broker = Broker(13, names=True)
    broker.offer([1])
    broker.offer([13])
    assert broker.aside == {13: WHY}


def test_else_as_soon_as_another_gets_through() -> None:
    broker = Broker(13, names=True)
    broker.offer([13])
    assert broker.aside == {} and broker.suspects.message_ids == {13}
    broker.offer([1])
    assert broker.aside == {13: WHY}


@pytest.mark.parametrize("names", [True, False])
def test_where_nothing_is_taken_it_is_the_broker(names: bool) -> None:
    broker = Broker(*range(20), names=names)
    for _ in range(200):
        others = [each for each in range(20) if each not in broker.suspects.message_ids]
        test = broker.suspects.next_test(others_wait=bool(others), in_flight=(), now=broker.now)
        broker.now += 100_000.0
        if chosen := others if test is None else list(test):
            broker.offer(chosen)
    assert broker.aside == {}
    assert broker.suspects.is_broker
    broker.poison.clear()
    broker.work(list(range(20)), 20)
    assert sorted(broker.delivered) == list(range(20)) and broker.aside == {}
    assert not broker.suspects.is_broker


def test_one_that_takes_nothing_any_more_costs_one_message_its_place() -> None:
    broker = Broker(*range(20), names=True)
    broker.offer([-1])
    for number in range(20):
        broker.offer([number])
        if broker.suspects.is_broker:
            break
    assert len(broker.aside) == 1


def test_a_break_that_was_a_restart_is_over_no_message() -> None:
    suspects = Suspects(MOST)
    suspects.connected()
    suspects.delivered([1])
    suspects.broken([2, 3], 0)
    assert suspects.message_ids == {2, 3}
    suspects.lost()
    assert suspects.message_ids == set()
    suspects.connected()
    suspects.broken([2], 1)
    suspects.connected()
    assert suspects.next_test(others_wait=False, in_flight=(), now=10) == (2,)
    suspects.broken([2], 11)
    suspects.lost()
    assert suspects.connected() == {}, "not even where it was alone"
    assert suspects.message_ids == {2}


def test_suspects_wait_a_little_for_others_to_go_first() -> None:
    suspects = Suspects(MOST)
    suspects.broken([1, 2], 0)
    suspects.connected()
    assert suspects.next_test(others_wait=False, in_flight=(), now=4.9) is None
    assert suspects.seconds_until_test(1) == 4
    assert suspects.next_test(others_wait=False, in_flight=(), now=5) == (1,)
    suspects.delivered([3])
    assert suspects.next_test(others_wait=False, in_flight=(), now=1) == (1,), "others did"


def test_a_test_goes_alone_after_ten_of_others_and_nothing_goes_with_it() -> None:
    suspects = Suspects(MOST)
    suspects.broken([1, 2], 0)
    suspects.connected()
    for number in range(10, 20):
        assert suspects.next_test(others_wait=True, in_flight=(), now=0) is None
        suspects.delivered([number])
    assert suspects.next_test(others_wait=True, in_flight=(30,), now=0) == ()
    assert suspects.next_test(others_wait=True, in_flight=(), now=0) == (1,)
    assert suspects.next_test(others_wait=True, in_flight=(1,), now=0) == ()
    suspects.delivered([1])
    assert suspects.next_test(others_wait=True, in_flight=(), now=0) is None
    assert suspects.message_ids == {2}


def test_of_a_large_group_as_many_are_tested_as_go_together() -> None:
    suspects = Suspects(MOST)
    suspects.broken(range(100), 0)
    suspects.connected()
    suspects.delivered([200])
    assert suspects.next_test(others_wait=False, in_flight=(), now=0, most=8) == tuple(range(8))
    suspects.delivered(range(8))
    assert suspects.next_test(others_wait=False, in_flight=(), now=0, most=8) == tuple(range(8, 16))
    suspects.broken(range(8, 16), 0)
    suspects.connected()
    suspects.delivered([201])
    assert suspects.message_ids == set(range(8, 16))
    assert suspects.next_test(others_wait=False, in_flight=(), now=0, most=1) == (8,)
    suspects.broken([8], 0)
    assert suspects.connected() == {8: BROKE}, "it was alone"


def test_what_was_with_a_half_that_was_refused_is_ordinary_again() -> None:
    suspects = Suspects(MOST)
    suspects.refused([1, 2, 3, 4], WHY, 0)
    suspects.delivered([9])
    suspects.refused([1, 2], WHY, 0)
    assert suspects.message_ids == {1, 2}


def test_a_part_of_a_test_may_be_named() -> None:
    """It went out as several publications, to several topics."""
    suspects = Suspects(MOST)
    suspects.delivered([9])
    suspects.refused([1, 2, 3, 4], WHY, 0)
    assert suspects.refused([2], WHY, 0) == {2: WHY}
    assert suspects.message_ids == set()


def test_several_parts_of_one_message_are_one_message() -> None:
    suspects = Suspects(MOST)
    suspects.delivered([9])
    assert suspects.refused([5, 5], WHY, 0) == {5: WHY}
    assert suspects.message_ids == set()


def test_what_was_set_aside_is_tried_alone() -> None:
    suspects = Suspects(MOST)
    suspects.connected()
    suspects.delivered([9])
    suspects.add(5)
    suspects.add(5)
    assert suspects.next_test(others_wait=False, in_flight=(), now=0) == (5,)
    assert suspects.refused([5], WHY, 0) == {5: WHY}
    suspects.delivered([9])
    suspects.add(5)
    assert suspects.delivered([5]) == {}
    assert suspects.message_ids == set()


def test_who_is_refused_where_nothing_gets_through_waits_longer_each_time() -> None:
    suspects, now, waits = Suspects(MOST), 0.0, []
    for _ in range(15):
        suspects.broken([1], now)
        suspects.connected()
        waits.append(suspects.seconds_until_test(now))
        now += waits[-1]
        assert suspects.next_test(others_wait=False, in_flight=(), now=now) == (1,)
    assert waits[:5] == [5, 60, 120, 240, 480]
    assert waits[-1] == 3600


def test_who_is_named_where_nothing_else_is_sent_waits_longer_each_time() -> None:
    suspects, now = Suspects(MOST), 0.0
    waits: list[float] = []
    suspects.connected()
    for _ in range(10):
        assert suspects.next_test(others_wait=False, in_flight=(), now=now) == ((1,) if waits else None)
        assert suspects.refused([1], WHY, now) == {}
        waits.append(suspects.seconds_until_test(now))
        assert suspects.next_test(others_wait=False, in_flight=(), now=now + 1) is None
        now += waits[-1]
    assert waits[:4] == [60, 120, 240, 480]
    assert waits[-1] == 3600
    suspects.connected()
    assert suspects.next_test(others_wait=False, in_flight=(), now=now) == (1,)


def test_several_that_are_named_wait_together() -> None:
    suspects = Suspects(MOST)
    for number, moment in ((1, 0), (2, 1), (3, 2)):
        suspects.refused([number], WHY, moment)
    assert suspects.seconds_until_test(2) == 58
    assert suspects.next_test(others_wait=False, in_flight=(), now=60) == (1,)
    assert suspects.delivered([1]) == {}, "it is taken now"


def test_of_too_many_suspects_the_oldest_become_ordinary() -> None:
    suspects = Suspects(4)
    for first in range(0, 1000, 2):
        suspects.broken([first, first + 1], 0)
        suspects.connected()
    assert suspects.message_ids == {996, 997, 998, 999}


def test_a_message_that_is_not_in_the_queue_any_more_is_no_suspect() -> None:
    suspects = Suspects(MOST)
    suspects.broken([1, 2, 3], 0)
    suspects.forget([1, 3])
    assert suspects.message_ids == {2}
    suspects.lost()
    assert suspects.message_ids == set()
