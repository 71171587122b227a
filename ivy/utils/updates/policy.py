"""Decides whether an offer may be tried. Pure: looks at nothing but its arguments."""

from typing import Any

import pydantic

from ivy.types.config import Config, ConfigError, ForeignConfig, UpdaterConfig, describe
from ivy.types.updates import Offer
from ivy.utils.updates.errors import Rejected
from ivy.version import Version


def decide(current: ForeignConfig, offer: Offer, updater: UpdaterConfig | None, own_version: Version) -> bool:
    """Decide whether an offer may be tried.

    Args:
        updater: The section of the active config; None where that has none, or none that can be read.
        own_version: The version whose schema is at hand.

    Returns: Whether it asks for another version, to be had as the active config says: the offered one is not
        trusted yet.

    Raises:
        Rejected: The offer is not acceptable.
    """
    if offer.source == "backend":
        _check_bounds(updater or UPDATER_DEFAULTS, offer.config.section("updater"))
    if offer.version == current.general.software_version:
        if offer.version == own_version:
            _check_schema(offer.config)
        return False
    # The way back needs no source of versions: what ran before is kept on the disk.
    if updater is None and offer.source != "rollback":
        raise Rejected("updater: is null in the active config, so this node takes no other version")
    updater = updater or UPDATER_DEFAULTS
    if updater.oldest_version is not None and offer.version < updater.oldest_version:
        raise Rejected(f"version {offer.version} is older than updater.oldest_version, {updater.oldest_version}")
    return True


def _check_schema(config: ForeignConfig) -> None:
    try:
        Config.load_from_string(config.model_dump_json())
    except ConfigError as error:
        raise Rejected(str(error)) from None


def _check_bounds(bounds: UpdaterConfig, offered: dict[str, Any]) -> None:
    """Whoever has the broker must not have the node: what guards updates is loosened by the node's admin only."""
    hint = "only the admin may loosen this, with ivy config apply"
    if bounds.require_signed_tags and offered.get("require_signed_tags", True) is not True:
        raise Rejected(f"updater.require_signed_tags: {hint}")
    if bounds.oldest_version is not None:
        try:
            adapter: pydantic.TypeAdapter[Version | None] = pydantic.TypeAdapter(Version | None)
            oldest = adapter.validate_python(offered.get("oldest_version"))
        except pydantic.ValidationError as error:
            raise Rejected(f"updater.oldest_version: {describe(error)}") from None
        if oldest is None or oldest < bounds.oldest_version:
            raise Rejected(f"updater.oldest_version: {hint}")


UPDATER_DEFAULTS = UpdaterConfig(repository="none/none", provider="github", provider_host="github.com")
"""For a config without that section, and so without other versions: times, and what guards updates."""
