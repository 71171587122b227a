"""Tenta's dialect: topics, payload forms, limits. The mechanics are the forwarder's."""

import functools
import math
import re
from typing import TYPE_CHECKING, Any

import pydantic

from ivy.backend import forwarder, payload, remarks
from ivy.backend.dialect import (
    CLOCK_KEY,
    CLOCK_MARK,
    LARGEST_BATCH,
    Dialect,
    NoFormError,
    OfferError,
    Remark,
    encode,
)
from ivy.backend.payload import CUT_MARK, as_json
from ivy.types.config import Config, ConfigError, ForeignConfig, describe
from ivy.types.messages import ConfigMessageBody, DataMessageBody, LogMessageBody, MessageQueueItem
from ivy.types.model import Model
from ivy.utils.logger import Logger

if TYPE_CHECKING:  # a service's own memory has no use for it
    import multiprocessing.synchronize

_LARGEST_REVISION = 2**31 - 1
_LONGEST_KEY = 64
_LONGEST_LOG = 16_384
_LARGEST_LOG = LARGEST_BATCH - len("[]")  # bytes of its element: brokers throw large packets away
_KEY = re.compile("[a-z0-9](_?[a-z0-9])*")
_KINDS = ("measurements", "logs", "acknowledgments")


_MOST_PER_SECOND = 1000  # a server stores 1 400 to 3 500, and keeps the rest in memory
_SEVERITIES = {"DEBUG": "info", "INFO": "info", "WARNING": "warning", "ERROR": "error", "EXCEPTION": "error"}


def run(config: Config, logger: Logger, teardown_indicator: "multiprocessing.synchronize.Event") -> None:
    """Exchange messages and configs with a Tenta server, until told to stop; see `forwarder.run`."""
    forwarder.run(remarks.reporting(make_dialect(config), logger), config, logger, teardown_indicator)


def make_dialect(config: Config) -> Dialect:
    """The dialect for the node that a config is for. Source of the forms: Tenta's server, 2025-01.

    Raises:
        ConfigError: The node's name cannot be part of a topic; some such name subscribes to other nodes' configs.
    """
    sensor = config.general.system_identifier
    if re.search(r"[+#\0]", sensor):
        raise ConfigError("general.system_identifier: is part of MQTT topics, so it must not contain +, # or NUL")
    revision = config.general.config_revision
    sent = as_json(revision if 0 <= revision <= _LARGEST_REVISION else None)

    def elements_of(item: MessageQueueItem, remarks: set[Remark]) -> list[tuple[str, str, int]]:
        kind, element = _element(item, sent, remarks)
        return [(f"{kind}/{sensor}", element, 0)]

    return Dialect(
        provider="tenta",
        subscriptions=(f"configurations/{sensor}",),
        encode=lambda items: encode(items, elements_of, [f"{kind}/{sensor}" for kind in _KINDS]),
        decode=lambda _topic, payload: _decode(payload),
        most_per_second=_MOST_PER_SECOND,
    )


def _element(item: MessageQueueItem, revision: str, remarks: set[Remark]) -> tuple[str, str]:
    """The kind of a message, and what it is in an array of that."""
    body, time = item.message_body, repr(item.timestamp)
    if isinstance(body, DataMessageBody):
        value = _measurements(body, remarks)
        return "measurements", f'{{"value":{value},"revision":{revision},"timestamp":{time}}}'
    if isinstance(body, LogMessageBody):
        rest = f'"severity":"{_SEVERITIES[body.level]}","revision":{revision},"timestamp":{time}'
        return "logs", _log(body, rest)
    return "acknowledgments", f'{_acknowledgment(body)},"timestamp":{time}}}'


def _measurements(body: DataMessageBody, remarks: set[Remark]) -> str:
    """The finite numbers of a sample, under keys of Tenta's pattern. One bad value would drop a whole batch."""
    values = {}
    for (key, value), name in zip(body.data.items(), _names(tuple(body.data)), strict=True):
        if name and not isinstance(value, str) and _is_finite(value):
            values[name] = payload.shortest(value)
        else:
            remarks.add(Remark(key, f"left out: {_why_left_out(name, value)}"))
    if not values:
        raise NoFormError("no finite number in it")
    if not body.clock_synchronised:
        values.setdefault(CLOCK_KEY, "0")
    return "{" + ",".join(f'"{name}":{number}' for name, number in values.items()) + "}"


def _why_left_out(name: str, value: float | int | str) -> str:
    if not name:
        return "its key has no letter or digit"
    if isinstance(value, str):
        return "it is a text, and Tenta takes numbers only"
    return "it is not a finite number"


def _is_finite(number: float | int) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # an integer beyond the range of floats
        return False


@functools.lru_cache(maxsize=16)  # there are about as many kinds of samples as procedures
def _names(keys: tuple[str, ...]) -> tuple[str, ...]:
    return payload.names(keys, _LONGEST_KEY, _spell)


def _spell(key: str) -> str:
    """The nearest key that matches `_KEY` and has at most 64 characters; may be empty.

    Of a letter that Tenta does not know its number stays, as in `u6e29`: else keys would have one name, or none.
    """
    if len(key) <= _LONGEST_KEY and _KEY.fullmatch(key):
        return key
    lower = key.lower()
    if not lower.isascii():
        lower = "".join(letter if letter.isascii() else _numbered(letter) for letter in lower)
    return re.sub("[^a-z0-9]+", "_", lower).strip("_")[:_LONGEST_KEY].rstrip("_")


def _numbered(letter: str) -> str:
    return f" u{ord(letter):04x} " if letter.isalpha() or letter.isdecimal() else " "


def _log(body: LogMessageBody, rest: str) -> str:
    text = _text(body)
    excess = payload.size(f'{{"message":{as_json(text)},{rest}}}') - _LARGEST_LOG
    return f'{{"message":{as_json(payload.cut(text, excess) if excess > 0 else text)},{rest}}}'


def _text(body: LogMessageBody) -> str:
    mark = "" if body.clock_synchronised else CLOCK_MARK
    text = f"{mark}{body.subject}\n{body.body}".strip().replace("\0", "\N{REPLACEMENT CHARACTER}")
    return text if len(text) <= _LONGEST_LOG else text[: _LONGEST_LOG - len(CUT_MARK)] + CUT_MARK


def _acknowledgment(body: ConfigMessageBody) -> str:
    """All but the timestamp."""
    revision = body.config.general.config_revision
    if body.status not in ("accepted", "rejected"):
        raise NoFormError(f'Tenta has no word for the status "{body.status}"')
    if not 0 <= revision <= _LARGEST_REVISION:
        raise NoFormError(f"Tenta knows no revision {revision}")
    return f'{{"success":{as_json(body.status == "accepted")},"revision":{revision}'


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
