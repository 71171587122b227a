"""What the numbers of MQTT are said to mean."""

import pytest

from ivy.backend import reasons
from ivy.backend.reasons import Fate


@pytest.mark.parametrize(
    ("code", "fate"),
    [
        (0, Fate.DELIVERED),
        (16, Fate.NOBODY_LISTENS),
        (135, Fate.FORBIDDEN),
        (151, Fate.TOO_FAST),
        *((code, Fate.REFUSED) for code in (128, 131, 144, 145, 149, 153, 255)),
    ],
)
def test_what_becomes_of_a_publication(code: int, fate: Fate) -> None:
    assert reasons.fate(code) is fate


@pytest.mark.parametrize("code", range(256))
def test_each_number_has_words(code: int) -> None:
    assert reasons.of_subscription(code)
    for words in (reasons.of_connection, reasons.of_publication):
        assert words(code)
        assert "\n" not in words(code, "a\nb\x1b")


def test_words_of_a_broker_are_bounded() -> None:
    assert len(reasons.of_publication(153, "x" * 60_000)) < 400


def test_a_restart_or_an_eviction_is_over_no_message() -> None:
    over = {code for code in range(256) if reasons.may_be_over_a_message(code)}
    assert not over & {0, 139, 141, 142, 150, 151, 152}
    assert {129, 130, 131, 144, 149, 153} <= over
    assert reasons.may_be_over_a_message(None)
