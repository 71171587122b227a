"""Secrets of a config: which values are, and how a config is shown without them. Knows no config; reads no file.

Where a config is shown, each of them is `HIDDEN`. In an offered config, that means: as this node has it.
"""

import re
import types
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Union, get_args, get_origin

import pydantic
from pydantic_core import CoreSchema, core_schema

HIDDEN = "***"
"""What is shown in the place of a secret. It is none itself: whoever finds it for a value does not know that."""

_NAME = re.compile(
    r"(password|passphrase|passwd|pwd|psk|token|secret|username|credentials?|api.?key|private.?key|auth|authorization|pin)$",
    re.IGNORECASE,
)
_USER_IN_URL = re.compile(
    r"(://)[^/\s]*@"
)  # without the scheme: to look for that takes the square of a text's length
_WHERE = re.compile(r"(host|hostname|address|url|uri|server|broker|endpoint|port|tls|ssl)$", re.IGNORECASE)


class UnknownSecretError(ValueError):
    """A config says `HIDDEN` where the node has nothing; the text names each such field."""


class _Value(str):
    """A secret: a text like any other, but for the `repr` of what holds it, as a log or a traceback shows that."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(HIDDEN)


class _Mark:
    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], CoreSchema]) -> CoreSchema:
        return core_schema.no_info_wrap_validator_function(_validate, handler(source))


def _validate(value: Any, check: Callable[[Any], str]) -> _Value:
    """What is hidden is taken for valid: most services do not see more."""
    return _Value(value if isinstance(value, str) and value == HIDDEN else check(value))


SECRET = _Mark()
"""What marks a field as secret: `Annotated[str, pydantic.Field(...), SECRET]`. The last one, after all limits."""

Secret = Annotated[str, SECRET]
"""The type of a secret in a config, for any section: it is a `str`, and is shown nowhere."""


def split(content: Any, schema: type[pydantic.BaseModel]) -> tuple[Any, dict[str, Any]]:
    """Take out of the content of a config what its schema calls secret.

    Returns: The content with `HIDDEN` in those places; and what stood there, by the same keys (of a list, the
        number of the element). What does not fit the schema stays as it is.
    """
    shown, taken = _split_section(content, schema)
    return shown, taken if isinstance(taken, dict) else {}


def merge(shown: Any, taken: Any) -> Any:
    """Undo `split`. What is not hidden, or hidden and not known, stays as it is."""
    if shown == HIDDEN and isinstance(taken, str):
        return taken
    if not isinstance(taken, dict):
        return shown
    if isinstance(shown, dict):
        return {key: merge(value, taken.get(key)) for key, value in shown.items()}
    if isinstance(shown, list):
        return [merge(value, taken.get(str(number))) for number, value in enumerate(shown)]
    return shown


def values(taken: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The paths and values of all that was taken out, e.g. of `backend.mqtt_connection.password`."""
    if not isinstance(taken, dict):
        yield path, taken
        return
    for key, value in taken.items():
        yield from values(value, f"{path}.{key}" if path else key)


def hide(content: Any, schema: type[pydantic.BaseModel] | None = None) -> Any:
    """The content of a config of any version for others to see: without what the schema calls secret, or its name.

    Other versions may have other secrets, of which nothing is known but how they are called.
    """
    if schema is not None:
        content, _ = split(content, schema)
    if isinstance(content, dict):
        return {
            key: HIDDEN if value is not None and _NAME.search(key) else hide(value)
            for key, value in content.items()
        }
    if isinstance(content, list):
        return [hide(value) for value in content]
    return _USER_IN_URL.sub(rf"\1{HIDDEN}@", content) if isinstance(content, str) else content


def fill(offered: Any, known: Any, schema: type[pydantic.BaseModel]) -> tuple[Any, list[str]]:
    """Put what the node has into a config that says `HIDDEN`.

    An element of a list is known by all of it that is not secret: by its place, one could get another's secret.

    Args:
        offered: The content of the config.
        known: The content of the one that the node has, with its secrets.
        schema: Says what is secret beyond what its name tells.

    Returns: The whole content, and the paths of what was put there.

    Raises:
        UnknownSecretError: The node has nothing of that name.
    """
    filled: list[str] = []
    missing: list[str] = []
    content = _fill(offered, known, hide(known, schema), "", (filled, missing))
    if missing:
        hint = f"is {HIDDEN}, which means as this node has it, and it has none; give the value"
        raise UnknownSecretError("\n".join(f"{path}: {hint}" for path in missing))
    return content, filled


def guards(content: Any, path: str) -> Iterator[tuple[str, Any]]:
    """What tells where a secret goes, wherever it stands above or beside it: its paths and values, e.g. `host`."""
    above = ""
    for step in path.split("."):
        if isinstance(content, dict):
            for key, value in content.items():
                if _WHERE.search(key) and key != step:
                    yield f"{above}{key}", value
        content = _step(content, step)
        above += f"{step}."


def find(content: Any, path: str) -> Any:
    """What stands at a path; None where nothing does."""
    for step in path.split("."):
        content = _step(content, step)
    return content


def _step(content: Any, step: str) -> Any:
    if isinstance(content, list) and step.isdecimal() and int(step) < len(content):
        return content[int(step)]
    return content.get(step) if isinstance(content, dict) else None


def _fill(offered: Any, known: Any, shown: Any, path: str, told: tuple[list[str], list[str]]) -> Any:
    filled, missing = told
    if isinstance(offered, dict):
        inner = known if isinstance(known, dict) else {}
        shown = shown if isinstance(shown, dict) else {}
        return {
            key: _fill(value, inner.get(key), shown.get(key), f"{path}.{key}" if path else key, told)
            for key, value in offered.items()
        }
    if isinstance(offered, list):
        return [
            _fill(value, *_same(value, number, known, shown), f"{path}.{number}", told)
            for number, value in enumerate(offered)
        ]
    if not isinstance(offered, str) or (offered != HIDDEN and f"://{HIDDEN}@" not in offered):
        return offered
    if known is None or known == HIDDEN or (offered != HIDDEN and offered != shown):
        missing.append(path)
        return offered
    filled.append(path)
    return known


def _same(element: Any, number: int, known: Any, shown: Any) -> tuple[Any, Any]:
    if not isinstance(known, list) or not isinstance(shown, list):
        return None, None
    pairs = list(zip(known, shown, strict=True))
    here = pairs[number : number + 1]
    return next((pair for pair in [*here, *pairs] if _is_like(element, pair[1])), (None, None))


def _is_like(offered: Any, shown: Any) -> bool:
    """Whether they are the same, but for new values of what is secret."""
    if shown == HIDDEN:
        return True
    if isinstance(offered, dict) and isinstance(shown, dict):
        return offered.keys() == shown.keys() and all(_is_like(offered[key], shown[key]) for key in shown)
    if isinstance(offered, list) and isinstance(shown, list):
        return len(offered) == len(shown) and all(map(_is_like, offered, shown))
    return bool(offered == shown)


def _split_section(content: Any, schema: type[pydantic.BaseModel]) -> tuple[Any, Any]:
    if not isinstance(content, dict):
        return content, None
    return _collect(
        {
            key: _split_value(value, (field.annotation, *field.metadata))
            for key, value in content.items()
            if (field := schema.model_fields.get(key)) is not None
        },
        content,
    )


def _split_value(value: Any, kinds: tuple[Any, ...]) -> tuple[Any, Any]:
    """Of what may be any of some types: the parts of an annotation, and what is said about it."""
    if isinstance(value, str):
        return (HIDDEN, value) if any(kind is SECRET for kind in _parts(kinds)) else (value, None)
    for kind in _parts(kinds):
        inner = get_args(kind)
        if isinstance(kind, type) and issubclass(kind, pydantic.BaseModel) and isinstance(value, dict):
            return _split_section(value, kind)
        if get_origin(kind) is list and isinstance(value, list):
            parts = {str(number): _split_value(element, inner) for number, element in enumerate(value)}
            shown, taken = _collect(parts, {str(number): element for number, element in enumerate(value)})
            return list(shown.values()), taken
        if get_origin(kind) is dict and isinstance(value, dict):
            return _collect({key: _split_value(part, inner[1:]) for key, part in value.items()}, value)
    return value, None


def _parts(kinds: tuple[Any, ...]) -> Iterator[Any]:
    for kind in kinds:
        yield kind
        if get_origin(kind) in (Union, types.UnionType, Annotated):
            yield from _parts(get_args(kind))


def _collect(parts: dict[str, tuple[Any, Any]], content: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    shown = {key: parts[key][0] if key in parts else value for key, value in content.items()}
    return shown, {key: taken for key, (_, taken) in parts.items() if taken is not None} or None
