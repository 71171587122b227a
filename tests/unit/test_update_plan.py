"""What is decided about an offer, from nothing but the active config and the offer."""

import contextlib
import re
from typing import Any

import pytest

from ivy.types.config import Config, ForeignConfig, UpdaterConfig
from ivy.types.updates import Offer, Source
from ivy.utils.state_interface import StateInterface
from ivy.utils.updates import decisions, policy
from ivy.utils.updates.errors import OldRevision, Rejected
from ivy.version import Version
from tests.support.helpers import BACKEND, CONFIG, UPDATER, make_config
from tests.unit.offers import foreign

OWN = Version("1.0.0")
CONNECTION = BACKEND["mqtt_connection"]


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


def test_the_version_of_the_package_needs_none_either_if_the_admin_wants_it() -> None:
    current, brought = make_config().to_foreign_config(), Version("1.1.0")
    wanted = foreign(version="1.1.0")
    assert policy.decide(current, _offer(wanted, "admin"), None, OWN, brought)
    for offer in (_offer(wanted), _offer(foreign(version="1.2.0"), "admin")):
        with pytest.raises(Rejected, match="updater: is null"):
            policy.decide(current, offer, None, OWN, brought)


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
        ([], [], []),
        ([5], [5], []),
        ([6], [5, 2**31 - 1], [6]),
        ([8, 6, 7], [5], [8, 6, 7]),
        ([2**31 - 1, 6], [], [2**31 - 1, 6]),
        ([6, 3], [], [3, 6]),
        ([5, 6, 8], [6], [5, 8]),
        ([0], [], [0]),
    ],
)
def test_the_undecided_offers_have_the_newest_last(
    pending: list[int], decided: list[int], undecided: list[int]
) -> None:
    for revision in decided:
        decisions.record(Offer.of_backend(foreign(revision)), "no")
    with StateInterface.update() as state:
        state.pending_configs = [foreign(revision) for revision in pending]
    assert [offer.revision for offer in decisions.undecided(active=3)] == undecided


def test_an_offer_must_exceed_the_revision_that_counts() -> None:
    policy.check_revision(_offer(foreign(6)), 5)
    for revision in (5, 4):
        with pytest.raises(
            OldRevision, match=rf"^general\.config_revision: {revision} is not higher than 5, .*; use 6\."
        ):
            policy.check_revision(_offer(foreign(revision)), 5)
        policy.check_revision(_offer(foreign(revision), "admin"), 5)
        policy.check_revision(_offer(foreign(revision), "rollback"), 5)


def test_an_offer_of_a_backend_is_known_by_its_revision_and_its_content() -> None:
    offer = Offer.of_backend(foreign(7))
    assert re.fullmatch("revision-7-[0-9a-f]{8}", offer.identifier)
    assert Offer.of_backend(foreign(7)).identifier == offer.identifier
    assert Offer.of_backend(foreign(7, more=1)).identifier != offer.identifier
    assert offer.version == OWN


LOCKS: dict[str, dict[str, Any]] = {
    "backend.mqtt_connection": {"backend": {**BACKEND, "mqtt_connection": {**CONNECTION, "host": "elsewhere"}}},
    "backend.mqtt_connection.password": {
        "backend": {**BACKEND, "mqtt_connection": {**CONNECTION, "password": "x"}}
    },
    "backend.mqtt_connection.tls": {
        "backend": {**BACKEND, "mqtt_connection": {**CONNECTION, "tls": {"enabled": True}}}
    },
    "backend": {"backend": None},
    "backend.provider": {"backend": {**BACKEND, "provider": "thingsboard"}},
    "archive": {"archive": {"max_days": 1}},
    "archive.max_days": {"archive": {"max_days": 1}},
    "queue.max_megabytes": {"queue": {"max_megabytes": True}},
    "general": {"general": {**CONFIG["general"], "config_revision": 4, "system_identifier": "another"}},
    "metrics": {"metrics": {"textfile_directory": "/tmp"}},
}


def locked(*paths: str) -> dict[str, Any]:
    return {"updater": {**UPDATER, "locked": list(paths)}, "backend": BACKEND, "queue": {"max_megabytes": 1}}


def decide_locked(config: ForeignConfig, *paths: str, source: Source = "backend") -> bool:
    active = make_config(**locked(*paths))
    return policy.decide(active.to_foreign_config(), _offer(config, source), active.updater, OWN)


@pytest.mark.parametrize("version", ["1.0.0", "1.1.0"])
@pytest.mark.parametrize("path", LOCKS)
def test_what_is_locked_is_changed_by_nobody_but_the_admin(path: str, version: str) -> None:
    others = ["logging_verbosity", "system_checks"]
    offered = {**locked(*others, path), **LOCKS[path]}
    if path == "general":
        offer = ForeignConfig.model_validate({**foreign(**offered).model_dump(mode="json"), **offered})
    else:
        offer = foreign(version=version, **offered)
    with pytest.raises(Rejected, match=rf"^{re.escape(path)}: is locked; only the admin may change this"):
        decide_locked(offer, *others, path)
    with contextlib.suppress(Rejected):  # by the schema
        decide_locked(offer, *others, path, source="admin")
    decide_locked(foreign(version="1.1.0", **{**offered, **locked("metrics")}), source="admin")


@pytest.mark.parametrize("path", LOCKS)
def test_what_is_locked_may_be_said_again(path: str) -> None:
    active = make_config(**locked(path))
    stated = locked(path)
    filled = {**active.model_dump(mode="json"), **stated}
    del filled["general"]
    for sections in (stated, filled):
        assert not decide_locked(foreign(**sections), path)
    if path != "general":
        assert decide_locked(foreign(version="1.1.0", **stated, of_another_version={}), path)


@pytest.mark.parametrize(
    "updater", [None, {**UPDATER}, {**UPDATER, "locked": []}, {**UPDATER, "locked": ["queue"]}]
)
@pytest.mark.parametrize("version", ["1.0.0", "1.1.0"])
def test_no_backend_changes_the_list_of_what_is_locked(updater: Any, version: str) -> None:
    offer = foreign(version=version, **{**locked(), "updater": updater})
    with pytest.raises(Rejected, match=r"(?m)^updater\.locked: is locked"):
        decide_locked(offer, "queue", "archive")
    decide_locked(offer, "queue", "archive", source="admin") if updater or version == "1.0.0" else None


def test_a_backend_cannot_lock_the_operator_out() -> None:
    with pytest.raises(Rejected, match=r"^updater\.locked: is locked"):
        decide_locked(foreign(**locked("backend")))


def test_a_section_that_is_locked_gets_nothing_new_with_another_version() -> None:
    more = {"backend": {**BACKEND, "mqtt_connection": {**CONNECTION, "proxy": "evil"}}}
    offer = foreign(version="1.1.0", **{**locked("backend"), **more})
    with pytest.raises(Rejected, match=r"^backend: is locked"):
        decide_locked(offer, "backend")


def test_what_another_version_has_locked_is_locked_where_its_config_cannot_be_read() -> None:
    """As where the package's updater stands in for it."""
    section = {**UPDATER, "locked": ["wind.offset", "nothing.at.all"], "of_the_future": 1}
    current = foreign(3, "2.0.0", updater=section, wind={"offset": 1})
    for wind in ({"offset": 2}, {}, {"offset": True}):
        with pytest.raises(Rejected, match=r"^wind\.offset: is locked"):
            policy.decide(current, _offer(foreign(4, "2.0.0", updater=section, wind=wind)), None, OWN)
    same = foreign(4, "2.0.0", updater=section, wind={"offset": 1, "gain": 3})
    assert not policy.decide(current, _offer(same), None, OWN)


KEEPS_LESS: list[tuple[str, str, Any]] = [
    ("archive", "max_days", 1),
    ("archive", "max_days", "30"),
    ("archive", "max_days", 29.5),
    ("queue", "max_megabytes", 1),
    ("queue", "max_megabytes", True),
    ("queue", "min_free_megabytes", 501),
]
KEEPS_AS_MUCH: list[tuple[str, str, Any]] = [
    ("archive", "max_days", 30),
    ("archive", "max_days", 31),
    ("archive", "max_days", None),
    ("queue", "max_megabytes", 2001),
    ("queue", "min_free_megabytes", 499),
]


@pytest.mark.parametrize("source", ["backend", "admin"])
@pytest.mark.parametrize(("section", "field", "value"), KEEPS_LESS)
def test_a_version_that_does_not_wait_for_the_decision_gets_no_config_that_deletes_more(
    section: str, field: str, value: Any, source: Source
) -> None:
    active = make_config(archive={"max_days": 30}, updater=UPDATER).to_foreign_config()
    offered: dict[str, Any] = {"archive": {"max_days": 30}, "updater": UPDATER, section: {field: value}}
    offer = _offer(foreign(version="1.0.0", **offered), source)
    for current in (active, foreign(3, "1.1.0", **active.model_dump(mode="json", exclude={"general"}))):
        with pytest.raises(Rejected, match=rf"^{section}\.{field}: version 1\.0\.0 would delete by it"):
            policy.decide(current, offer, UpdaterConfig.model_validate(UPDATER), Version("1.1.0"))
    policy.decide(active, _offer(foreign(version="1.2.0", **offered)), UpdaterConfig.model_validate(UPDATER), OWN)


@pytest.mark.parametrize(("section", "field", "value"), KEEPS_AS_MUCH)
def test_it_gets_one_that_keeps_as_much(section: str, field: str, value: Any) -> None:
    active = make_config(archive={"max_days": 30}, updater=UPDATER).to_foreign_config()
    offered: dict[str, Any] = {"archive": {"max_days": 30}, "updater": UPDATER, section: {field: value}}
    policy.decide(active, _offer(foreign(**offered)), UpdaterConfig.model_validate(UPDATER), OWN)


def test_the_way_back_is_open_whatever_it_deletes() -> None:
    offer = _offer(foreign(version="1.0.0", archive={"max_days": 1}), "rollback")
    assert policy.decide(foreign(3, "1.1.0"), offer, None, Version("1.1.0"))


def test_all_that_is_locked_and_changed_is_named_at_once() -> None:
    with pytest.raises(Rejected) as rejected:
        decide_locked(
            foreign(**{**locked("queue", "archive"), **LOCKS["archive"], "queue": {}}), "queue", "archive"
        )
    assert [line.split(":")[0] for line in str(rejected.value).splitlines()] == ["queue", "archive"]


def test_the_defaults_guard() -> None:
    assert policy.UPDATER_DEFAULTS.require_signed_tags
    assert UpdaterConfig.model_fields["require_signed_tags"].default is True
    assert Config.model_fields["updater"].default is None
