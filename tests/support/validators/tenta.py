"""Judges a publication as strictly as a Tenta server, which drops a whole batch for one bad element, silently.

Written from the protocol's description only. Shares no code with ivy: a mistake there must not be repeated here.
"""

import json
import math
import re
from collections.abc import Callable
from typing import Any, NoReturn

_KEY = re.compile(r"[a-z0-9](_?[a-z0-9])*")
_LONGEST_KEY = 64
_LONGEST_LOG = 16_384
_LARGEST_REVISION = 2**31 - 1
_SEVERITIES = ("info", "warning", "error")
_YEARS = (946_684_800.0, 4_102_444_800.0)
"""2000 and 2100 as Unix times in seconds. Milliseconds, or seconds since boot, lie outside."""


def check(topic: str, payload: bytes, qos: int, sensor: str) -> list[dict[str, Any]]:
    """Judge one publication.

    Args:
        topic: Its topic.
        payload: Its payload.
        qos: Its quality of service.
        sensor: The identifier of the sensor that sent it.

    Returns: The elements of its array.

    Raises:
        ValueError: The server would drop it; the text says where and why.
    """
    kinds: dict[str, tuple[set[str], Callable[[dict[str, Any]], None]]] = {
        f"measurements/{sensor}": ({"value", "timestamp", "revision"}, _check_measurement),
        f"logs/{sensor}": ({"message", "severity", "timestamp", "revision"}, _check_log),
        f"acknowledgments/{sensor}": ({"success", "timestamp", "revision"}, _check_acknowledgment),
    }
    _require(topic in kinds, f"topic {topic!r}: none of {', '.join(kinds)}")
    _require(qos == 1, f"{topic}: QoS {qos}, not 1")
    fields, check_element = kinds[topic]
    elements = _parse(topic, payload)
    for number, element in enumerate(elements):
        try:
            _require(type(element) is dict, "no object")
            _require(set(element) == fields, f"has the fields {sorted(element)}, not {sorted(fields)}")
            _check_timestamp(element["timestamp"])
            check_element(element)
        except ValueError as error:
            raise ValueError(f"{topic}: element {number}: {error}: {json.dumps(element)[:500]}") from None
    return elements


def _parse(topic: str, payload: bytes) -> list[Any]:
    try:
        parsed = json.loads(
            payload.decode("utf-8"), parse_constant=_reject_constant, object_pairs_hook=_without_twins
        )
    except ValueError as error:
        raise ValueError(f"{topic}: {error}: {payload[:500]!r}") from None
    _require(type(parsed) is list and len(parsed) > 0, f"{topic}: not an array with elements: {payload[:500]!r}")
    elements: list[Any] = parsed
    return elements


def _reject_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    _require(len(dict(pairs)) == len(pairs), f"an object has a key twice: {[key for key, _ in pairs]}")
    return dict(pairs)


def _check_measurement(element: dict[str, Any]) -> None:
    value = element["value"]
    _require(type(value) is dict and len(value) > 0, "value: not an object with numbers")
    for key, number in value.items():
        _require(len(key) <= _LONGEST_KEY and _KEY.fullmatch(key) is not None, f"value: bad key {key!r}")
        _require(_is_finite(number), f"value.{key}: {number!r} is no finite number")
    _check_revision(element["revision"], may_be_null=True)


def _check_log(element: dict[str, Any]) -> None:
    message = element["message"]
    _require(type(message) is str, "message: no string")
    _require("\0" not in message, "message: has a NUL")
    _require(len(message) <= _LONGEST_LOG, f"message: {len(message)} characters")
    _require(element["severity"] in _SEVERITIES, f"severity: none of {_SEVERITIES}")
    _check_revision(element["revision"], may_be_null=True)


def _check_acknowledgment(element: dict[str, Any]) -> None:
    _require(type(element["success"]) is bool, "success: no boolean")
    _check_revision(element["revision"], may_be_null=False)


def _check_timestamp(timestamp: Any) -> None:
    _require(type(timestamp) is float, "timestamp: no float")
    _require(_YEARS[0] < timestamp < _YEARS[1], "timestamp: no Unix time in seconds")


def _check_revision(revision: Any, *, may_be_null: bool) -> None:
    if not (may_be_null and revision is None):
        _require(type(revision) is int and 0 <= revision <= _LARGEST_REVISION, f"revision: bad value {revision!r}")


def _is_finite(number: Any) -> bool:
    try:
        return type(number) in (int, float) and math.isfinite(number)
    except OverflowError:
        return False


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise ValueError(otherwise)
