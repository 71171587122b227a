"""The form of `ivy.json`: sections of a config, and what is not of a config. Changes nothing.

Sections that it lacks stay as the node has them, and so do fields of `general`. Beside them there may be
`hostname`, and `provision`, which is what /etc/ivy/provision.json says.
"""

import difflib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic

from ivy.cli.first_boot.texts import Mistake
from ivy.types.config import Config, ConfigError, ForeignConfig, as_text, describe, once, why_unknown
from ivy.types.registration import Registration
from ivy.types.secrets import UnknownSecretError
from ivy.utils.updates.releases import Releases

FILE = "ivy.json"

HOST_NAME = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)", re.IGNORECASE | re.ASCII)
_OF_TENTA = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_OF_WORD_PROCESSORS = "\N{LEFT DOUBLE QUOTATION MARK}\N{RIGHT DOUBLE QUOTATION MARK}\N{DOUBLE LOW-9 QUOTATION MARK}"
_OTHERS = ("hostname", "provision")
_FILES_OF_TLS = ("ca_file", "certificate_file", "key_file")
_CORRECT = "correct it; ivy-config(5) and the README say what may stand there"


@dataclass(frozen=True)
class Wishes:
    """What one such file asks for."""

    sections: dict[str, Any]
    """Of a config, as they stand there."""
    host_name: str | None
    """None: it names none, nor anything that could be one."""
    registration: dict[str, Any] | None
    """As they stand there; valid."""


def parse(text: str) -> Wishes:
    """Read the text of a file.

    Raises:
        Mistake: It is not JSON, or not of this form. The sections are only looked at by `config`.
    """
    try:
        content = json.loads(text, object_pairs_hook=once)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}: {error.msg}"
        remedy = "look at this line and the one before it: a comma or a quotation mark too many or too few"
        if any(mark in text for mark in _OF_WORD_PROCESSORS):
            remedy = f'{remedy}; only the straight one, ", is one'
        raise Mistake(f"is not valid JSON: {where}", remedy) from None
    except ConfigError as error:
        raise Mistake(str(error), _CORRECT) from None
    except ValueError:  # of Python's own
        raise Mistake("is not valid JSON: a number of too many digits", _CORRECT) from None
    except RecursionError:
        raise Mistake("is not valid JSON: too deeply nested", _CORRECT) from None
    if not isinstance(content, dict):
        raise Mistake("is not a JSON object", "it begins with { and ends with }")
    _check_names(content)
    registration = content.get("provision")
    if registration is not None:
        _check_registration(registration, content)
    sections = {name: section for name, section in content.items() if name not in _OTHERS}
    return Wishes(sections, _host_name(content), registration)


def config(wishes: Wishes, releases: Releases, own_name: str | None) -> ForeignConfig | None:
    """The node's config with the sections of a file.

    Args:
        wishes: The file.
        releases: Knows the node's config.
        own_name: What the node is called if neither config nor file says anything else than a name by default.

    Returns: None if the node has just this one.

    Raises:
        Mistake: It cannot be used.
        OSError: There is no current release.
    """
    active = releases.active_config()
    content = releases.active_content()
    before = json.dumps(content, sort_keys=True)
    general = wishes.sections.get("general", {})
    if not isinstance(general, dict):
        raise Mistake("general: must be an object", _CORRECT)
    version = f"{active.general.software_version}"
    if general.get("software_version", version) != version:
        remedy = "leave that field out; another version comes afterwards, by an offer or by ivy update"
        raise Mistake(f"general.software_version: this node has {version}", remedy)
    named = {} if own_name is None else {"system_identifier": own_name}
    content = {**content, **wishes.sections, "general": {**content["general"], **named, **general}}
    content["general"]["software_version"] = version
    if json.dumps(content, sort_keys=True) == before:
        return None
    try:
        whole, _ = releases.fill(ForeignConfig.model_validate(content))
        checked = Config.load_from_string(as_text(whole))
    except pydantic.ValidationError as error:
        raise Mistake(describe(error), _CORRECT) from None
    except (ConfigError, UnknownSecretError) as error:
        raise Mistake(str(error), _CORRECT) from None
    if checked.backend is not None:
        if why := why_unknown(checked.backend.provider, checked.general.system_identifier):
            raise Mistake(f"general.system_identifier: {why}", "write the UUID that Tenta's dashboard shows")
        _check_files(content["backend"].get("mqtt_connection", {}), "backend.mqtt_connection")
    return whole


def _check_names(content: dict[str, Any]) -> None:
    known = [*_OTHERS, *Config.model_fields]
    for name in content:
        if name in known:
            continue
        if name in Registration.model_fields:
            remedy = 'what a node registers by stands in "provision": {…}'
        else:
            near = difflib.get_close_matches(name, known, n=1)
            remedy = f"did you mean {near[0]}?" if near else f"remove it; there are: {', '.join(known)}"
        raise Mistake(f"{name}: unknown field", remedy)


def _check_registration(registration: Any, content: dict[str, Any]) -> None:
    if content.get("backend") is not None:
        remedy = "leave out one of them: who has a token or a password needs no provision"
        raise Mistake("provision, backend: a node registers, or it has a login already", remedy)
    try:
        Registration.model_validate(registration)
    except pydantic.ValidationError as error:
        lines = (f"provision.{line}" for line in describe(error).splitlines())
        raise Mistake("\n".join(lines), _CORRECT) from None
    _check_files(registration, "provision")


def _check_files(connection: Any, path: str) -> None:
    tls = connection.get("tls") if isinstance(connection, dict) else None
    for field in _FILES_OF_TLS:
        file = tls.get(field) if isinstance(tls, dict) else None
        if isinstance(file, str) and not Path(file).is_file():
            remedy = "an authority's certificate that lies beside this file as ca.crt becomes /etc/ivy/ca.crt"
            raise Mistake(f"{path}.tls.{field}: there is no {file} on this node", remedy)


def _host_name(content: dict[str, Any]) -> str | None:
    given = content.get("hostname")
    if given is not None:
        if not isinstance(given, str) or not HOST_NAME.fullmatch(given):
            raise Mistake("hostname: not a name for a host", "1 to 63 letters, digits and hyphens, e.g. roof-7")
        return given
    return next((name for name in _identifiers(content) if HOST_NAME.fullmatch(name)), None)


def _identifiers(content: dict[str, Any]) -> Iterator[str]:
    """What the node is called elsewhere, but for what nobody would call a host."""
    for section, field in (("provision", "identifier"), ("general", "system_identifier")):
        inner = content.get(section)
        name = inner.get(field) if isinstance(inner, dict) else None
        if isinstance(name, str) and not _OF_TENTA.fullmatch(name):
            yield name
