"""A trial that is interrupted is gone on with, as it was begun."""

import json
from pathlib import Path

import pytest

from ivy.types.config import UpdaterConfig, as_text
from ivy.utils.logger import Logger
from ivy.utils.updates import history, probation
from ivy.utils.updates.policy import Offer
from ivy.utils.updates.releases import Releases
from ivy.utils.updates.trial import Trials
from ivy.version import Version
from tests.support.helpers import CONFIG, UPDATER, Node, make_config
from tests.unit.offers import foreign

VERSION = Version("1.0.0")


@pytest.fixture
def releases(root_dir: Path, node: Node, monkeypatch: pytest.MonkeyPatch) -> Releases:
    """A release that runs, and could make the next update; no service of it runs, as there is no systemd."""
    monkeypatch.setenv("PATH", node.environment["PATH"])
    monkeypatch.setattr(Trials, "_updater_failure", lambda _: None)
    node.fake("systemctl", {})
    releases = Releases()
    releases.config_file(VERSION).parent.mkdir(parents=True)
    releases.activate(VERSION)
    releases.write_config(VERSION, json.dumps(CONFIG))
    return releases


def trials(releases: Releases, seconds: int, most_seconds: int) -> Trials:
    """Of an updater whose config says this of a probation."""
    times = {"seconds_of_probation": seconds, "max_seconds_of_probation": most_seconds}
    logger = Logger(make_config(), "updater")
    return Trials(releases, UpdaterConfig.model_validate({**UPDATER, **times}), logger)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> list[probation.Terms]:
    """The terms of all probations; each is passed at once."""
    terms: list[probation.Terms] = []
    monkeypatch.setattr(probation.Watch, "run", lambda watch: terms.append(watch.terms))
    return terms


def test_an_interrupted_probation_takes_as_long_as_before_whatever_the_offered_config_says(
    releases: Releases, watched: list[probation.Terms]
) -> None:
    offered = foreign(4)
    trials(releases, 40, 400).begin(Offer(offered, "backend", "offer-4"))
    releases.write_config(VERSION, as_text(offered))
    trials(releases, 1, 10).resume()  # after a power cut the config is the offered one
    assert [(terms.seconds, terms.most_seconds) for terms in watched] == [(40, 400)]
    [decision] = history.load().decisions
    assert decision.accepted and history.load().trial is None


def test_a_probation_that_is_longer_than_it_may_be_can_still_be_passed(
    releases: Releases, watched: list[probation.Terms]
) -> None:
    """Otherwise nothing could be accepted any more, not even what corrects that."""
    too_short = trials(releases, 600, 300)
    too_short.watch(too_short.begin(Offer(foreign(4), "backend", "offer-4")))
    assert watched[0].most_seconds > watched[0].seconds == 600


def test_a_link_is_not_waited_for_anew_at_each_boot_for_ever(
    releases: Releases, watched: list[probation.Terms], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probation.Watch, "run", lambda watch: _lose_power(watched, watch))
    trials(releases, 1, 10).begin(Offer(foreign(4), "backend", "offer-4"))
    with history.update() as past:
        assert past.trial
        past.trial = past.trial.model_copy(update={"link_was_down": True})
    releases.write_config(VERSION, as_text(foreign(4)))
    for _ in range(5):
        with pytest.raises(_PowerCut):
            trials(releases, 1, 10).resume()
    assert [terms.link_was_down for terms in watched] == [True, True, False, False, False]


class _PowerCut(Exception):
    pass


def _lose_power(watched: list[probation.Terms], watch: probation.Watch) -> None:
    watched.append(watch.terms)
    raise _PowerCut
