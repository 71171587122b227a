"""Which version of MQTT is tried."""

from typing import Literal

import pytest

from ivy.backend.protocol_choice import ProtocolChoice


def _current(choice: ProtocolChoice) -> str:
    return choice.current


def _fallen_back(*, in_words: bool) -> ProtocolChoice:
    choice = ProtocolChoice()
    assert choice.not_accepted(in_words=in_words)
    choice.accepted()
    return choice


def test_it_begins_with_mqtt_5() -> None:
    assert ProtocolChoice().current == "5"


def test_a_broker_that_says_so_is_believed_for_good() -> None:
    choice = _fallen_back(in_words=True)
    for _ in range(3):
        assert _current(choice) == "3.1.1"
        choice.ended()
        assert _current(choice) == "3.1.1"
        choice.accepted()


def test_silence_is_believed_the_second_time() -> None:
    """A broker that is being restarted is silent, too, and by 3.1.1 nobody learns whether anybody listens."""
    choice = _fallen_back(in_words=False)
    choice.ended()
    assert _current(choice) == "5"
    assert choice.not_accepted(in_words=False)
    choice.accepted()
    choice.ended()
    assert _current(choice) == "3.1.1"


def test_silence_twice_means_nothing_if_mqtt_5_was_accepted_in_between() -> None:
    choice = _fallen_back(in_words=False)
    choice.ended()
    choice.accepted()
    choice.ended()
    assert choice.not_accepted(in_words=False)
    choice.accepted()
    choice.ended()
    assert _current(choice) == "5"


def test_a_broker_that_answers_neither_is_asked_by_mqtt_5_next() -> None:
    choice = ProtocolChoice()
    assert choice.not_accepted(in_words=False)
    assert _current(choice) == "3.1.1"
    assert not choice.not_accepted(in_words=False), "there is no third"
    assert _current(choice) == "5"


def test_a_broker_that_has_learnt_mqtt_5_says_so() -> None:
    choice = _fallen_back(in_words=True)
    assert not choice.not_accepted(in_words=False)
    assert _current(choice) == "3.1.1", "it is merely away"
    assert not choice.not_accepted(in_words=True)
    assert _current(choice) == "5"


@pytest.mark.parametrize("fixed", ["5", "3.1.1"])
def test_what_the_config_says_stays(fixed: Literal["5", "3.1.1"]) -> None:
    choice = ProtocolChoice(fixed)
    assert not choice.may_change
    assert not choice.not_accepted(in_words=True)
    choice.ended()
    assert _current(choice) == fixed
