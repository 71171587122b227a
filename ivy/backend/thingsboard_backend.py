"""ThingsBoard's dialect: topics, payload forms, limits. The mechanics are the forwarder's.

Three ways to log in, all by `backend.mqtt_connection`: the device's access token as `username`, with anything as
`password`; `client_id`, `username` and `password`; or a client certificate in `tls`, with anything as the
other two.
"""

import bisect
import datetime
import json
import math
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydantic
import pydantic_core

from ivy import constants
from ivy.backend import forwarder
from ivy.backend.dialect import (
    CLOCK_KEY,
    CLOCK_MARK,
    CUT_MARK,
    LARGEST_BATCH,
    Dialect,
    Encoded,
    Incoming,
    Limits,
    OfferError,
    Publication,
    Request,
    pack,
)
from ivy.types.config import Config, ForeignConfig, describe
from ivy.types.messages import ConfigMessageBody, DataMessageBody, LogMessageBody, MessageQueueItem
from ivy.types.model import Model
from ivy.utils.logger import Logger

if TYPE_CHECKING:  # a service's own memory has no use for it
    import multiprocessing.synchronize

_DEVICE = "v1/devices/me"
_TELEMETRY = f"{_DEVICE}/telemetry"
_ATTRIBUTES = f"{_DEVICE}/attributes"
_CONFIG_REQUEST = f"{_ATTRIBUTES}/request/1"
_CONFIG_RESPONSES = f"{_ATTRIBUTES}/response/"
_LIMITS_REQUEST = f"{_DEVICE}/rpc/request/1"
_LIMITS_RESPONSES = f"{_DEVICE}/rpc/response/"
_REQUEST = re.compile(rf"{_DEVICE}/rpc/request/([0-9]{{1,20}})", re.ASCII)
_CONFIG_KEY = "configuration"

_LARGEST_ELEMENT = LARGEST_BATCH - len("[]")
_LARGEST_INTEGER = 2**63 - 1  # a Java long
_RATE = re.compile(r"([0-9]{1,9}):([0-9]{1,9})", re.ASCII)


def run(config: Config, logger: Logger, teardown_indicator: "multiprocessing.synchronize.Event") -> None:
    """Exchange messages and configs with a ThingsBoard server, until told to stop; see `forwarder.run`."""
    forwarder.run(make_dialect(config), config, logger, teardown_indicator)


def make_dialect(config: Config) -> Dialect:
    """The dialect for the node that a config is for. Source of the forms: ThingsBoard's MQTT transport, 4.4."""
    return Dialect(
        provider="thingsboard",
        subscriptions=(
            _ATTRIBUTES,
            f"{_CONFIG_RESPONSES}+",
            f"{_DEVICE}/rpc/request/+",
            f"{_LIMITS_RESPONSES}+",
        ),
        encode=_encode,
        decode=_decode,
        greeting=lambda: _greeting(_identity(config)),
    )


def _greeting(attributes: Mapping[str, Any]) -> Sequence[Publication]:
    """Who this node is, and what it has to ask: for the config, as a change of it is told only once."""
    return (
        Publication(_ATTRIBUTES, _json(attributes).encode()),
        Publication(_CONFIG_REQUEST, _json({"sharedKeys": _CONFIG_KEY}).encode()),
        Publication(_LIMITS_REQUEST, _json({"method": "getSessionLimits", "params": {}}).encode()),
    )


def _identity(config: Config) -> dict[str, Any]:
    """The versions of software, config and system, the host's name, and when it was booted."""
    try:
        debian = Path("/etc/debian_version").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        debian = "unknown"
    booted = datetime.datetime.fromtimestamp(time.time() - time.clock_gettime(time.CLOCK_BOOTTIME), datetime.UTC)
    return {
        "ivy_version": constants.VERSION.as_identifier(),
        "config_revision": config.general.config_revision,
        "hostname": os.uname().nodename,
        "debian_version": debian,
        "boot_time": booted.isoformat(timespec="seconds"),
    }


def _encode(items: Sequence[MessageQueueItem]) -> Encoded:
    elements: list[tuple[int, str]] = []
    points: dict[int, int] = {}
    unsendable: dict[int, str] = {}
    for item in items:
        parts = _parts(item)
        if isinstance(parts, str):
            unsendable[item.identifier] = parts
        else:
            elements += [(item.identifier, part) for part in parts]
            points[item.identifier] = _points(item)
    return Encoded(pack(_TELEMETRY, elements, points), unsendable)


def _parts(item: MessageQueueItem) -> list[str] | str:
    """The elements that a message becomes, nearly always one; or why it has no form."""
    body = item.message_body
    if isinstance(body, DataMessageBody):
        return _samples(item.timestamp, body)
    if isinstance(body, LogMessageBody):
        return [_log(item.timestamp, body)]
    return [_status(item.timestamp, body)]


def _points(item: MessageQueueItem) -> int:
    return len(item.message_body.data) if isinstance(item.message_body, DataMessageBody) else 1


def _samples(timestamp: float, body: DataMessageBody) -> list[str] | str:
    values = {key: value for key, value in body.data.items() if _has_form(value)}
    if not values:
        return "no value in it that ThingsBoard knows"
    if not body.clock_synchronised:
        values.setdefault(CLOCK_KEY, 0)
    parts = list(_split(timestamp, values))
    return parts if all(map(_fits, parts)) else "a value in it is larger than ThingsBoard takes"


def _has_form(value: float | int | str) -> bool:
    if isinstance(value, int):
        return abs(value) <= _LARGEST_INTEGER
    return isinstance(value, str) or math.isfinite(value)


def _split(timestamp: float, values: dict[str, Any]) -> Iterator[str]:
    """All values in one element if they fit, else in halves: elements with one time add up to one sample there."""
    element = _element(timestamp, values)
    if len(values) == 1 or _fits(element):
        yield element
        return
    pairs = list(values.items())
    yield from _split(timestamp, dict(pairs[: len(pairs) // 2]))
    yield from _split(timestamp, dict(pairs[len(pairs) // 2 :]))


def _log(timestamp: float, body: LogMessageBody) -> str:
    """A log message; of a long one, the end of its body is cut off, and of its subject if that is long too."""
    mark = "" if body.clock_synchronised else CLOCK_MARK
    fields = {"level": body.level, "subject": mark + body.subject, "body": body.body}
    for field in ("body", "subject"):
        excess = len(_element(timestamp, {"logging": fields}).encode()) - _LARGEST_ELEMENT
        if excess > 0:
            fields[field] = _cut(fields[field], excess)
    return _element(timestamp, {"logging": fields})


def _cut(text: str, excess: int) -> str:
    """The text without its end, whose JSON form is shorter by at least so many bytes, if it is as long as that."""
    largest = len(_json(text)) - excess - len(_json(CUT_MARK))
    fitting = bisect.bisect_right(range(len(text)), largest, key=lambda end: len(_json(text[:end])))
    return text[: max(0, fitting - 1)] + CUT_MARK


def _status(timestamp: float, body: ConfigMessageBody) -> str:
    """What became of a config. Of one that is too large only the part by which one knows it."""
    config = body.config.model_dump(mode="json")
    element = _element(timestamp, {_CONFIG_KEY: {"status": body.status, "config": config}})
    if _fits(element):
        return element
    general = body.config.general
    known_by = {"config_revision": general.config_revision, "software_version": str(general.software_version)}
    return _element(timestamp, {_CONFIG_KEY: {"status": body.status, "config": {"general": known_by}}})


def _element(timestamp: float, values: Mapping[str, Any]) -> str:
    return _json({"ts": round(timestamp * 1000), "values": values})


def _fits(element: str) -> bool:
    return len(element) <= _LARGEST_ELEMENT  # it is ASCII


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _decode(topic: str, payload: bytes) -> Incoming | None:
    if match := _REQUEST.fullmatch(topic):
        return _request(f"{_DEVICE}/rpc/response/{match[1]}", payload)
    if topic.startswith(_LIMITS_RESPONSES):
        return _limits(payload)
    if topic == _ATTRIBUTES:
        return _offer(payload, ())
    return _offer(payload, ("shared",)) if topic.startswith(_CONFIG_RESPONSES) else None


def _offer(payload: bytes, path: tuple[str, ...]) -> ForeignConfig | None:
    """The config in attributes; there may be none, or others, or the news that it was deleted."""
    try:
        found = pydantic_core.from_json(payload)
    except ValueError:  # its text would repeat what it found
        raise OfferError("it is not valid JSON") from None
    for key in path:
        found = found.get(key) if isinstance(found, dict) else None
    if not isinstance(found, dict) or _CONFIG_KEY not in found:
        return None
    try:
        return ForeignConfig.model_validate(found[_CONFIG_KEY])
    except pydantic.ValidationError as error:
        raise OfferError(describe(error), _revision(found[_CONFIG_KEY])) from None


def _revision(config: Any) -> int | None:
    """The number of a config that is not valid, so that it can be answered all the same."""
    general = config.get("general") if isinstance(config, dict) else None
    revision = general.get("config_revision") if isinstance(general, dict) else None
    return revision if type(revision) is int and 0 <= revision <= _LARGEST_INTEGER else None


class _Call(Model):
    method: str = pydantic.Field(max_length=100)
    params: Any = None


def _request(answer_topic: str, payload: bytes) -> Request:
    try:
        call = _Call.model_validate_json(payload)
    except pydantic.ValidationError:
        return Request(answer_topic, "", None)
    return Request(answer_topic, call.method, call.params)


class _RateLimits(Model):
    messages: str | None = None
    telemetryMessages: str | None = None
    telemetryDataPoints: str | None = None


class _SessionLimits(Model):
    maxPayloadSize: int | None = None  # of the whole packet, in fact
    maxInflightMessages: int | None = None
    rateLimits: _RateLimits = _RateLimits()


def _limits(payload: bytes) -> Limits | None:
    """What the server lets a device send. A server that words it in another way is one that does not answer."""
    try:
        said = _SessionLimits.model_validate_json(payload)
    except pydantic.ValidationError:
        return None
    rates = said.rateLimits
    return Limits(
        publications=_rates(rates.messages) + _rates(rates.telemetryMessages),
        points=_rates(rates.telemetryDataPoints),
        most_in_flight=_limit(said.maxInflightMessages),
        largest_publication=_limit(said.maxPayloadSize),
    )


def _limit(number: int | None) -> int | None:
    return number if number is not None and number > 0 else None


def _rates(text: str | None) -> tuple[tuple[int, float], ...]:
    """`20:1,600:60` is 20 in one second and 600 in a minute."""
    pairs = [_RATE.fullmatch(part.strip()) for part in (text or "").split(",")]
    rates = [(int(pair[1]), float(pair[2])) for pair in pairs if pair]
    return tuple((number, seconds) for number, seconds in rates if number > 0 and seconds > 0)
