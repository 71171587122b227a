"""The operator hears how many messages were dropped, until that was acknowledged, and once."""

import sqlite3
from collections.abc import Iterator
from itertools import count

import pytest

from ivy.backend.delays import Delays
from ivy.backend.dialect import Publication
from ivy.backend.losses import Losses
from ivy.backend.tenta_backend import make_dialect
from ivy.utils.logger import Logger
from ivy.utils.messaging_agent import MessagingAgent
from ivy.utils.storage import set_aside
from tests.support.helpers import BACKEND, make_config

DROPPED = {"data": 3, "log": 10_400}


class Link:
    """Takes what is published, and gives it a token."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._tokens: Iterator[int] = count(1)

    def publish(self, publication: Publication) -> int:
        self.texts.append(publication.payload.decode())
        return next(self._tokens)


@pytest.fixture
def untold(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """What the queue counts and nobody was told of."""
    counts: dict[str, int] = {}

    def note(_: object, told: dict[str, int]) -> None:
        for variant, number in told.items():
            counts[variant] -= number
            if not counts[variant]:
                del counts[variant]

    monkeypatch.setattr(MessagingAgent, "get_untold_losses", lambda _: dict(counts))
    monkeypatch.setattr(MessagingAgent, "note_told_losses", note)
    return counts


@pytest.fixture
def losses(agent: MessagingAgent, make_logger: type[Logger]) -> Losses:
    config = make_config(backend=BACKEND)
    return Losses(agent, make_dialect(config), make_logger(config), Delays(between_losses=0.0))


def test_without_losses_nothing_is_said(losses: Losses, untold: dict[str, int]) -> None:
    link = Link()
    losses.report(link.publish)
    assert not link.texts and not untold


def test_losses_are_told_again_until_that_is_acknowledged(losses: Losses, untold: dict[str, int]) -> None:
    link = Link()
    untold.update(DROPPED)
    losses.report(link.publish)
    assert "Messages were dropped for lack of room: 3 data, 10400 log" in link.texts[0]
    losses.answered(1, is_delivered=False)
    losses.report(link.publish)
    losses.disconnected()
    losses.answered(2, is_delivered=True)  # of a connection that is gone
    assert untold == DROPPED
    losses.report(link.publish)
    untold["data"] += 1  # dropped meanwhile
    losses.answered(3, is_delivered=True)
    assert len(link.texts) == 3 and untold == {"data": 1}
    losses.answered(3, is_delivered=True)
    assert untold == {"data": 1}


def test_what_was_given_up_is_told_apart(losses: Losses, untold: dict[str, int]) -> None:
    link = Link()
    untold[set_aside.GIVEN_UP] = 2
    losses.report(link.publish)
    assert "given up, as the broker took them on no day of a week: 2" in link.texts[0]
    assert "lack of room" not in link.texts[0]


def test_an_hour_lies_between_two_reports(
    agent: MessagingAgent, make_logger: type[Logger], untold: dict[str, int]
) -> None:
    config, link = make_config(backend=BACKEND), Link()
    losses = Losses(agent, make_dialect(config), make_logger(config), Delays())
    untold.update(DROPPED)
    losses.report(link.publish)
    losses.report(link.publish)
    assert len(link.texts) == 1


def test_a_disk_that_does_not_note_it_is_no_crash(
    losses: Losses, untold: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    link = Link()
    untold.update(DROPPED)
    losses.report(link.publish)

    def refuse(*_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(MessagingAgent, "note_told_losses", refuse)
    losses.answered(1, is_delivered=True)
    losses.report(link.publish)
    assert len(link.texts) == 2
