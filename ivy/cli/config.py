"""`ivy config show`, `validate`, `schema`."""

import argparse
import json
from pathlib import Path

from ivy import constants
from ivy.cli.main import refuse
from ivy.types.config import Config, ConfigError
from ivy.types.messages import ConfigMessageBody

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def show(_arguments: argparse.Namespace) -> None:
    """Print the current config, without its secrets."""
    shown = ConfigMessageBody(status="startup", config=_load().to_foreign_config()).config
    print(json.dumps(shown.model_dump(mode="json"), indent=4, ensure_ascii=False))


def validate(arguments: argparse.Namespace) -> None:
    """Check a config."""
    _load(arguments.file)
    print("the config is valid")


def schema(_arguments: argparse.Namespace) -> None:
    """Print the JSON schema, as editors want it."""
    document = Config.model_json_schema() | {"title": f"Config of ivy {constants.VERSION}"}
    print(json.dumps({"$schema": _DIALECT, **document}, indent=4))


def _load(file: str | None = None) -> Config:
    try:
        return Config.load() if file is None else Config.load_from_string(Path(file).read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        refuse(f"{file}: is not UTF-8: {error}", constants.EXIT_CONFIG_ERROR)
    except ConfigError as error:
        refuse(str(error) if file is None else f"{file}: {error}", constants.EXIT_CONFIG_ERROR)
