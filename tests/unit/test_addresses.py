"""In which order the addresses of a broker are tried."""

import socket

import pytest

from ivy.backend.addresses import Address, Order, Resolver

DEAD_6, OTHER_6 = (Address(socket.AF_INET6, (f"2001:db8::{number}", 1883, 0, 0)) for number in (1, 2))
GOOD_4, OTHER_4 = (Address(socket.AF_INET, (f"192.0.2.{number}", 1883)) for number in (1, 2))


def test_families_take_turns_in_the_order_of_the_system() -> None:
    assert Order().of([DEAD_6, OTHER_6, GOOD_4, OTHER_4]) == [DEAD_6, GOOD_4, OTHER_6, OTHER_4]
    assert Order().of([GOOD_4, DEAD_6, OTHER_6]) == [GOOD_4, DEAD_6, OTHER_6]
    assert Order().of([DEAD_6, OTHER_6]) == [DEAD_6, OTHER_6]
    assert Order().of([]) == []


def test_who_has_failed_comes_last_and_who_failed_first_comes_first_among_these() -> None:
    order = Order()
    for failed in (DEAD_6, OTHER_6):
        order.failed(failed)
    assert order.of([DEAD_6, OTHER_6, GOOD_4]) == [GOOD_4, DEAD_6, OTHER_6]
    order.failed(GOOD_4)
    assert order.of([DEAD_6, OTHER_6, GOOD_4]) == [DEAD_6, OTHER_6, GOOD_4]
    order.failed(DEAD_6)
    assert order.of([DEAD_6, OTHER_6, GOOD_4]) == [OTHER_6, GOOD_4, DEAD_6]


def test_a_name_that_stands_for_another_address_each_time_takes_no_memory() -> None:
    order = Order()
    many = [Address(socket.AF_INET, (f"192.0.2.{number}", 1883)) for number in range(256)]
    for address in many:
        order.failed(address)
    assert order.of(many)[:192] == many[:192]  # of the first ones it does not know any more that they failed
    assert order.of(many) == many
    assert order.of([many[255], many[0]]) == [many[0], many[255]]


@pytest.mark.parametrize("host", ["mqtt://localhost", "localhost:1883", "[::1]", "localhost ", "me@localhost"])
def test_what_is_more_than_a_name_is_refused_in_words(host: str) -> None:
    with pytest.raises(ValueError, match=r"^host: must be a name or an address, without scheme, port"):
        Resolver().addresses(host, 1883, 1.0)


def test_an_address_of_any_family_is_one() -> None:
    assert [str(address) for address in Resolver().addresses("::1", 1883, 1.0)] == ["::1"]
    assert [str(address) for address in Resolver().addresses("127.0.0.1", 1883, 1.0)] == ["127.0.0.1"]
