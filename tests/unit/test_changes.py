"""Which services a change of the config restarts, and whether it concerns the link."""

from typing import Any

import pytest

from ivy.types.config import ForeignConfig
from ivy.utils.updates.changes import concerns_link, must_send, services_to_restart
from tests.support.helpers import BACKEND
from tests.unit.offers import foreign

TENTA, CHECKS, WIND, HEAT_BOX = (f"ivy-{name}.service" for name in ("tenta", "system-checks", "wind", "heat-box"))
WANTED = [TENTA, CHECKS, WIND, HEAT_BOX]


def config(revision: int = 4, version: str = "1.1.0", **sections: Any) -> ForeignConfig:
    others = {"backend": BACKEND, "wind": {"seconds": 1}, "heat_box": {"celsius": 40}}
    return foreign(revision, version, **{**others, **sections})


def restarted(**sections: Any) -> set[str] | None:
    return services_to_restart(config(), config(5, **sections), WANTED, TENTA)


@pytest.mark.parametrize(
    ("sections", "units"),
    [
        ({}, set()),
        ({"wind": {"seconds": 2}}, {WIND}),
        ({"heat_box": None}, {HEAT_BOX}),
        ({"wind": {"seconds": True}}, {WIND}),  # which is not 1
        ({"wind": {"seconds": 2}, "heat_box": {}}, {WIND, HEAT_BOX}),
        ({"procedures": {"wind": {"enabled": True}}}, set()),  # what did not run is started in any case
        ({"procedures": {"wind": {"max_silent_seconds": 7}}}, set()),  # of no use to the procedure itself
        ({"procedures": {"rain": {"enabled": False}}}, set()),  # it has no unit that is wanted
        ({"procedures": {}}, set()),  # as it is without
        ({"backend": {**BACKEND, "max_drain_time": 7}}, set()),
        ({"system_checks": {"seconds_between_checks": 7}}, {CHECKS}),
    ],
)
def test_what_belongs_to_a_procedure_restarts_no_other(sections: dict[str, Any], units: set[str]) -> None:
    assert restarted(**sections) == units | {TENTA}


@pytest.mark.parametrize(
    "sections",
    [
        {"archive": {"max_days": 7}},
        {"wind": {"seconds": 2}, "queue": {"max_megabytes": 7}},
        {"updater": {"repository": "other/ivy"}},
        {"unknown": 1},
        {"general": {"config_revision": 5, "software_version": "1.1.0", "system_identifier": "other"}},
        {"logging_verbosity": {"file_archive": None, "console_prints": None, "message_sending": None}},
    ],
)
def test_what_belongs_to_nobody_restarts_all(sections: dict[str, Any]) -> None:
    assert restarted(**sections) is None


def test_another_version_restarts_all() -> None:
    assert services_to_restart(config(), config(version="1.2.0"), WANTED, TENTA) is None


def test_where_nobody_knows_what_was_before_all_restart() -> None:
    assert services_to_restart(None, config(), WANTED, TENTA) is None and concerns_link(None, config())


def test_a_node_without_a_backend_restarts_none_for_it() -> None:
    before, after = config(backend=None), config(5, backend=None, wind={})
    assert services_to_restart(before, after, WANTED, None) == {WIND}


@pytest.mark.parametrize(
    ("changed", "concerns"),
    [
        ({}, False),
        ({"wind": {"seconds": 2}}, False),
        ({"archive": {"max_days": 7}}, False),
        ({"backend": {**BACKEND, "max_drain_time": 7}}, True),
        ({"backend": None}, True),
        ({"version": "1.2.0"}, True),
        ({"general": {"config_revision": 5, "software_version": "1.1.0", "system_identifier": "other"}}, True),
    ],
)
def test_a_link_that_is_away_is_blamed_on_what_may_have_cut_it(changed: dict[str, Any], concerns: bool) -> None:
    assert concerns_link(config(), config(5, **changed)) is concerns


HOURLY = {"wind": {"max_silent_seconds": 3600}}
STREAM = {"wind": {"max_silent_seconds": 20}}


@pytest.mark.parametrize(
    ("rest", "changed", "must"),
    [
        (10, {}, True),
        (150, {}, True),
        (151, {}, False),  # it may take longer than there is time for
        (3600, {}, False),
        (3600, {"procedures": STREAM}, True),
        (10, {"procedures": HOURLY}, False),
        (10, {"procedures": {"wind": {"max_silent_seconds": True}}}, True),  # of another version: no number
        (10, {"procedures": {"wind": 7}}, True),
        (10, {"wind": {"seconds": 1, "device": "other", "is_quick": True}}, True),
        (10, {"wind": {"seconds": 3600}}, False),  # it may be another rhythm
        (10, {"wind": {"seconds": 3600}, "procedures": STREAM}, True),
        (10, {"wind": {"seconds": 1, "at": [6.5, 18]}}, False),
        (10, {"heat_box": {"celsius": 50}}, True),
        (10, {"version": "1.2.0"}, True),
    ],
)
def test_who_sent_data_must_send_again_as_far_as_its_rhythm_allows(
    rest: float, changed: dict[str, Any], must: bool
) -> None:
    found = must_send({WIND: rest}, config(), config(5, **changed), most_seconds=300)
    assert found == ({WIND} if must else set())


def test_without_the_config_of_before_only_a_limit_is_known() -> None:
    assert must_send({WIND: 10}, None, config(), 300) == set()
    assert must_send({WIND: 10}, None, config(procedures=STREAM), 300) == {WIND}
