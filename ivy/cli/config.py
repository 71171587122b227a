"""`ivy config show`, `validate`, `schema`."""

import argparse
import json
import sys
from pathlib import Path

from ivy import constants
from ivy.types.config import Config, ConfigError
from ivy.types.messages import ConfigMessageBody

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def show(_arguments: argparse.Namespace) -> int:
    """Print the current config, without its secrets."""
    try:
        config = Config.load()
    except ConfigError as error:
        return _complain(error)
    shown = ConfigMessageBody(status="startup", config=config.to_foreign_config()).config
    print(json.dumps(shown.model_dump(mode="json"), indent=4, ensure_ascii=False))
    return 0


def validate(arguments: argparse.Namespace) -> int:
    """Check a config."""
    try:
        if arguments.file is None:
            Config.load()
        else:
            Config.load_from_string(Path(arguments.file).read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        return _complain(ValueError(f"{arguments.file}: is not UTF-8: {error}"))
    except ConfigError as error:
        return _complain(error if arguments.file is None else ValueError(f"{arguments.file}: {error}"))
    print("the config is valid")
    return 0


def schema(_arguments: argparse.Namespace) -> int:
    """Print the JSON schema, as editors want it."""
    document = Config.model_json_schema() | {"title": f"Config of ivy {constants.VERSION}"}
    print(json.dumps({"$schema": _DIALECT, **document}, indent=4))
    return 0


def _complain(error: ValueError) -> int:
    print(f"ivy: {error}", file=sys.stderr)
    return constants.EXIT_CONFIG_ERROR
