"""Judges a publication as strictly as ThingsBoard's MQTT transport, which closes the connection for a bad one.

Written from the protocol's description only. Shares no code with ivy: a mistake there must not be repeated here.
"""

import decimal
import json
import re
from typing import Any, NoReturn

TELEMETRY = "v1/devices/me/telemetry"
ATTRIBUTES = "v1/devices/me/attributes"
_REQUEST = re.compile(r"v1/devices/me/(attributes|rpc)/request/[0-9]+")
_RESPONSE = re.compile(r"v1/devices/me/rpc/response/[0-9]+")

_LARGEST_PACKET = 65_535
_LONGEST_KEY = 255
_MOST_DECIMALS = 16
_YEARS = (946_684_800_000, 4_102_444_800_000)
"""2000 and 2100 as Unix times in milliseconds. Seconds lie outside."""
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "EXCEPTION")
_RUNNING = {f"current_{kind}_{part}" for kind in ("sw", "fw") for part in ("title", "version")}
_STATUSES = ("received", "accepted", "rejected", "startup")


class Float(float):
    """A number with a point or an exponent, and how it was written."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text


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
            payload.decode("utf-8"),
            parse_constant=_reject_constant,
            parse_float=Float,
            object_pairs_hook=_without_twins,
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
            if element.keys() == _RUNNING:  # the only one that has the time of its arrival
                _check_values(element)
                continue
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
    for key in values:
        if (fault := key_fault(key)) is not None:
            raise ValueError(f"the key {key[:300]!r}: {fault}")


def _check_value(key: str, value: Any) -> None:
    _require(type(value) in (str, int, Float), f"{key}: {type(value).__name__}")
    if isinstance(value, Float):
        _require(type(stored_number(value.text)) is float, f"{key}: {value.text} becomes an integer or a text")
    elif isinstance(value, int):
        _require(type(stored_number(str(value))) is int, f"{key}: {value} becomes a text")


def key_fault(key: str) -> str | None:
    """Why the server drops a sample with such a key after it has acknowledged it; None if it does not.

    Source: KvUtils and NoXssValidator, 4.2. Of some hundred keys AntiSamy 1.5 refused those with a letter behind
    the bracket, some end tags, a CDATA section, and what it cannot parse.
    """
    if not key.strip():
        return "it is blank"
    if len(key.encode("utf-16-le", "surrogatepass")) > 2 * _LONGEST_KEY:
        return f"it is longer than {_LONGEST_KEY} characters"
    if re.search(r"<[a-zA-Z/?]|<!\[CDATA\[|\{\{.*\}\}", key, re.DOTALL):
        return "it has HTML or a template in it"
    return "it has a NUL, which PostgreSQL does not take" if "\0" in key else None


def stored_number(text: str) -> int | float | str:
    """What the server makes of a number in JSON, or of a string that looks like one. Source: JsonConverter, 4.2.

    A text is what it makes, with type casts, of a number that it has no other form for.
    """
    number = decimal.Decimal(text)
    _, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int)  # JSON has no infinity
    trimmed = "".join(map(str, digits)).rstrip("0")
    decimals = 0 if not trimmed else -exponent - (len(digits) - len(trimmed))
    if decimals <= 0 and not ("." in text and "e" not in text.lower()):
        whole = int(number)
        return whole if -(2**63) <= whole < 2**63 else f"{number:f}"
    return float(number) if -exponent <= _MOST_DECIMALS else f"{number:f}"


def _check_attributes(parsed: dict[str, Any]) -> None:
    _require(len(parsed) > 0, "attributes: nothing in it")
    for key, value in parsed.items():
        _require(type(value) in (str, int, float, bool), f"attributes.{key}: not flat")


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise ValueError(otherwise)
