"""A trial that is interrupted is gone on with, as it was begun."""

import json
from pathlib import Path
from typing import Any

import pydantic
import pytest

from ivy.types.config import ForeignConfig, UpdaterConfig, as_text
from ivy.types.updates import Offer, Source
from ivy.utils.logger import Logger
from ivy.utils.updates import decisions, history, probation
from ivy.utils.updates.environment import python_of
from ivy.utils.updates.releases import Releases, digest
from ivy.utils.updates.trial import Trials
from ivy.version import Version
from tests.support.helpers import CONFIG, UPDATER, Node, make_config
from tests.unit.offers import foreign

VERSION = Version("1.0.0")


@pytest.fixture
def releases(root_dir: Path, node: Node, monkeypatch: pytest.MonkeyPatch) -> Releases:
    """A release that runs, and could make the next update; no service of it runs, as there is no systemd."""
    monkeypatch.setenv("PATH", node.environment["PATH"])
    node.fake("systemctl", {})
    releases = Releases()
    releases.config_file(VERSION).parent.mkdir(parents=True)
    python = Path(python_of(releases.directory(VERSION)))
    python.parent.mkdir(parents=True)
    python.symlink_to("/bin/true")
    releases.activate(VERSION)
    releases.write_config(VERSION, json.dumps(CONFIG))
    return releases


def trials(releases: Releases, seconds: int, most_seconds: int) -> Trials:
    """Of an updater whose config says this of a probation."""
    times = {"seconds_of_probation": seconds, "max_seconds_of_probation": most_seconds}
    logger = Logger(make_config(), "updater")
    return Trials(releases, UpdaterConfig.model_validate({**UPDATER, **times}), logger)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> list[probation.Watch]:
    """The terms of all probations; each is passed at once."""
    terms: list[probation.Watch] = []
    monkeypatch.setattr(probation.Watch, "run", lambda watch: terms.append(watch))
    return terms


def test_an_interrupted_probation_takes_as_long_as_before_whatever_the_offered_config_says(
    releases: Releases, watched: list[probation.Watch]
) -> None:
    offered = foreign(4)
    trials(releases, 40, 400).begin(Offer(identifier="offer-4", config=offered))
    releases.write_config(VERSION, as_text(offered))
    trials(releases, 1, 10).resume()  # after a power cut the config is the offered one
    assert [(terms.seconds, terms.most_seconds) for terms in watched] == [(40, 400)]
    [decision] = history.load().decisions
    assert decision.accepted and history.load().trial is None


def test_a_probation_that_is_longer_than_it_may_be_can_still_be_passed(
    releases: Releases, watched: list[probation.Watch]
) -> None:
    """Otherwise nothing could be accepted any more, not even what corrects that."""
    too_short = trials(releases, 600, 300)
    too_short.watch(too_short.begin(Offer(identifier="offer-4", config=foreign(4))))
    assert watched[0].most_seconds > watched[0].seconds == 600


def test_a_link_is_not_waited_for_anew_at_each_boot_for_ever(
    releases: Releases, watched: list[probation.Watch], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probation.Watch, "run", lambda watch: _lose_power(watched, watch))
    trials(releases, 1, 10).begin(Offer(identifier="offer-4", config=foreign(4)))
    with history.update() as past:
        assert past.trial
        past.trial = past.trial.model_copy(update={"link_was_down": True})
    releases.write_config(VERSION, as_text(foreign(4)))
    for _ in range(5):
        with pytest.raises(_PowerCut):
            trials(releases, 1, 10).resume()
    assert [terms.link_was_down for terms in watched] == [True, True, False, False, False]


def of_1_0_0(config: ForeignConfig, **trial: Any) -> None:
    """Let the file be as version 1.0.0 left it when a probation was interrupted."""
    general = {"config_revision": 2, "software_version": "1.0.0"}
    decision = {"identifier": "revision-2-00000000", "offer": {"general": general}, "accepted": False}
    offer = config.model_dump(mode="json")
    on_trial: dict[str, Any] = {"identifier": "offer-4", "offer": offer, "source": "backend"}
    on_trial |= {"digest": digest(as_text(config)), "link_was_down": True, "seconds_of_probation": 40}
    on_trial |= {"max_seconds_of_probation": 400, "interruptions": 1, "failure": None, **trial}
    rest = {"reason": "no", "time": 1.5, "reported": True}
    content = {"decided_revision": 3, "trial": on_trial, "decisions": [{**decision, **rest}], "last_good": None}
    Path(history.HISTORY_FILE).write_text(json.dumps(content))


def test_a_trial_that_version_1_0_0_began_goes_on(releases: Releases, watched: list[probation.Watch]) -> None:
    releases.begin_probation()
    releases.write_config(VERSION, as_text(foreign(4)))
    of_1_0_0(foreign(4))
    trials(releases, 1, 10).resume()
    assert [(terms.seconds, terms.most_seconds, terms.link_was_down) for terms in watched] == [(40, 400, True)]
    past = history.load()
    assert [(offer.revision, offer.accepted, offer.reason) for offer in past.decisions] == [
        (2, False, "no"),
        (4, True, ""),
    ]
    assert past.trial is None and past.decided_revision == 4
    assert past.last_good and past.last_good.general.config_revision == 3


def test_a_trial_that_version_1_0_0_saw_fail_is_undone(releases: Releases, watched: list[probation.Watch]) -> None:
    releases.begin_probation()
    releases.write_config(VERSION, as_text(foreign(4)))
    of_1_0_0(foreign(4), failure="it crashed")
    trials(releases, 1, 10).resume()
    assert watched == [] and releases.active_config().general.config_revision == 3
    past = history.load()
    assert (past.decisions[-1].accepted, past.decisions[-1].reason) == (False, "it crashed")
    assert past.trial is None and past.last_good is None


def test_what_was_accepted_is_not_undone_by_the_admin_any_more(
    releases: Releases, watched: list[probation.Watch], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in between, by the admin's command."""
    begun = trials(releases, 1, 10).begin(Offer(identifier="offer-4", config=foreign(4)))
    releases.write_config(VERSION, as_text(foreign(4)))
    monkeypatch.setattr(Releases, "end_probation", lambda _: _lose_power(watched))
    with pytest.raises(_PowerCut):
        trials(releases, 1, 10).watch(begun)
    monkeypatch.undo()
    trials(releases, 1, 10).resume("the admin wants something else")
    assert releases.active_config().general.config_revision == 4
    assert history.load().trial is None and releases.previous() is None


class Trial100(pydantic.BaseModel):
    """As version 1.0.0 knows it."""

    model_config = pydantic.ConfigDict(extra="allow", frozen=True)

    identifier: str
    offer: ForeignConfig
    source: Source
    digest: str
    link_was_down: bool
    seconds_of_probation: int = 30
    max_seconds_of_probation: int = 300
    interruptions: int = 0
    failure: str | None = None


class Decision100(pydantic.BaseModel):
    """As version 1.0.0 knows it."""

    model_config = pydantic.ConfigDict(extra="allow", frozen=True)

    identifier: str
    offer: ForeignConfig
    accepted: bool
    reason: str = ""
    time: float
    reported: bool = False


class History100(pydantic.BaseModel):
    """As version 1.0.0 knows it."""

    model_config = pydantic.ConfigDict(extra="allow", validate_assignment=True)

    decided_revision: int = -1
    trial: Trial100 | None = None
    decisions: list[Decision100] = []
    last_good: ForeignConfig | None = None


def test_after_a_rollback_version_1_0_0_can_read_what_it_needs(
    releases: Releases, watched: list[probation.Watch], monkeypatch: pytest.MonkeyPatch
) -> None:
    def read() -> History100:
        return History100.model_validate_json(Path(history.HISTORY_FILE).read_bytes())

    offers = trials(releases, 40, 400)
    offers.watch(offers.begin(Offer(identifier="offer-4", config=foreign(4))))
    monkeypatch.setattr(probation.Watch, "run", lambda watch: _lose_power(watched, watch))
    begun = offers.begin(Offer(identifier="offer-5", config=foreign(5)))
    with pytest.raises(_PowerCut):
        offers.watch(begun)
    past = read()
    assert past.decided_revision == 4
    assert past.trial and past.trial.offer == foreign(5) and past.trial.failure is None
    assert past.trial.digest == digest(as_text(foreign(5))) and past.trial.seconds_of_probation == 40
    monkeypatch.setattr(probation.Watch, "run", lambda _: "it crashed")
    monkeypatch.setattr(Releases, "go_back", lambda _: _lose_power(watched))
    with pytest.raises(_PowerCut):
        offers.watch(begun)
    past = read()
    assert past.trial and past.trial.failure == "it crashed"
    decisions.record(begun, "it crashed")
    decided = [(decision.offer.general.config_revision, decision.accepted) for decision in read().decisions]
    assert decided == [(4, True), (5, False)] and read().decisions[-1].reason == "it crashed"


class _PowerCut(Exception):
    pass


def _lose_power(watched: list[probation.Watch], watch: probation.Watch | None = None) -> None:
    watched += [watch] if watch else []
    raise _PowerCut
