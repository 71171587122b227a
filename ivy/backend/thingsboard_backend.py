"""ThingsBoard's dialect: topics, payload forms, limits. The mechanics are the forwarder's.

Three ways to log in, all by `backend.mqtt_connection`: the device's access token as `username`, with anything as
`password`; `client_id`, `username` and `password`; or a client certificate in `tls`, with anything as the
other two.
"""

import datetime
import functools
import json
import math
import os
import re
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydantic
import pydantic_core

from ivy import constants
from ivy.backend import forwarder, payload, remarks, update_packages
from ivy.backend.dialect import (
    CLOCK_KEY,
    CLOCK_MARK,
    LARGEST_BATCH,
    Dialect,
    Incoming,
    Limits,
    NoFormError,
    OfferError,
    Publication,
    Remark,
    Request,
    encode,
)
from ivy.backend.payload import as_json
from ivy.types.config import Config, ForeignConfig, describe
from ivy.types.messages import ConfigMessageBody, DataMessageBody, LogMessageBody, MessageQueueItem
from ivy.types.model import Model
from ivy.types.updates import PACKAGE_KINDS
from ivy.utils.logger import Logger
from ivy.utils.updates import package_states

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
_MOST_DECIMALS = 16  # with more, its JSON converter makes a text of a number, or refuses it
_LEAST_LOSS = 1e-6  # of a value, which the operator is told
_LONGEST_KEY = 255
_SHOWN = 80  # of its characters
# What its check for cross-site scripting (OWASP AntiSamy) takes for a tag, and what Angular takes for a template.
_SCRIPT = re.compile(r"<(?=[a-z/!?])|\{(?=\{.*\}\})|\0", re.IGNORECASE | re.ASCII | re.DOTALL)
_RATE = re.compile(r"([0-9]{1,9}):([0-9]{1,9})", re.ASCII)


def run(config: Config, logger: Logger, teardown_indicator: "multiprocessing.synchronize.Event") -> None:
    """Exchange messages and configs with a ThingsBoard server, until told to stop; see `forwarder.run`."""
    forwarder.run(remarks.reporting(make_dialect(config), logger), config, logger, teardown_indicator)


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
        encode=lambda items: encode(items, _elements, [_TELEMETRY]),
        decode=_decode,
        greeting=lambda: _greeting(_identity(config)),
        packages=_packages,
    )


def _greeting(attributes: Mapping[str, Any]) -> Sequence[Publication]:
    """Who this node is, and what it has to ask: for config and packages, as a change is told only once.

    The versions that its update dashboard reads are without a time: that of the server is right in any case.
    """
    asked = ",".join((_CONFIG_KEY, *update_packages.ATTRIBUTES))
    versions: dict[str, str] = {}
    for kind in PACKAGE_KINDS:
        versions |= package_states.running(kind, constants.VERSION)
    return (
        Publication(_ATTRIBUTES, as_json(attributes).encode()),
        Publication(_TELEMETRY, as_json([versions]).encode(), points=len(versions)),
        Publication(_CONFIG_REQUEST, as_json({"sharedKeys": asked}).encode()),
        Publication(_LIMITS_REQUEST, as_json({"method": "getSessionLimits", "params": {}}).encode()),
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


def _elements(item: MessageQueueItem, remarks: set[Remark]) -> list[tuple[str, str, int]]:
    """What a message becomes, nearly always one element, with the data points of each."""
    body = item.message_body
    if isinstance(body, DataMessageBody):
        found = list(_split(item.timestamp, _values(body, remarks)))
    elif isinstance(body, LogMessageBody):
        found = [(_log(item.timestamp, body), 1)]
    else:
        found = [(_status(item.timestamp, body), 1)]
    if not found:
        raise NoFormError("no value in it that ThingsBoard takes")
    return [(_TELEMETRY, element, count) for element, count in found]


def _values(body: DataMessageBody, remarks: set[Remark]) -> list[str]:
    """What has a form of a sample, each as `"key":value`."""
    values = {}
    for (key, value), (name, quoted) in zip(body.data.items(), _names(tuple(body.data)), strict=True):
        pair = f"{quoted}:{as_json(value) if isinstance(value, str) else _number(value)}"
        if (reason := _why_left_out(value, pair)) is not None:
            remarks.add(Remark(key, f"left out: {reason}"))
            continue
        if name != key:
            remarks.add(Remark(key, f"sent as {name[:_SHOWN]!r}, as ThingsBoard refuses such a key"))
        if isinstance(value, float) and abs(value - round(value, _MOST_DECIMALS)) > _LEAST_LOSS * abs(value):
            remarks.add(Remark(key, f"rounded: ThingsBoard takes {_MOST_DECIMALS} decimals, and no more"))
        values[name] = pair
    if values and not body.clock_synchronised:
        values.setdefault(CLOCK_KEY, f'"{CLOCK_KEY}":0')
    return list(values.values())


def _why_left_out(value: float | int | str, pair: str) -> str | None:
    if isinstance(value, int):
        return None if abs(value) <= _LARGEST_INTEGER else "it is an integer of more than 64 bits"
    if isinstance(value, float):
        return None if math.isfinite(value) else "it is not a finite number"
    is_small = payload.fits(_element(0.0, pair), _LARGEST_ELEMENT - len("700000000000"))  # of the time
    return None if is_small else "it is a text that is larger than ThingsBoard takes"


def _number(value: float | int) -> str:
    """In a form that ThingsBoard keeps as a number, and a float as a float.

    Where it finds an exponent and no decimals, that is an integer to it, or a text if that is too large for one.
    """
    if isinstance(value, int) or not math.isfinite(value):
        return repr(value)
    rounded = round(value, _MOST_DECIMALS)
    plain = repr(rounded)
    if rounded.is_integer():
        return plain if "e" not in plain else f"{int(rounded)}.0"
    return plain if abs(rounded) >= 0.01 else payload.shortest_small(plain)


@functools.lru_cache(maxsize=16)  # there are about as many kinds of samples as procedures
def _names(keys: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """How keys are called there, and that in JSON."""
    found = payload.names(keys, _LONGEST_KEY // 2, _spell)  # a letter may be two of Java's
    return tuple((name, as_json(name)) for name in found)


def _spell(key: str) -> str:
    """The nearest key that ThingsBoard does not refuse. It would after the PUBACK: the sample were lost."""
    spelt = _SCRIPT.sub("_", key)
    if not spelt.strip():
        return "_"
    if len(spelt.encode("utf-16-le")) <= 2 * _LONGEST_KEY:  # Java counts these
        return spelt
    mark = f"_{zlib.crc32(spelt.encode()):08x}"  # so that long keys that begin alike have names of their own
    return spelt.encode("utf-16-le")[: 2 * (_LONGEST_KEY - len(mark))].decode("utf-16-le", "ignore") + mark


def _split(timestamp: float, pairs: Sequence[str]) -> Iterator[tuple[str, int]]:
    """All values in one element if they fit, else in halves: elements with one time add up to one sample there."""
    if not pairs:
        return
    element = _element(timestamp, ",".join(pairs))
    if len(pairs) == 1 or payload.fits(element, _LARGEST_ELEMENT):
        yield element, len(pairs)
        return
    yield from _split(timestamp, pairs[: len(pairs) // 2])
    yield from _split(timestamp, pairs[len(pairs) // 2 :])


def _log(timestamp: float, body: LogMessageBody) -> str:
    """A log message; of a long one, the end of its body is cut off, and of its subject if that is long too."""
    mark = "" if body.clock_synchronised else CLOCK_MARK
    fields = {"level": body.level, "subject": mark + body.subject, "body": body.body}
    for field in ("body", "subject"):
        excess = payload.size(_element(timestamp, f'"logging":{as_json(fields)}')) - _LARGEST_ELEMENT
        if excess > 0:
            fields[field] = payload.cut(fields[field], excess)
    return _element(timestamp, f'"logging":{as_json(fields)}')


def _status(timestamp: float, body: ConfigMessageBody) -> str:
    """What became of a config. Of one that is too large only the part by which one knows it."""
    general = body.config.general
    known_by = {"config_revision": general.config_revision, "software_version": str(general.software_version)}
    for config in (body.config.model_dump(mode="json"), {"general": known_by}):
        told = {"status": body.status, "config": config}
        element = _element(timestamp, f'"{_CONFIG_KEY}":{as_json(told)}')
        if payload.fits(element, _LARGEST_ELEMENT):
            break
    return element


def _element(timestamp: float, pairs: str) -> str:
    return f'{{"ts":{round(timestamp * 1000)},"values":{{{pairs}}}}}'


def _decode(topic: str, payload: bytes) -> Incoming | None:
    if match := _REQUEST.fullmatch(topic):
        return _request(f"{_DEVICE}/rpc/response/{match[1]}", payload)
    if topic.startswith(_LIMITS_RESPONSES):
        return _limits(payload)
    if topic == _ATTRIBUTES:
        return _offer(payload, ())
    return _offer(payload, ("shared",)) if topic.startswith(_CONFIG_RESPONSES) else None


def _packages(topic: str, payload: bytes) -> update_packages.Said:
    if topic == _ATTRIBUTES:
        return update_packages.of_change(payload)
    return update_packages.of_answer(payload) if topic == f"{_CONFIG_RESPONSES}1" else {}


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
    config = found[_CONFIG_KEY]
    content = json.dumps(config, sort_keys=True).encode()
    if not isinstance(config, dict):
        raise OfferError(f'{_CONFIG_KEY}: the attribute must have the type "JSON", and be an object', None, content)
    try:
        return ForeignConfig.model_validate(config)
    except pydantic.ValidationError as error:
        raise OfferError(describe(error), _revision(config), content) from None


def _revision(config: dict[str, Any]) -> int | None:
    """The number of a config that is not valid, so that it can be answered all the same."""
    general = config.get("general")
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
    """Not `messages`: those are attributes and calls, and telemetry does not count as such."""

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
        publications=_rates(rates.telemetryMessages),
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
