"""What is decided about an offer, from nothing but the active config and the offer."""

import re
from typing import Any

import pytest

from ivy.types.config import Config, ForeignConfig, UpdaterConfig
from ivy.types.updates import Offer, Source
from ivy.utils.state_interface import StateInterface
from ivy.utils.updates import decisions, history, policy
from ivy.utils.updates.errors import Rejected
from ivy.version import Version
from tests.support.helpers import UPDATER, make_config
from tests.unit.offers import foreign

OWN = Version("1.0.0")


def _offer(config: ForeignConfig, source: Source = "backend") -> Offer:
    return Offer(identifier="x", config=config, source=source)


def decide(config: ForeignConfig, source: Source = "backend", **updater: Any) -> bool:
    """Decide about an offer for a node of revision 3 and version 1.0.0, whose section `updater` is given."""
    active = make_config(updater={**UPDATER, **updater})
    return policy.decide(active.to_foreign_config(), _offer(config, source), active.updater, OWN)


@pytest.mark.parametrize("version", ["1.1.0", "0.9.0", "1.0.0-rc.1", "99.0.0"])
def test_another_version_is_a_change_of_version(version: str) -> None:
    assert decide(foreign(version=version))


def test_the_same_version_is_none() -> None:
    assert not decide(foreign())


@pytest.mark.parametrize(
    ("sections", "reason"),
    [
        ({"surprise": {}}, "surprise: unknown field"),
        ({"backend": {"provider": "none-such"}}, "backend.provider: "),
        ({"system_checks": {"seconds_between_checks": 0}}, "system_checks.seconds_between_checks: "),
    ],
)
def test_a_config_for_this_version_must_be_of_its_schema(sections: dict[str, Any], reason: str) -> None:
    with pytest.raises(Rejected, match=reason):
        decide(foreign(**sections))


def test_a_config_for_another_version_is_not_judged_by_this_ones_schema() -> None:
    assert decide(foreign(version="1.1.0", surprise={}, system_checks=None))


def test_where_the_packages_updater_stands_in_it_does_not_judge_the_schema_of_another_version() -> None:
    current = foreign(3, "2.0.0")
    offer = _offer(foreign(4, "2.0.0", surprise={}))
    assert not policy.decide(current, offer, None, OWN)


@pytest.mark.parametrize("source", ["backend", "admin"])
def test_without_a_section_updater_there_are_no_other_versions(source: Source) -> None:
    current = make_config().to_foreign_config()
    with pytest.raises(Rejected, match="updater: is null"):
        policy.decide(current, _offer(foreign(version="1.1.0"), source), None, OWN)
    assert not policy.decide(current, _offer(foreign(), source), None, OWN)


@pytest.mark.parametrize("version", ["0.9.9", "1.0.0-rc.1", "0.10.0"])
def test_no_version_is_older_than_the_oldest(version: str) -> None:
    with pytest.raises(Rejected, match=r"is older than updater\.oldest_version, 1\.0\.0"):
        decide(foreign(version=version), "admin", oldest_version="1.0.0")


def test_the_oldest_version_itself_is_taken() -> None:
    updater = {**UPDATER, "oldest_version": "0.9.0"}
    assert decide(foreign(version="0.9.0", updater=updater), oldest_version="0.9.0")


LOOSER = [
    ({}, {"require_signed_tags": False}, "require_signed_tags"),
    ({}, {"require_signed_tags": None}, "require_signed_tags"),
    ({}, {"require_signed_tags": 0}, "require_signed_tags"),
    ({}, {"require_signed_tags": "true"}, "require_signed_tags"),
    ({"oldest_version": "1.0.0"}, {}, "oldest_version"),
    ({"oldest_version": "1.0.0"}, {"oldest_version": None}, "oldest_version"),
    ({"oldest_version": "1.0.0"}, {"oldest_version": "0.9.0"}, "oldest_version"),
    ({"oldest_version": "1.0.0"}, {"oldest_version": "1.0.0-rc.1"}, "oldest_version"),
    ({"oldest_version": "1.0.0"}, {"oldest_version": ["1.0.0"]}, "oldest_version"),
    ({"oldest_version": "1.0.0"}, {"oldest_version": "$(id)"}, "oldest_version"),
]


@pytest.mark.parametrize("version", ["1.0.0", "1.1.0"])
@pytest.mark.parametrize(("active", "offered", "field"), LOOSER)
def test_a_backend_may_not_loosen_what_guards_updates(
    version: str, active: dict[str, Any], offered: dict[str, Any], field: str
) -> None:
    with pytest.raises(Rejected, match=rf"^updater\.{field}: "):
        decide(foreign(version=version, updater={**UPDATER, **offered}), **active)


@pytest.mark.parametrize("updater", [None, [], "x", 7])
def test_a_backend_may_not_leave_the_section_out_to_get_rid_of_the_oldest_version(updater: Any) -> None:
    with pytest.raises(Rejected, match=r"updater\.oldest_version"):
        decide(foreign(updater=updater), oldest_version="1.0.0")


def test_the_way_back_needs_no_source_of_versions() -> None:
    current, before = make_config().to_foreign_config(), foreign(version="0.9.0")
    assert policy.decide(current, _offer(before, "rollback"), None, OWN)
    with pytest.raises(Rejected, match="updater: is null"):
        policy.decide(current, _offer(before, "admin"), None, OWN)


def test_a_backend_may_not_loosen_the_default_where_the_node_has_no_section() -> None:
    offer = _offer(foreign(updater={**UPDATER, "require_signed_tags": False}))
    with pytest.raises(Rejected, match="only the admin"):
        policy.decide(make_config().to_foreign_config(), offer, None, OWN)


@pytest.mark.parametrize(
    ("active", "offered"),
    [
        ({"require_signed_tags": False}, {"require_signed_tags": True}),
        ({"require_signed_tags": False}, {"require_signed_tags": False}),
        ({"oldest_version": "1.0.0"}, {"oldest_version": "1.0.1"}),
        ({"oldest_version": "1.0.0"}, {"oldest_version": "1.0.0"}),
        ({}, {"oldest_version": "1.0.0"}),
        ({}, {"repository": "other/name"}),
    ],
)
def test_a_backend_may_tighten_it(active: dict[str, Any], offered: dict[str, Any]) -> None:
    decide(foreign(updater={**UPDATER, **active, **offered}), **active)


@pytest.mark.parametrize("source", ["admin", "rollback"])
def test_the_admin_may_loosen_it(source: Source) -> None:
    config = foreign(updater={**UPDATER, "require_signed_tags": False, "oldest_version": None})
    decide(config, source, oldest_version="1.0.0")


@pytest.mark.parametrize("source", ["admin", "rollback"])
@pytest.mark.parametrize("revision", [3, 1, -1])
def test_the_admin_decides_about_revisions(source: Source, revision: int) -> None:
    assert not decide(foreign(revision), source)


@pytest.mark.parametrize(
    ("pending", "decided", "undecided"),
    [
        ([], -1, []),
        ([5], 5, []),
        ([4, 5], 6, []),
        ([6], 5, [6]),
        ([8, 6, 7], 5, [6, 7, 8]),
        ([5, 6, 8], 6, [8]),
        ([0], -1, [0]),
    ],
)
def test_the_undecided_offers_have_the_newest_last(pending: list[int], decided: int, undecided: list[int]) -> None:
    with StateInterface.update() as state, history.update() as past:
        state.pending_configs = [foreign(revision) for revision in pending]
        past.decided_revision = decided
    assert [offer.revision for offer in decisions.undecided()] == undecided


def test_an_offer_of_a_backend_is_known_by_its_revision_and_its_content() -> None:
    offer = Offer.of_backend(foreign(7))
    assert re.fullmatch("revision-7-[0-9a-f]{8}", offer.identifier)
    assert Offer.of_backend(foreign(7)).identifier == offer.identifier
    assert Offer.of_backend(foreign(7, more=1)).identifier != offer.identifier
    assert offer.version == OWN


def test_the_defaults_guard() -> None:
    assert policy.UPDATER_DEFAULTS.require_signed_tags
    assert UpdaterConfig.model_fields["require_signed_tags"].default is True
    assert Config.model_fields["updater"].default is None
