#!/usr/bin/env python3
"""Prints the man page ivy-config(5), made from the schema of the config, for the package."""

import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))

from ivy import constants  # noqa: E402
from ivy.types.config import Config  # noqa: E402

Schema = dict[str, Any]

_BEGINNING = """\
.SH NAME
ivy\\-config \\- configuration of the software of a sensor node
.SH SYNOPSIS
.I /etc/ivy/config.json
.SH DESCRIPTION
One JSON object with the sections below.
A field that is not named here is an error, and so is a missing one, unless it has a default.
.PP
.B ivy config validate
checks a config,
.B ivy config apply
uses it and undoes it if the services do not run well, and
.B ivy config schema
prints the JSON schema that this page was made from, for editors.
"""
_END = """\
.SH EXAMPLE
What a new node starts with:
.PP
.EX
{example}
.EE
.SH FILES
.TP
.I /etc/ivy/config.json
A link to the config of the current release.
.TP
.I /usr/lib/ivy/config/config.template.json
The config of a new node.
.SH SEE ALSO
.BR ivy (1)
"""


def page(schema: Schema, example: str, epoch: int) -> str:
    """The page.

    Args:
        schema: JSON schema of the config.
        example: A config.
        epoch: Unix time of the package's last change.
    """
    date = time.strftime("%B %Y", time.gmtime(epoch))
    lines = [f'.TH IVY\\-CONFIG 5 "{date}" "ivy {constants.VERSION}" "File Formats"', _BEGINNING.rstrip()]
    lines += [".SH SECTIONS", *_sections(schema, schema, "")]
    return "\n".join([*lines, _END.format(example=_roff(example.rstrip()))])


def _sections(schema: Schema, node: Schema, path: str) -> list[str]:
    """A section's fields, and after them the sections within it, with their paths as titles."""
    fields: list[str] = []
    inner: list[str] = []
    for name, field in node["properties"].items():
        target = _target(schema, field)
        if "properties" in target:
            title = f"{path}.{name}" if path else name
            left_out = "" if name in node.get("required", []) else "May be left out."
            inner += [f".SS {_roff(title)}", _text(target["description"]), left_out]
            inner += _sections(schema, target, title)
        elif "$ref" in (entry := target.get("additionalProperties") or {}):
            inner += [f".SS {_roff(name)}", _text(field["description"]), "May be left out."]
            inner += _sections(schema, _target(schema, entry), name)
        else:
            fields += [".TP", f"\\fB{_roff(name)}\\fR ({_type(schema, field)})", _text(field["description"])]
            if name not in node.get("required", []):
                fields.append(f"Default: {_roff(json.dumps(field['default']))}.")
    return [line for line in fields + inner if line]


def _target(schema: Schema, field: Schema) -> Schema:
    """What a field refers to, if it does; null aside."""
    for choice in field.get("anyOf", [field]):
        if "$ref" in choice:
            found: Schema = schema["$defs"][choice["$ref"].rpartition("/")[2]]
            return found
    return field


def _type(schema: Schema, field: Schema) -> str:
    choices = [_single_type(_target(schema, choice)) for choice in field.get("anyOf", [field])]
    return " or ".join(choices)


def _single_type(field: Schema) -> str:
    if "enum" in field:
        return _roff(" or ".join(map(json.dumps, field["enum"])))
    kind: str = field["type"]
    name = {"string": "text", "boolean": "true or false", "array": "list"}.get(kind, kind)
    least, most = field.get("minimum", field.get("minLength")), field.get("maximum", field.get("maxLength"))
    unit = " characters" if kind == "string" else ""
    if least is not None and most is not None:
        name += f", {least} to {most}{unit}"
    elif least is not None or most is not None:
        name += f", at least {least}{unit}" if most is None else f", at most {most}{unit}"
    return _roff(name)


def _text(text: str) -> str:
    """A description: code in bold."""
    return re.sub(r"`([^`]+)`", r"\\fB\1\\fR", _roff(text))


def _roff(text: str) -> str:
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"(?m)^([.'])", r"\\&\1", text)


if __name__ == "__main__":
    template = PROJECT / "config" / "config.template.json"
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))
    print(page(Config.model_json_schema(), template.read_text(encoding="utf-8"), epoch), end="")
