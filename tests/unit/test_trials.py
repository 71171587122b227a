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
from ivy.utils.updates.releases import Releases, digest
from ivy.utils.updates.trial import Trials
from ivy.version import Version
from tests.support.helpers import BACKEND, UPDATER, Node, make_config
from tests.unit.offers import foreign

VERSION = Version("1.0.0")


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


@pytest.mark.parametrize("damage", ["", "\0" * 851])
def test_a_version_whose_config_is_damaged_on_trial_is_undone(
    releases: Releases, watched: list[probation.Watch], damage: str
) -> None:
    """Else it would stay the current one, and nothing could run."""
    trials(releases, 1, 10).begin(Offer(identifier="offer-4", config=foreign(4, "1.2.0")))
    other = Version("1.2.0")
    releases.config_file(other).parent.mkdir(parents=True)
    releases.config_file(other).write_text(damage)
    releases.activate(other)
    trials(releases, 1, 10).resume()
    assert (releases.current(), releases.previous(), watched) == (VERSION, None, [])
    [decision] = history.load().decisions
    assert not decision.accepted and "its config was damaged" in decision.reason


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


def test_what_was_failing_before_is_named_by_the_decision(
    releases: Releases, watched: list[probation.Watch], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probation, "failing", lambda _: {"ivy-wind.service": "ended 5 times"})
    some = trials(releases, 1, 10)
    begun = some.begin(Offer(identifier="offer-4", config=foreign(4)))
    some.watch(begun)
    assert watched[0].failing_before == {"ivy-wind.service"}
    [decision] = history.load().decisions
    assert decision.accepted
    assert decision.reason == "ivy-wind.service does not run well, and did not before: it ended 5 times"


WIND, CHECKS = "ivy-wind.service", "ivy-system-checks.service"


def let_send(monkeypatch: pytest.MonkeyPatch, sends: dict[str, float], silent: list[str]) -> None:
    monkeypatch.setattr(probation, "sending", lambda *_: (sends, silent))


@pytest.mark.parametrize("knows_samples", [True, False])
def test_what_sent_data_must_send_again_where_the_release_knows_of_that(
    releases: Releases, watched: list[probation.Watch], monkeypatch: pytest.MonkeyPatch, knows_samples: bool
) -> None:
    """Version 1.0.0, to which a node may go back, notes no sample."""
    if knows_samples:
        units = releases.directory(VERSION) / "units"
        units.mkdir()
        (units / "ivy-owners.service").touch()
    let_send(monkeypatch, {WIND: 5, CHECKS: 600}, [])
    some = trials(releases, 1, 300)
    some.watch(some.begin(Offer(identifier="offer-4", config=foreign(4, archive={"max_days": 7}))))
    assert watched[0].must_send == ({WIND} if knows_samples else set())


def test_of_a_procedure_that_runs_on_nothing_is_asked(
    releases: Releases, watched: list[probation.Watch], monkeypatch: pytest.MonkeyPatch, node: Node
) -> None:
    shown = "printf '%s\\n' Id={0} LoadState=loaded NRestarts=0; echo; "
    answers = {
        "show*ivy.target": f"echo Wants={WIND} {CHECKS}",
        f"show*--?{CHECKS}": shown.format(CHECKS),
        "show*": shown.format(CHECKS) + shown.format(WIND),
    }
    node.fake("systemctl", answers)
    (releases.directory(VERSION) / "units").mkdir()
    (releases.directory(VERSION) / "units" / "ivy-owners.service").touch()
    let_send(monkeypatch, {WIND: 5, CHECKS: 5}, [])
    monkeypatch.setattr(probation, "failing", lambda _: {})
    offered = foreign(4, wind={"device": "other"})
    some = trials(releases, 1, 300)
    begun = some.begin(Offer(identifier="offer-4", config=offered))
    releases.write_config(VERSION, as_text(offered))
    some.watch(begun)
    assert watched[0].must_send == {WIND}


def test_what_was_silent_before_is_named_by_the_decision(
    releases: Releases, watched: list[probation.Watch], monkeypatch: pytest.MonkeyPatch
) -> None:
    let_send(monkeypatch, {}, [WIND])
    monkeypatch.setattr(probation, "failing", lambda _: {})
    some = trials(releases, 1, 10)
    some.watch(some.begin(Offer(identifier="offer-4", config=foreign(4))))
    [decision] = history.load().decisions
    assert decision.accepted and decision.reason == f"{WIND} sends no data, and did not before"
    assert watched[0].must_send == set()


@pytest.mark.parametrize(
    ("changed", "judged"), [({"max_drain_time": 7}, "ivy-tenta.service"), ({}, None)], ids=["backend", "procedure"]
)
def test_a_backend_that_was_failing_before_is_judged_only_by_what_concerns_it(
    releases: Releases,
    watched: list[probation.Watch],
    monkeypatch: pytest.MonkeyPatch,
    changed: dict[str, Any],
    judged: str | None,
) -> None:
    releases.write_config(VERSION, as_text(foreign(3, backend=BACKEND)))
    monkeypatch.setattr(probation, "failing", lambda _: {"ivy-tenta.service": "failed"})
    offered = foreign(4, backend={**BACKEND, **changed}, dummy_procedure={"seconds_between_datapoints": 4})
    some = trials(releases, 1, 10)
    begun = some.begin(Offer(identifier="offer-4", config=offered))
    releases.write_config(VERSION, as_text(offered))
    some.watch(begun)
    assert watched[0].backend == judged
    assert set(watched[0].failing_before) == (set() if judged else {"ivy-tenta.service"})


def test_where_the_link_was_down_only_what_may_have_cut_it_waits_for_it(
    releases: Releases, watched: list[probation.Watch], monkeypatch: pytest.MonkeyPatch
) -> None:
    releases.write_config(VERSION, as_text(foreign(3, backend=BACKEND)))
    monkeypatch.setattr(Trials, "is_link_down", lambda _: True)
    other = {**BACKEND, "mqtt_connection": {**BACKEND["mqtt_connection"], "host": "elsewhere"}}
    for revision, backend in ((4, BACKEND), (5, other)):
        offered = foreign(revision, backend=backend, dummy_procedure={"seconds_between_datapoints": revision})
        some = trials(releases, 1, 10)
        begun = some.begin(Offer(identifier=f"offer-{revision}", config=offered))
        releases.write_config(VERSION, as_text(offered))
        some.watch(begun)
    assert [terms.backend for terms in watched] == [None, "ivy-tenta.service"]
    assert [offer.reason for offer in history.load().decisions] == [
        "there is no connection, and was none before"
    ] * 2


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
    assert past.trial is None and past.accepted_revision == 4
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
