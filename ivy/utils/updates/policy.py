"""Decides whether an offer may be tried. Pure: looks at nothing but its arguments."""

import functools
import json
from collections.abc import Callable, Iterator
from typing import Any

import pydantic

from ivy.types import secrets
from ivy.types.config import Config, ConfigError, ForeignConfig, UpdaterConfig, destination, section_of
from ivy.types.updates import Offer
from ivy.utils.updates.errors import OldRevision, Rejected
from ivy.version import Version


def decide(
    current: ForeignConfig,
    offer: Offer,
    updater: UpdaterConfig | None,
    own_version: Version,
    bundled: Version | None = None,
) -> bool:
    """Decide whether an offer may be tried.

    Args:
        updater: The section of the active config; None where that has none, or none that can be read.
        own_version: The version whose schema is at hand.
        bundled: The version that the package has brought.

    Returns: Whether it asks for another version, to be had as the active config says: the offered one is not
        trusted yet.

    Raises:
        Rejected: The offer is not acceptable.
    """
    if offer.source == "backend":
        _check_guards(current, updater or UPDATER_DEFAULTS, offer.config)
    if offer.source != "rollback" and offer.version < _FIRST_THAT_WAITS:
        _check_kept(current, offer)
    if offer.version == current.general.software_version:
        if offer.version == own_version:
            _check_schema(offer.config)
        return False
    # What ran before is kept, and what the admin has installed is there: neither needs a source of versions.
    is_at_hand = offer.source == "rollback" or (offer.source == "admin" and offer.version == bundled)
    if updater is None and not is_at_hand:
        raise Rejected("updater: is null in the active config, so this node takes no other version")
    updater = updater or UPDATER_DEFAULTS
    if updater.oldest_version is not None and offer.version < updater.oldest_version:
        raise Rejected(f"version {offer.version} is older than updater.oldest_version, {updater.oldest_version}")
    return True


def check_ways(current: ForeignConfig, offer: Offer, paths: list[str]) -> None:
    """Whoever has the platform must not have the node's secrets sent elsewhere.

    Args:
        paths: Where the node's own secrets were filled in.

    Raises:
        Rejected: One would go another way than now: to another host, port or URL, or in another encryption.
    """
    if offer.source != "backend":
        return
    active, offered = filled(current), filled(offer.config)
    broken = []
    for path in paths:
        now, then = (dict(secrets.guards(config, path)) for config in (active, offered))
        changed = [way for way in {**now, **then} if not _is_same(now.get(way, _NOTHING), then.get(way, _NOTHING))]
        if changed:
            broken.append(f"{path}: is {secrets.HIDDEN}, but {', '.join(changed)} is another one; give the value")
    if broken:
        raise Rejected("\n".join(broken))


def check_name(current: ForeignConfig, offer: Offer, backlog: Callable[[], int]) -> None:
    """Samples of one node must not become those of another: messages have no name in the queue.

    What the platform itself offers comes over a link, over which the backend sends what is queued before it ends.

    Args:
        backlog: Counts the messages that wait and would be sent by the offered config only; asked where the admin
            gives the node another name.

    Raises:
        Rejected: There are such.
    """
    before, after = destination(current), destination(offer.config)
    if offer.source == "backend" or before is None or after is None:
        return
    old, new = before["system_identifier"], after["system_identifier"]
    if old != new and (waiting := backlog()):
        raise Rejected(
            f"general.system_identifier: {waiting} messages wait that were taken as {old}, and would be"
            f" sent as {new}: offer this when they are sent, or use ivy config apply --yes"
        )


def filled(config: ForeignConfig) -> dict[str, Any]:
    """All fields of a config of any version, with this one's defaults for those that are left out."""
    return _with_defaults(config.model_dump(mode="json"), Config)


def different(one: Any, other: Any) -> set[str]:
    """The keys whose values differ between two sections; of `general`, the revision does not count."""
    one, other = (each if isinstance(each, dict) else {} for each in (one, other))
    return {key for key in {*one, *other} if not _is_same(_at(one, key), _at(other, key))}


def check_revision(offer: Offer, known: int) -> None:
    """Decide whether an offer is a new one, by its number.

    Args:
        offer: The offer. Only a platform counts, and only configs; the admin may offer any revision.
        known: See `History.revision_to_exceed`.

    Raises:
        OldRevision: It is not.
    """
    if offer.source == "backend" and offer.package is None and offer.revision <= known:
        raise OldRevision(
            f"general.config_revision: {offer.revision} is not higher than {known}, which is known, so this may be"
            f" an old config that was sent again; use {known + 1}. Or, if the platform counts from the beginning"
            " again, offer it once more under its next revision, which will be taken"
        )


def _check_schema(config: ForeignConfig) -> None:
    try:
        Config.load_from_string(config.model_dump_json())
    except ConfigError as error:
        raise Rejected(str(error)) from None


def _check_kept(current: ForeignConfig, offer: Offer) -> None:
    """Nothing is deleted by a config that may yet be undone. Services of an old version do not wait for that."""
    active, offered = filled(current), filled(offer.config)
    for path, keeps in _KEEPS.items():
        value, present = _at(offered, path), _at(active, path)
        if not _is_same(value, present) and not keeps(value, present):
            raise Rejected(
                f"{path}: version {offer.version} would delete by it at once, although it may be undone; change the"
                " version first, and this afterwards"
            )


def _is_more(value: Any, present: Any) -> bool:
    return type(value) is int and type(present) is int and value > present


_FIRST_THAT_WAITS = Version("1.1.0")
"""The first version that deletes nothing because of a config on trial."""

_KEEPS: dict[str, Callable[[Any, Any], bool]] = {
    "archive.max_days": lambda days, present: days is None or _is_more(days, present),
    "queue.max_megabytes": _is_more,
    "queue.min_free_megabytes": lambda room, present: _is_more(present, room),
}
"""Settings by which services delete, and whether a value keeps as much as another."""


def _check_guards(current: ForeignConfig, updater: UpdaterConfig, offer: ForeignConfig) -> None:
    """Whoever has the broker must not have the node: what is guarded is loosened or changed by the admin only."""
    offered = filled(offer)
    broken = [
        f"{path}: {hint}" for path, allows, hint in _guards(current, updater) if not allows(_at(offered, path))
    ]
    if broken:
        raise Rejected("\n".join(broken))


def _guards(current: ForeignConfig, updater: UpdaterConfig) -> Iterator[tuple[str, Callable[[Any], bool], str]]:
    """What the active config guards: a path, what may be offered there, and what is said of anything else."""
    hint = "only the admin may loosen this, with ivy config apply"
    if updater.require_signed_tags:
        yield "updater.require_signed_tags", lambda value: value is True or value is _NOTHING, hint
    if (oldest := updater.oldest_version) is not None:
        yield "updater.oldest_version", lambda value: _is_from(value, oldest), hint
    # As it stands in the file: where this version cannot read the section, it is another one's.
    active = filled(current)
    locked = _at(active, "updater.locked")
    hint = "is locked; only the admin may change this, with ivy config apply"
    for path in map(str, locked if isinstance(locked, list) else ()):
        yield path, functools.partial(_is_same, _at(active, path)), hint
    yield "updater.locked", lambda value: _is_same(value, locked) or _is_empty(value, locked), hint


def _is_from(value: Any, oldest: Version) -> bool:
    try:
        return bool(pydantic.TypeAdapter(Version).validate_python(value) >= oldest)
    except pydantic.ValidationError:
        return False


def _with_defaults(stated: dict[str, Any], schema: type[pydantic.BaseModel]) -> dict[str, Any]:
    filled = dict(stated)
    for name, field in schema.model_fields.items():
        section = section_of(field)
        if name not in stated and not field.is_required():
            default = field.get_default()
            filled[name] = default.model_dump(mode="json") if isinstance(default, pydantic.BaseModel) else default
        elif section is not None and isinstance(stated.get(name), dict):
            filled[name] = _with_defaults(stated[name], section)
    return filled


def _at(content: Any, path: str) -> Any:
    for step in path.split("."):
        if not isinstance(content, dict) or step not in content:
            return _NOTHING
        content = content[step]
    if path == "general":
        return {name: value for name, value in content.items() if name != "config_revision"}
    return content


def _is_empty(*lists: Any) -> bool:
    return all(found is _NOTHING or found == [] for found in lists)


def _is_same(value: Any, other: Any) -> bool:
    """As texts, so that 1 is not true."""
    return _text(value) == _text(other)


def _text(value: Any) -> str:
    return "" if value is _NOTHING else json.dumps(value, sort_keys=True)


_NOTHING = object()

UPDATER_DEFAULTS = UpdaterConfig(repository="none/none", provider="github", provider_host="github.com")
"""For a config without that section, and so without other versions: times, and what guards updates."""
