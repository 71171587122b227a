"""Modules and actions of the collection, without Ansible: what they import of it is given to them."""

import importlib.util
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

COLLECTION = Path(__file__).parents[2] / "packaging" / "ansible"
PLUGINS = COLLECTION / "plugins"


def load(monkeypatch: pytest.MonkeyPatch, path: str, given: Mapping[str, Mapping[str, Any]]) -> types.ModuleType:
    """Load a plugin.

    Args:
        monkeypatch: Takes all back.
        path: Of its file, below `PLUGINS`.
        given: The modules that it imports, each with what is in it.
    """
    for name, content in given.items():
        imported = types.ModuleType(name)
        vars(imported).update(content)
        monkeypatch.setitem(sys.modules, name, imported)
    spec = importlib.util.spec_from_file_location(f"{Path(path).stem}_of_ansible", PLUGINS / path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    spec.loader.exec_module(module)
    return module
