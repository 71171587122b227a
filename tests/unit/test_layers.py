"""The import graph is the architecture: an arrow may only point left.

constants <- types <- utils <- procedures, backend <- main <- cli
"""

import ast
from pathlib import Path

import pytest

from ivy import constants, main
from tests.unit.helpers import BACKEND, Node, NotifySocket

PACKAGE = Path(constants.PROJECT_DIR, "ivy")
# `version` and `files` stand below all, because everything may use them.
LAYERS = {
    "version": 0,
    "files": 0,
    "constants": 1,
    "types": 2,
    "utils": 3,
    "procedures": 4,
    "backend": 4,
    "main": 5,
    "cli": 6,
    "__main__": 7,
}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def layer_of(module: Path) -> str:
    """The part of ivy that a module belongs to."""
    return module.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(module: Path) -> set[str]:
    """All that a module imports, wherever in it, by full names."""
    found = set[str]()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{module}: relative imports hide the layer"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def imported_layers(module: Path) -> set[str]:
    """The parts of ivy that a module imports."""
    return {name.split(".")[1] for name in imports(module) if name.startswith("ivy.")}


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_from_its_own_layer_and_those_below(module: Path) -> None:
    own = layer_of(module)
    for other in imported_layers(module):
        assert other == own or LAYERS[other] < LAYERS[own], f"{own} must not import {other}"


def test_every_module_has_a_layer() -> None:
    assert {layer_of(module) for module in MODULES} == set(LAYERS)


def test_packages_do_nothing_when_imported() -> None:
    for module in MODULES:
        if module.name == "__init__.py":
            assert len(ast.parse(module.read_text()).body) <= 1, module  # the docstring


def _using(library: str) -> set[str]:
    return {
        str(module.relative_to(PACKAGE))
        for module in MODULES
        if any(name.split(".")[0] == library for name in imports(module))
    }


@pytest.mark.parametrize(
    ("library", "module"),
    [
        ("paho", "backend/mqtt_link.py"),
        ("sdnotify", "utils/notify.py"),
        ("systemd", "utils/journal.py"),
        ("psutil", "utils/vitals.py"),
        ("filelock", "utils/functions.py"),
        ("subprocess", "utils/commands.py"),
    ],
)
def test_one_module_knows_each_library(library: str, module: str) -> None:
    assert _using(library) == {module}


def loaded_by(node: Node, notify_socket: NotifySocket, service: str) -> set[str]:
    """The top-level modules in the memory of a service that has worked."""
    node.write_config(backend=BACKEND)
    code = """
import atexit, runpy, sys
atexit.register(lambda: print(*{name.split('.')[0] for name in sys.modules if sys.modules[name]}))
sys.argv[0] = "ivy"
runpy.run_module("ivy", run_name="__main__")
"""
    process = node.start("-c", code, "run", service)
    notify_socket.until("STATUS=")
    process.terminate()
    output, errors = process.communicate(timeout=20)
    assert process.returncode == 0, errors
    return set(output.splitlines()[-1].split())


PROCEDURES = ["dummy-procedure", "system-checks"]


@pytest.mark.parametrize("service", PROCEDURES)
def test_a_procedure_carries_no_network(node: Node, notify_socket: NotifySocket, service: str) -> None:
    node.environment |= {"PYDANTIC_DISABLE_PLUGINS": "__all__"}  # as in the units
    loaded = loaded_by(node, notify_socket, service)
    assert {"ivy", "pydantic", "sqlite3"} <= loaded
    assert not loaded & {"paho", "filelock", "asyncio", "ssl", "zipfile"}  # the last is importlib.metadata's


def test_the_backend_carries_only_what_it_needs(node: Node, notify_socket: NotifySocket) -> None:
    # As where dnspython is installed: paho would load it.
    (node.release / "dns").mkdir()
    (node.release / "dns" / "__init__.py").touch()
    (node.release / "dns" / "resolver.py").touch()
    loaded = loaded_by(node, notify_socket, "tenta")
    assert "paho" in loaded
    assert not loaded & {"filelock", "asyncio", "dns"}


def test_the_services_are_those_of_the_units() -> None:
    units = {path.stem.removeprefix("ivy-") for path in Path(constants.PROJECT_DIR, "units").glob("ivy-*.service")}
    assert units - {"restart", "rollback", "report@"} == set(main.service_names())
