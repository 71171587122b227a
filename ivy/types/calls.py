"""What an operator may ask of a node by a remote call: the methods, their parameters, and what crosses to root.

The list is all there is: no call runs a command, and none takes the name of a file. The backend checks a call
before it asks root for anything, and root checks it again, because a backend may have been taken over.
"""

import datetime
import functools
import json
import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pydantic

from ivy.types.model import Model

MOST_LINES = 200
USUAL_LINES = 50
"""Of a journal; the latter where nobody says how many."""

LARGEST_REQUEST = 4096
LARGEST_ANSWER = 60_000
"""Bytes of what crosses, there and back; ThingsBoard takes a packet of 64 kB."""

_LONGEST_NAME = 64
_LATEST = 253_402_300_800  # the year 10000
_TIME = re.compile(r"[0-9a-zA-Z:.+-]{1,40}", re.ASCII)
_SERVICE = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*", re.ASCII)


class CallError(ValueError):
    """A call that cannot be done as it is; the text says which parameter is wrong, and what it must be."""


@dataclass(frozen=True)
class Parameter:
    """One of a method's parameters."""

    text: str
    """What it must be; continues `"name" must be …`."""
    check: Callable[[Any], str | int | None]
    """Returns it in the form that root gets; None where it is not what it must be."""
    is_required: bool = False


@dataclass(frozen=True)
class Method:
    """One of the things that can be asked for."""

    text: str
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    by_root: bool = False
    pause: int = 0
    """Seconds between the beginnings of two; root sees to them."""


class Asked(Model):
    """A call as it crosses to root: a file that the backend writes."""

    model_config = pydantic.ConfigDict(extra="forbid")

    token: str = pydantic.Field(pattern=r"^[0-9a-f]{16}$")
    params: dict[str, Any]


class Answered(Model):
    """What root says to that: a file that only root writes, and only root and backends read."""

    token: str
    answer: dict[str, Any]


def _service_name(value: Any) -> str | None:
    is_one = isinstance(value, str) and len(value) <= _LONGEST_NAME and _SERVICE.fullmatch(value)
    return value if is_one else None


def _lines(value: Any) -> int | None:
    return value if type(value) is int and 1 <= value <= MOST_LINES else None


def _time(value: Any) -> str | None:
    """As `ivy resend` takes it."""
    if type(value) in (int, float) and math.isfinite(value) and 0 <= value < _LATEST:
        return datetime.datetime.fromtimestamp(value, datetime.UTC).isoformat()
    return value if isinstance(value, str) and _TIME.fullmatch(value) else None


_WHEN = 'a time: "2026-11-20", "2026-11-20T14:30" (UTC), "-2h" (s, min, h, d, w), or Unix time in seconds'
_RESTARTS = {"name": Parameter("the name of a procedure", _service_name, is_required=True)}

METHODS: dict[str, Method] = {
    "list": Method("all methods and their parameters; the same as help"),
    "help": Method("the same as list"),
    "ping": Method("answers pong"),
    "status": Method("all that `ivy status --json` tells"),
    "restart": Method("restarts a procedure, once a minute at most", _RESTARTS),
    "logs": Method(
        "the last lines of the journal, of all services or of one",
        {
            "name": Parameter("the name of a service", _service_name),
            "lines": Parameter(f"an integer from 1 to {MOST_LINES}; {USUAL_LINES} if it is left out", _lines),
        },
        by_root=True,
    ),
    "doctor": Method("all that `ivy doctor` finds, once a minute at most", by_root=True, pause=60),
    "resend": Method(
        "sends the messages of a time again, from the archive, when nothing else waits",
        {
            "since": Parameter(_WHEN, _time, is_required=True),
            "until": Parameter(f"{_WHEN}; now if it is left out", _time),
        },
        by_root=True,
        pause=60,
    ),
    "update_now": Method(
        "lets the updater look for offers now, and try again what it waits to try again", by_root=True, pause=60
    ),
    "rollback": Method("goes back to the version and config from before the last change", by_root=True, pause=60),
    "reboot": Method("reboots the machine, once in ten minutes at most", by_root=True, pause=600),
}
"""All methods, in the order in which they are listed."""

BY_ROOT = tuple(name for name, method in METHODS.items() if method.by_root)


def checked(method: str, params: Any) -> dict[str, str | int]:
    """The parameters of a call, as root gets them.

    Args:
        method: One of `METHODS`.
        params: What was given. For nothing, platforms give null, an empty object or an empty text.

    Raises:
        CallError: They cannot be used.
    """
    wanted = METHODS[method].parameters
    if params is None or params in ("", [], {}):
        params = {}
    if not isinstance(params, dict) or not all(isinstance(name, str) for name in params):
        raise CallError(f'"params" must be an object with {_names(wanted)}' if wanted else _takes_none(method))
    for name in params:
        if name not in wanted:
            takes = f"{method} takes {_names(wanted)}" if wanted else _takes_none(method)
            raise CallError(f"there is no parameter {shown(name)}{did_you_mean(name, wanted)}; {takes}")
    found: dict[str, str | int] = {}
    for name, parameter in wanted.items():
        if name not in params:
            if parameter.is_required:
                raise CallError(f'"{name}" is missing: it must be {parameter.text}')
            continue
        if (value := parameter.check(params[name])) is None:
            raise CallError(f'"{name}" must be {parameter.text}')
        found[name] = value
    return found


def listing() -> dict[str, Any]:
    """What `list` answers."""
    methods = [
        {
            "method": name,
            "does": method.text,
            "params": {
                key: parameter.text + ("" if parameter.is_required else " (may be left out)")
                for key, parameter in method.parameters.items()
            },
        }
        for name, method in METHODS.items()
    ]
    return {"methods": methods}


def check_service(name: str, known: Collection[str]) -> None:
    """Raise `CallError` if a service is none of the known ones."""
    if name not in known:
        there_are = ", ".join(sorted(known))
        raise CallError(
            f'"name": there is no service {shown(name)}{did_you_mean(name, known)}; there are {there_are}'
        )


def success(result: Any) -> dict[str, Any]:
    """The answer to a call that was done."""
    return {"success": True, "result": result}


def failure(text: str) -> dict[str, Any]:
    """The answer to one that was not; the text says why."""
    return {"success": False, "error": text}


def encoded(answer: dict[str, Any]) -> bytes:
    """An answer in its form."""
    return json.dumps(answer, separators=(",", ":")).encode()


def shortened(answer: dict[str, Any], most_bytes: int) -> dict[str, Any]:
    """An answer of at most so many bytes, if possible: of a list without its end; of lines without the oldest.

    It says how many were left out. What has no list in it is replaced by a complaint.
    """
    if (size := len(encoded(answer))) <= most_bytes:
        return answer
    result = answer.get("result")
    lists = [item for item in result.items() if isinstance(item[1], list)] if isinstance(result, dict) else []
    if not isinstance(result, dict) or len(lists) != 1:
        return failure(f"the answer has {size} bytes, more than the {most_bytes} that can be sent")
    [(key, items)] = lists
    left, shorter = [*items], answer
    while left and len(encoded(shorter)) > most_bytes:
        most = max(1, len(left) // 20)
        left = left[most:] if key == "lines" else left[:-most]
        shorter = {**answer, "result": {**result, key: left, "left_out": len(items) - len(left)}}
    return shorter


@functools.lru_cache(maxsize=64)
def _nearest(wrong: str, known: tuple[str, ...]) -> tuple[str, ...]:
    import difflib  # not at the top: hardly ever wanted

    return tuple(difflib.get_close_matches(wrong.lower().replace("_", "-"), known, n=3))


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """The names that are most like a wrong one, in words; nothing where none is."""
    if len(wrong) > _LONGEST_NAME:
        return ""
    spelt = {name.replace("_", "-"): name for name in known}
    near = [spelt[name] for name in _nearest(wrong, tuple(spelt))]
    return f" (did you mean {' or '.join(near)}?)" if near else ""


def shown(text: str) -> str:
    """What somebody wrote, so that it can stand in an answer, whatever it is."""
    return json.dumps(text if len(text) <= _LONGEST_NAME else f"{text[:_LONGEST_NAME]}…")


def _names(wanted: Iterable[str]) -> str:
    return " and ".join(f'"{name}"' for name in wanted)


def _takes_none(method: str) -> str:
    return f"{method} takes no parameters"
