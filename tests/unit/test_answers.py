"""For how long a broker has answered nothing."""

from ivy.backend.in_flight import Answers


def test_it_counts_from_the_first_that_waits_whatever_is_sent_after_it() -> None:
    answers = Answers()
    assert answers.seconds(5) == 0
    answers.sent(10)
    answers.sent(30)
    assert answers.seconds(50) == 40


def test_an_answer_ends_it() -> None:
    answers = Answers()
    answers.sent(10)
    answers.answered(is_waiting=False, now=20)
    assert answers.seconds(50) == 0
    answers.sent(60)
    answers.answered(is_waiting=True, now=70)
    assert answers.seconds(75) == 5


def test_another_connection_does_not_but_the_time_without_one_counts_not() -> None:
    answers = Answers()
    answers.sent(10)
    answers.lost(50)
    assert answers.seconds(5000) == 0
    answers.lost(5000)
    answers.sent(6000)
    assert answers.seconds(6030) == 70
    answers.answered(is_waiting=True, now=6040)
    answers.lost(6050)
    answers.sent(7000)
    assert answers.seconds(7001) == 11
