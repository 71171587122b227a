"""Judges a publication as strictly as ThingsBoard's MQTT transport, which closes the connection for a bad one.

Written from the protocol's description only. Shares no code with ivy: a mistake there must not be repeated here.
"""

import json
import re
from typing import Any, NoReturn

TELEMETRY = "v1/devices/me/telemetry"
ATTRIBUTES = "v1/devices/me/attributes"
_REQUEST = re.compile(r"v1/devices/me/(attributes|rpc)/request/[0-9]+")
_RESPONSE = re.compile(r"v1/devices/me/rpc/response/[0-9]+")

_LARGEST_PACKET = 65_535
_YEARS = (946_684_800_000, 4_102_444_800_000)
"""2000 and 2100 as Unix times in milliseconds. Seconds lie outside."""
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "EXCEPTION")
_STATUSES = ("received", "accepted", "rejected", "startup")


def check(topic: str, payload: bytes, qos: int) -> list[dict[str, Any]]:
    """Judge one publication.

    Args:
        topic: Its topic.
        payload: Its payload.
        qos: Its quality of service.

    Returns: The elements of its array, if it is telemetry, else its one object.

    Raises:
        ValueError: The server would close the connection, or not know what to do with it; the text says why.
    """
    _require(qos == 1, f"{topic}: QoS {qos}, not 1")
    size = packet_size(topic, payload)
    _require(size <= _LARGEST_PACKET, f"{topic}: a packet of {size} bytes")
    parsed = _parse(topic, payload)
    if topic == TELEMETRY:
        return _check_telemetry(parsed)
    _require(type(parsed) is dict, f"{topic}: no object: {payload[:200]!r}")
    if topic == ATTRIBUTES:
        _check_attributes(parsed)
    elif match := _REQUEST.fullmatch(topic):
        wanted = {"attributes": {"sharedKeys"}, "rpc": {"method", "params"}}[match[1]]
        _require(set(parsed) == wanted, f"{topic}: has {sorted(parsed)}, not {sorted(wanted)}")
    else:
        _require(_RESPONSE.fullmatch(topic) is not None, f"topic {topic!r}: a device may not write there")
    return [parsed]


def packet_size(topic: str, payload: bytes) -> int:
    """The bytes of a PUBLISH with QoS 1, see section 3.3 of MQTT 3.1.1."""
    rest = 2 + len(topic.encode()) + 2 + len(payload)
    return 1 + sum(rest >= limit for limit in (1, 2**7, 2**14, 2**21)) + rest


def _parse(topic: str, payload: bytes) -> Any:
    try:
        return json.loads(
            payload.decode("utf-8"), parse_constant=_reject_constant, object_pairs_hook=_without_twins
        )
    except ValueError as error:
        raise ValueError(f"{topic}: {error}: {payload[:200]!r}") from None


def _reject_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    _require(len(dict(pairs)) == len(pairs), "an object has a key twice")
    return dict(pairs)


def _check_telemetry(parsed: Any) -> list[dict[str, Any]]:
    _require(type(parsed) is list and len(parsed) > 0, "not an array with elements, so there would be no PUBACK")
    for number, element in enumerate(parsed):
        try:
            _require(type(element) is dict, "no object")
            _require(set(element) == {"ts", "values"}, f"has the fields {sorted(element)}")
            _require(type(element["ts"]) is int and _YEARS[0] < element["ts"] < _YEARS[1], "ts: no milliseconds")
            _check_values(element["values"])
        except ValueError as error:
            raise ValueError(f"element {number}: {error}: {json.dumps(element)[:200]}") from None
    elements: list[dict[str, Any]] = parsed
    return elements


def _check_values(values: Any) -> None:
    _require(type(values) is dict and len(values) > 0, "values: no object with something in it")
    if "logging" in values:
        log = values["logging"]
        _require(len(values) == 1 and type(log) is dict, "logging: no object, or not alone")
        _require(set(log) == {"level", "subject", "body"}, f"logging: has {sorted(log)}")
        _require(log["level"] in _LEVELS and all(type(text) is str for text in log.values()), "logging: bad value")
    elif "configuration" in values:
        told = values["configuration"]
        _require(len(values) == 1 and type(told) is dict, "configuration: no object, or not alone")
        _require(set(told) == {"status", "config"}, f"configuration: has {sorted(told)}")
        _require(told["status"] in _STATUSES and type(told["config"]) is dict, "configuration: bad value")
        _require("config_revision" in told["config"].get("general", {}), "configuration: of no revision")
    else:
        for key, value in values.items():
            _check_value(key, value)


def _check_value(key: str, value: Any) -> None:
    _require(type(value) in (str, int, float), f"{key}: {type(value).__name__}")
    _require(type(value) is not int or -(2**63) <= value < 2**63, f"{key}: no Java long")
    _require(type(value) is not float or abs(value) < float("inf"), f"{key}: infinite")


def _check_attributes(parsed: dict[str, Any]) -> None:
    _require(len(parsed) > 0, "attributes: nothing in it")
    for key, value in parsed.items():
        _require(type(value) in (str, int, float, bool), f"attributes.{key}: not flat")


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise ValueError(otherwise)
