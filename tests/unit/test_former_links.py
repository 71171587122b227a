"""Which connection is tried when, and what is remembered of those before."""

import itertools
from pathlib import Path
from typing import Any

import pytest

from ivy.backend.former_links import FormerLink, FormerLinks, choose
from ivy.types.config import Config, ForeignConfig, destination
from ivy.types.state import LinkState
from ivy.types.updates import Offer, Source
from ivy.utils.state_interface import BACKEND_STATE
from ivy.utils.updates import decisions, history
from tests.support.helpers import BACKEND, make_config
from tests.unit.offers import foreign

DAY = 86_400.0


def backend(host: str, provider: str = "tenta") -> dict[str, Any]:
    return {**BACKEND, "provider": provider, "mqtt_connection": {**BACKEND["mqtt_connection"], "host": host}}


CONFIG = make_config(backend=backend("now"))


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def remember(*hosts: str, days: float = 1, source: Source = "backend") -> None:
    """Let connections have been accepted one after the other, each after some days."""
    for number, (before, after) in enumerate(itertools.pairwise(hosts)):
        with history.update() as past:
            config, other = (foreign(number, backend=backend(host)) for host in (before, after))
            now = past.connected_since + days * DAY
            past.keep_connection(config, other, now, is_undone=source == "rollback")


def known() -> list[str]:
    found = history.load().former_connections
    return [str((former.model_extra or {})["backend"]["mqtt_connection"]["host"]) for former in found]


def host_of(link: FormerLink | None) -> str | None:
    return link.config.backend.mqtt_connection.host if link and link.config.backend else None


@pytest.mark.parametrize(
    ("days", "chosen"),
    [(0, None), (6.99, None), (7, 0), (7.03, 0), (7.05, None), (7.99, None), (8.01, 1), (9.01, 2), (10.01, 0)],
)
def test_after_a_week_each_is_tried_for_an_hour_a_day_the_newest_first(days: float, chosen: int | None) -> None:
    assert choose(days * DAY, 3) == chosen
    assert choose(days * DAY, 0) is None


def away(links: FormerLinks, clock: Clock, days: float) -> None:
    """Let the connection be away, with a look every hour."""
    for _ in range(round(days * 24)):
        clock.now += 3600
        links.elapse(is_connected=False)


def test_the_time_without_a_connection_counts_across_restarts_by_no_clock() -> None:
    remember("before", "now")
    for _ in range(7):
        clock = Clock()
        links = FormerLinks(CONFIG, now=clock)
        assert links.now() is None
        away(links, clock, 1)
    links = FormerLinks(CONFIG, now=Clock())  # killed: what was not saved yet may be missing
    assert host_of(links.now()) == "before"


def test_a_connection_that_is_of_use_ends_it_for_good() -> None:
    remember("before", "now")
    clock = Clock()
    links = FormerLinks(CONFIG, now=clock)
    away(links, clock, 7)
    assert host_of(links.now()) == "before"
    links.end()
    assert links.now() is None
    assert FormerLinks(CONFIG, now=clock).seconds_without == 0


def test_time_with_a_connection_does_not_count() -> None:
    clock = Clock()
    links = FormerLinks(CONFIG, now=clock)
    clock.now += 8 * DAY
    links.elapse(is_connected=True)
    assert links.seconds_without == 0


def test_another_connection_counts_from_the_beginning() -> None:
    remember("before", "now")
    clock = Clock()
    links = FormerLinks(CONFIG, now=clock)
    away(links, clock, 6)
    assert FormerLinks(make_config(backend=backend("another")), now=clock).seconds_without == 0
    assert FormerLinks(CONFIG, now=clock).seconds_without == 6 * DAY


def test_what_is_on_trial_is_tried_alone_and_does_not_end_the_counting(root_dir: Path) -> None:
    remember("before", "now")
    clock = Clock()
    links = FormerLinks(CONFIG, now=clock)
    away(links, clock, 6)
    (root_dir / "previous").symlink_to("1.0.0")
    on_trial = FormerLinks(make_config(backend=backend("another")), now=clock)
    away(on_trial, clock, 8)
    assert on_trial.now() is None
    (root_dir / "previous").unlink()
    assert FormerLinks(CONFIG, now=clock).seconds_without == 6 * DAY


def test_state_that_cannot_be_used_is_no_reason_to_fail(data_dir: Path) -> None:
    (data_dir / "state.lock").mkdir()
    clock = Clock()
    links = FormerLinks(CONFIG, now=clock)
    away(links, clock, 1)
    links.save()
    assert links.seconds_without == DAY


def test_the_name_of_the_node_and_the_platform_are_those_of_then() -> None:
    general = {**CONFIG.general.model_dump(mode="json"), "system_identifier": "old-name"}
    parts = {"general": general, "backend": backend("before", "thingsboard")}
    with history.update() as past:
        past.keep_connection(ForeignConfig.model_validate(parts), CONFIG.to_foreign_config(), 5, is_undone=False)
    with BACKEND_STATE.update() as state:
        where = destination(CONFIG.to_foreign_config())
        state.link = LinkState(destination=where, seconds_without=7 * DAY)
    link = FormerLinks(CONFIG, now=Clock()).now()
    assert link and link.dialect.provider == "thingsboard"
    assert link.config.general.system_identifier == "old-name"
    assert link.config.general.config_revision == CONFIG.general.config_revision


def test_what_this_version_cannot_read_is_left_out() -> None:
    with history.update() as past:
        broken = {"provider": "aws", "mqtt_connection": BACKEND["mqtt_connection"]}
        past.keep_connection(foreign(1, backend=broken), CONFIG.to_foreign_config(), 5, is_undone=False)
    clock = Clock()
    links = FormerLinks(CONFIG, now=clock)
    away(links, clock, 7)
    assert links.now() is None


def test_of_a_history_of_version_1_0_0_there_is_what_ran_before_the_last_change() -> None:
    with history.update() as past:
        past.last_good = foreign(1, backend=backend("before"))
    clock = Clock()
    links = FormerLinks(CONFIG, now=clock)
    away(links, clock, 7)
    assert host_of(links.now()) == "before"


def test_each_accepted_change_of_the_connection_is_remembered_with_the_decision() -> None:
    before, after = (foreign(number, backend=backend(host)) for number, host in enumerate(("before", "after")))
    decisions.record(Offer.of_backend(after), "no", before)
    assert known() == []
    decisions.record(Offer.of_backend(foreign(9, backend=backend("after"))), None, before)
    assert known() == ["before"]
    kept = (history.load().former_connections[0].model_extra or {}).keys()
    assert kept == {"backend", "seconds_in_use"}, "no more than is needed"


@pytest.mark.parametrize(
    ("hosts", "remembered"),
    [
        (("a", "a"), []),
        (("a", "b"), ["a"]),
        (("a", "b", "a"), ["b"]),
        (("a", "b", "c", "b"), ["a", "c"]),
        (("a", "b", "c", "d", "e"), ["a", "b", "c", "d"]),
    ],
)
def test_former_connections_are_those_elsewhere(hosts: tuple[str, ...], remembered: list[str]) -> None:
    remember(*hosts)
    assert known() == remembered


def test_whoever_had_the_platform_for_an_hour_cannot_push_the_operator_out() -> None:
    remember("operators", "evil-0", days=300)
    remember(*(f"evil-{number}" for number in range(20)), days=0.01)
    assert known()[0] == "operators"


def test_what_the_admin_went_back_from_is_not_tried_again() -> None:
    remember("a", "evil")
    remember("evil", "a", source="rollback")
    assert known() == []


def test_a_clock_that_jumped_back_does_no_harm() -> None:
    remember("a", "b", days=9)
    remember("b", "c", days=-20)
    assert known() == ["a", "b"]
    assert Config.load_from_string(CONFIG.model_dump_json()) == CONFIG
