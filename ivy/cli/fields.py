"""Which fields a config has, by their paths, and how one of them is read or replaced. Not for using the result.

Paths are those of ivy-config(5), e.g. `backend.mqtt_connection.protocol`, also where the config says nothing there.
"""

import difflib
import json
from collections.abc import Iterator
from typing import Any, get_args, get_origin

import pydantic

from ivy.types import secrets
from ivy.types.config import Config, is_usable, section_of
from ivy.types.secrets_file import as_text
from ivy.utils.functions import procedure_names

_MOST_NAMED = 3


class UnknownFieldError(ValueError):
    """There is nothing of that name in a config; the text names what there is."""


def paths(section: type[pydantic.BaseModel] = Config, above: str = "") -> Iterator[str]:
    """All sections and fields, those of each procedure of this release among them."""
    for name, field in section.model_fields.items():
        path = f"{above}{name}"
        yield path
        if (inner := _section_of(field)) is not None:
            yield from paths(inner, f"{path}.")
        elif (entry := _entry_of(field)) is not None:
            for procedure in procedure_names():
                own = f"{path}.{procedure.replace('-', '_')}"
                yield from (own, *paths(entry, f"{own}."))


def check(path: str) -> None:
    """See that a path names something; raises `UnknownFieldError`."""
    known = list(paths())
    if path in known:
        return
    same_end = [each for each in known if each.endswith(f".{path}")]
    near = same_end or difflib.get_close_matches(path, known, n=_MOST_NAMED)
    if not near:
        ends = {each.rpartition(".")[2]: each for each in known}
        near = [ends[end] for end in difflib.get_close_matches(path.rpartition(".")[2], ends, n=1)]
    hint = f"Did you mean {' or '.join(near[:_MOST_NAMED])}?" if near else "See ivy config show, and ivy-config(5)"
    raise UnknownFieldError(f"there is no {path!r} in a config. {hint}")


def find(content: dict[str, Any], path: str) -> Any:
    """What stands at a path that there is, with the defaults where a config says nothing.

    Args:
        content: A config, with all of its sections.

    Raises:
        LookupError: A section above it is null; the text says which.
    """
    found: Any = content
    section: type[pydantic.BaseModel] | None = Config
    entry: type[pydantic.BaseModel] | None = None
    way: list[str] = []
    for step in path.split("."):
        if found is None:
            raise LookupError(f"{'.'.join(way)} is null")
        if section is None:  # the name of a procedure
            found, section = found.get(step, entry and entry().model_dump(mode="json")), entry
        else:
            field = section.model_fields[step]
            found, section, entry = found[step], _section_of(field), _entry_of(field)
        way.append(step)
    return found


def replace(content: Any, path: str, text: str) -> Any:
    """A config with another value at a path that there is; sections above it that are missing are begun.

    Args:
        content: The config, which stays as it is.
        text: JSON, or any other text where the field takes that: `roof-7`, and `5` for a version of MQTT.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return _put(content, path.split("."), text)
    wanted = _put(content, path.split("."), value)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    verbatim = _put(content, path.split("."), text)
    is_text = is_number and not is_usable(as_text(wanted)) and is_usable(as_text(verbatim))
    return verbatim if is_text else wanted


def secrets_in(content: Any, path: str) -> list[str]:
    """The paths of secrets that stand at a path or below it, and are not hidden."""
    _, taken = secrets.split(content, Config)
    here = [(name, value) for name, value in secrets.values(taken) if f"{name}.".startswith(f"{path}.")]
    return [name for name, value in here if value != secrets.HIDDEN]


def _put(content: Any, steps: list[str], value: Any) -> Any:
    first, *rest = steps
    section = content if isinstance(content, dict) else {}
    return {**section, first: _put(section.get(first), rest, value) if rest else value}


def _section_of(field: pydantic.fields.FieldInfo) -> type[pydantic.BaseModel] | None:
    found = section_of(field)
    is_one = found is not None and _entry_of(field) is None and not issubclass(found, pydantic.RootModel)
    return found if is_one else None


def _entry_of(field: pydantic.fields.FieldInfo) -> type[pydantic.BaseModel] | None:
    """The schema of what stands under each name, of a field that has such; None for others."""
    entry = get_args(field.annotation)[-1] if get_origin(field.annotation) is dict else None
    return entry if isinstance(entry, type) and issubclass(entry, pydantic.BaseModel) else None
