"""`ivy new-procedure`: the files of a procedure of your own, in a checkout, from packaging/new-procedure/."""

import argparse
import keyword
import re
import sys
from pathlib import Path

from ivy import constants
from ivy.types.config import Config
from ivy.utils import switching

_CHECKOUT = Path(constants.PROJECT_DIR)
_TEMPLATES = _CHECKOUT / "packaging" / "new-procedure"
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", re.ASCII)
_SCHEMA = "ivy/types/config.py"
_SECTIONS_END = "class Config(_Section):\n"
_LAST_FIELD = "    system_checks: SystemChecksConfig\n"
_WRONG_USE = 2


def run(arguments: argparse.Namespace) -> int:
    """Write them, or nothing."""
    name: str = arguments.name
    module = name.replace("-", "_")
    if not _NAME.fullmatch(name) or keyword.iskeyword(module):
        return _refuse(f"{name!r} cannot be a procedure's name: lower-case words with dashes, e.g. wind-speed")
    if not _TEMPLATES.is_dir():
        return _refuse(f"{_CHECKOUT} is no checkout of the source code; there is no {_TEMPLATES}")
    files = _files(name, module)
    there = [path for path in files if path != _SCHEMA and (_CHECKOUT / path).exists()]
    if there or files[_SCHEMA] is None:
        return _refuse(
            f"there is a {', '.join(there)} already" if there else f"{_SCHEMA} is not as it was: add it there"
        )
    if module in Config.model_fields or name.split("-")[0] in switching.PACKAGE_ONLY:
        return _refuse(f"{name!r} is the name of something else in ivy; choose another one")
    for path, text in files.items():
        (_CHECKOUT / path).write_text(str(text), encoding="utf-8")
        print(f"{'changed' if path == _SCHEMA else 'wrote  '} {path}")
    print(f"\nTry it: packaging/test unit -- -k {module}")
    return 0


def _files(name: str, module: str) -> dict[str, str | None]:
    """What to write, by paths in the checkout; no text where the schema has another form than expected."""
    words = {"@NAME@": name, "@MODULE@": module, "@CLASS@": "".join(word.capitalize() for word in name.split("-"))}
    return {
        f"ivy/procedures/{module}.py": _fill("procedure.py.in", words),
        f"units/{constants.NAME}-{name}.service": _fill("unit.in", words),
        f"tests/unit/test_procedure_{module}.py": _fill("test.py.in", words),
        _SCHEMA: _extend_schema(_fill("config.py.in", words), module, f"{words['@CLASS@']}Config"),
    }


def _fill(template: str, words: dict[str, str]) -> str:
    text = (_TEMPLATES / template).read_text(encoding="utf-8")
    for placeholder, word in words.items():
        text = text.replace(placeholder, word)
    return text


def _extend_schema(section: str, field: str, model: str) -> str | None:
    """The section has a default, so that every config of a fleet stays valid."""
    text = (_CHECKOUT / _SCHEMA).read_text(encoding="utf-8")
    if text.count(_SECTIONS_END) != 1 or text.count(_LAST_FIELD) != 1:
        return None
    text = text.replace(_SECTIONS_END, section + _SECTIONS_END)
    return text.replace(_LAST_FIELD, f"{_LAST_FIELD}    {field}: {model} = {model}()\n")


def _refuse(complaint: str) -> int:
    print(f"ivy: {complaint}", file=sys.stderr)
    return _WRONG_USE
