"""`ivy config show`, `get`, `validate`, `schema`."""

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ivy import constants
from ivy.cli import fields
from ivy.cli.main import refuse, refuse_config
from ivy.types import accepted_config, secrets, secrets_file
from ivy.types.config import Config, ConfigError, check_names
from ivy.utils.host import rights
from ivy.utils.updates.releases import Releases

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def show(_arguments: argparse.Namespace) -> None:
    """Print the current config, without its secrets."""
    print(json.dumps(_shown(), indent=4, ensure_ascii=False))


def get(arguments: argparse.Namespace) -> None:
    """Print one field or section of it, as JSON."""
    try:
        fields.check(arguments.path)
        value = fields.find(_shown(), arguments.path)
    except fields.UnknownFieldError as error:
        refuse(str(error))
    except LookupError as error:
        refuse(f"{error} in the config", 1)
    print(json.dumps(value, indent=4, ensure_ascii=False))


def validate(arguments: argparse.Namespace) -> None:
    """Check a config."""
    _load(Config.load, arguments.file)
    print("the config is valid")


def schema(_arguments: argparse.Namespace) -> None:
    """Print the JSON schema, as editors want it."""
    document = Config.model_json_schema() | {"title": f"Config of ivy {constants.VERSION}"}
    print(json.dumps({"$schema": _DIALECT, **document}, indent=4))


def _shown() -> dict[str, Any]:
    shown: dict[str, Any] = secrets.hide(_load(_in_use).model_dump(mode="json"), Config)
    return shown


def _in_use() -> Config:
    config, trouble = accepted_config.load()
    if trouble is not None:
        print(f"ivy: {trouble}; {accepted_config.IN_USE}", file=sys.stderr)
    return config


def _load(load: Callable[[], Config], file: str | None = None) -> Config:
    try:
        text = None if file is None else Path(file).read_text(encoding=secrets_file.ENCODING)
        node = (Releases().known(), Releases().shown_text()) if _knows_secrets() else None
        rights.give_up()  # only now: the file may be root's own
        config = load() if text is None else Config.load_from_string(text)
        if text is not None:
            check_names(text)
        if node is not None:
            secrets.fill(json.loads(node[1] if text is None else text), node[0], Config)
        return config
    except UnicodeDecodeError as error:
        refuse(f"{file}: is not UTF-8: {error}", constants.EXIT_CONFIG_ERROR)
    except (ConfigError, secrets.UnknownSecretError) as error:
        refuse_config(error, "" if file is None else f"{file}: ")


def _knows_secrets() -> bool:
    """Whether we are on a node, and may know what it has: elsewhere a config for another node is checked."""
    return os.geteuid() == 0 and Releases().current() is not None
