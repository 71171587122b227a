"""Tenta's dialect: topics, payload forms, limits. The mechanics are the forwarder's."""

import json
import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pydantic

from ivy.backend import forwarder
from ivy.backend.dialect import CLOCK_KEY, CLOCK_MARK, CUT_MARK, Dialect, Encoded, OfferError, pack
from ivy.types.config import Config, ConfigError, ForeignConfig, describe
from ivy.types.messages import ConfigMessageBody, DataMessageBody, LogMessageBody, MessageQueueItem
from ivy.types.model import Model
from ivy.utils.logger import Logger

if TYPE_CHECKING:  # a service's own memory has no use for it
    import multiprocessing.synchronize

_LARGEST_REVISION = 2**31 - 1
_LONGEST_KEY = 64
_LONGEST_LOG = 16_384
_SEVERITIES = {"DEBUG": "info", "INFO": "info", "WARNING": "warning", "ERROR": "error", "EXCEPTION": "error"}


def run(config: Config, logger: Logger, teardown_indicator: "multiprocessing.synchronize.Event") -> None:
    """Exchange messages and configs with a Tenta server, until told to stop; see `forwarder.run`."""
    forwarder.run(make_dialect(config), config, logger, teardown_indicator)


def make_dialect(config: Config) -> Dialect:
    """The dialect for the node that a config is for. Source of the forms: Tenta's server, 2025-01.

    Raises:
        ConfigError: The node's name cannot be part of a topic; some such name subscribes to other nodes' configs.
    """
    sensor = config.general.system_identifier
    if re.search(r"[+#\0]", sensor):
        raise ConfigError("general.system_identifier: is part of MQTT topics, so it must not contain +, # or NUL")
    revision = config.general.config_revision
    return Dialect(
        provider="tenta",
        subscriptions=(f"configurations/{sensor}",),
        encode=lambda items: _encode(items, sensor, revision if 0 <= revision <= _LARGEST_REVISION else None),
        decode=lambda _topic, payload: _decode(payload),
    )


def _encode(items: Sequence[MessageQueueItem], sensor: str, revision: int | None) -> Encoded:
    elements: dict[str, list[tuple[int, str]]] = {"measurements": [], "logs": [], "acknowledgments": []}
    unsendable: dict[int, str] = {}
    for item in items:
        kind, fields = _form(item, revision)
        if isinstance(fields, str):
            unsendable[item.identifier] = fields
        else:
            element = json.dumps({**fields, "timestamp": item.timestamp}, separators=(",", ":"), allow_nan=False)
            elements[kind].append((item.identifier, element))
    publications = [publication for kind in elements for publication in pack(f"{kind}/{sensor}", elements[kind])]
    return Encoded(publications, unsendable)


def _form(item: MessageQueueItem, revision: int | None) -> tuple[str, dict[str, Any] | str]:
    """The kind of a message, and its element without the timestamp, or why it has none."""
    body = item.message_body
    if isinstance(body, DataMessageBody):
        value = _measurements(body)
        return "measurements", {"value": value, "revision": revision} if value else "no finite number in it"
    if isinstance(body, LogMessageBody):
        return "logs", {"message": _text(body), "severity": _SEVERITIES[body.level], "revision": revision}
    return "acknowledgments", _acknowledgment(body)


def _measurements(body: DataMessageBody) -> dict[str, float | int]:
    """The finite numbers of a sample, under keys of Tenta's pattern. One bad value would drop a whole batch."""
    value: dict[str, float | int] = {}
    for key, number in body.data.items():
        spelt = _spell(key)
        if spelt and not isinstance(number, str) and _is_finite(number):
            value[_unused(spelt, value)] = number
    if value and not body.clock_synchronised:
        value[_unused(CLOCK_KEY, value)] = 0
    return value


def _is_finite(number: float | int) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # an integer beyond the range of floats
        return False


def _spell(key: str) -> str:
    """The nearest key that matches `[a-z0-9](_?[a-z0-9])*` and has at most 64 characters; may be empty."""
    return re.sub("[^a-z0-9]+", "_", key.lower()).strip("_")[:_LONGEST_KEY].rstrip("_")


def _unused(key: str, used: dict[str, float | int]) -> str:
    """The key, or if another key was spelt like it, the key with a number."""
    number, candidate = 2, key
    while candidate in used:
        suffix = f"_{number}"
        candidate = key[: _LONGEST_KEY - len(suffix)].rstrip("_") + suffix
        number += 1
    return candidate


def _text(body: LogMessageBody) -> str:
    mark = "" if body.clock_synchronised else CLOCK_MARK
    text = f"{mark}{body.subject}\n{body.body}".strip().replace("\0", "\N{REPLACEMENT CHARACTER}")
    return text if len(text) <= _LONGEST_LOG else text[: _LONGEST_LOG - len(CUT_MARK)] + CUT_MARK


def _acknowledgment(body: ConfigMessageBody) -> dict[str, Any] | str:
    revision = body.config.general.config_revision
    if body.status not in ("accepted", "rejected"):
        return f'Tenta has no word for the status "{body.status}"'
    if not 0 <= revision <= _LARGEST_REVISION:
        return f"Tenta knows no revision {revision}"
    return {"success": body.status == "accepted", "revision": revision}


class _Numbered(Model):
    revision: int = pydantic.Field(strict=True, ge=0, le=_LARGEST_REVISION)


class _Offer(_Numbered):
    configuration: dict[str, Any]


def _decode(payload: bytes) -> ForeignConfig | None:
    """The config of an offer. Its number stands beside it, not in it."""
    if not payload:  # a retained offer was taken back
        return None
    try:
        offer = _Offer.model_validate_json(payload)
        general = offer.configuration.get("general")
        if isinstance(general, dict):
            general["config_revision"] = offer.revision
        return ForeignConfig.model_validate(offer.configuration)
    except pydantic.ValidationError as error:
        raise OfferError(describe(error), _revision(payload)) from None


def _revision(payload: bytes) -> int | None:
    """The number of an offer that is not valid, so that it can be answered all the same."""
    try:
        return _Numbered.model_validate_json(payload).revision
    except pydantic.ValidationError:
        return None
