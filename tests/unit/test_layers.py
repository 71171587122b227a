"""The import graph is the architecture: an arrow may only point down, see `tests.support.import_graph`."""

import ast
import re
from pathlib import Path

import pytest

from ivy import constants, main
from tests.support.helpers import BACKEND, Node, NotifySocket
from tests.support.import_graph import PACKAGE, arrows, circles, imports_of, is_up, modules, name_of, room_of

MODULES = modules()
SPECIFIED = {"functions", "lifecycle_manager", "logger", "mainloop_toggle", "messaging_agent", "state_interface"}
ROOMS_OF_UTILS = {"host", "storage", "updates"}


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_from_its_own_room_and_from_floors_below(module: Path) -> None:
    own = name_of(module)
    wrong = [other for other in arrows()[own] if is_up(own, other)]
    assert not wrong, f"ivy.{own} must not import {wrong}: see FLOORS in tests/support/import_graph.py"


def test_every_module_is_in_a_room() -> None:
    for module in MODULES:
        room_of(name_of(module))


def test_somebody_who_adds_a_folder_is_told_what_to_do() -> None:
    with pytest.raises(LookupError, match=r"FLOORS in tests/support/import_graph\.py"):
        room_of("hardware.valve")


@pytest.mark.parametrize("name", ["_valve", "drivers.valve"])
def test_a_driver_is_a_helper_beside_the_procedures_or_a_package_there(name: str) -> None:
    driver = f"procedures.{name}"
    assert room_of(driver) == "procedures"
    assert not is_up("procedures.wind", driver) and is_up("utils.storage.store", driver)


def test_no_modules_import_each_other() -> None:
    assert circles(arrows()) == []
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == [["b", "c"]]


def test_utils_holds_what_the_specification_names_and_notify() -> None:
    found = {path.stem for path in (PACKAGE / "utils").iterdir() if path.suffix == ".py" or path.is_dir()}
    assert found - {"__init__", "__pycache__"} == {*SPECIFIED, "updater", "notify", *ROOMS_OF_UTILS}


def test_statements_on_the_tables_of_the_queue_stand_in_the_storage_only() -> None:
    statement = re.compile(
        r"\b(FROM|INTO|UPDATE|TABLE( IF NOT EXISTS)?) (QUEUE|DROPPED|ONCE)\b|\bIS_(LOG|CONFIG)\b"
    )
    found = {room_of(name_of(module)) for module in MODULES if statement.search(module.read_text())}
    assert found == {"utils.storage"}


FEW_LINES = 40
SMALL = {
    "backend/flags.py": "for all that a backend leaves word of",
    "cli/doctor/finding.py": "what all checks return; in one of them, the others would import that one for it",
    "types/model.py": "below all other types, which need not know each other for it",
    "utils/host/vitals.py": "the only one that knows psutil, which no backend is to load",
    "utils/updates/errors.py": "what all steps of an update raise",
    "utils/updates/history.py": "where the record is, for backends, the command and all steps of an update",
    "utils/updates/last_decision.py": "for services, who load nothing of what makes decisions",
}
"""Modules of so few lines, and why each is one nevertheless. A procedure is one, however little it does."""


def test_a_small_module_has_a_reason_to_be_one() -> None:
    lines = {str(path.relative_to(PACKAGE)): len(path.read_text().splitlines()) for path in MODULES}
    small = {path for path, count in lines.items() if count < FEW_LINES and not path.endswith("__init__.py")}
    small = {path for path in small if not path.startswith("procedures/")}
    assert small - SMALL.keys() == set(), "fold it into its only user, or say in SMALL why not"
    assert SMALL.keys() - small == set(), "has grown, or is gone: it needs no reason any more"


def test_packages_do_nothing_when_imported() -> None:
    for module in MODULES:
        if module.name == "__init__.py":
            assert len(ast.parse(module.read_text()).body) <= 1, module  # the docstring


def _using(library: str) -> set[str]:
    return {
        str(module.relative_to(PACKAGE))
        for module in MODULES
        if any(name.split(".")[0] == library for name in imports_of(module))
    }


@pytest.mark.parametrize(
    ("library", "module"),
    [
        ("paho", "backend/paho_client.py"),
        ("sdnotify", "utils/notify.py"),
        ("psutil", "utils/host/vitals.py"),
        ("subprocess", "utils/host/commands.py"),
    ],
)
def test_one_module_knows_each_library(library: str, module: str) -> None:
    assert _using(library) == {module}


SAYS_WHAT_IT_LOADED = """
import atexit, gc, runpy, sys

def say():
    collector = "collects" * gc.isenabled(), "frozen" * (gc.get_freeze_count() > 0)
    print("\\n", *{name.split('.')[0] for name in sys.modules if sys.modules[name]}, *collector)

atexit.register(say)
sys.argv[0] = "ivy"
runpy.run_module("ivy", run_name="__main__")
"""
"""Runs ivy in a Python that prints at its end what it has loaded, and what of that its garbage collector skips."""


def loaded_by(node: Node, notify_socket: NotifySocket, service: str) -> set[str]:
    """The top-level modules in the memory of a service that has worked."""
    node.write_config(backend=BACKEND)
    process = node.start("-c", SAYS_WHAT_IT_LOADED, "run", service)
    notify_socket.until("STATUS=")
    process.terminate()
    output, errors = process.communicate(timeout=80)
    assert process.returncode == 0, errors
    return set(output.splitlines()[-1].split())


def test_a_procedure_carries_no_network(node: Node, notify_socket: NotifySocket) -> None:
    loaded = loaded_by(node, notify_socket, "system-checks")
    assert {"ivy", "pydantic", "sqlite3"} <= loaded
    # hashlib's is OpenSSL; the last is importlib.metadata's.
    assert not loaded & {"paho", "filelock", "asyncio", "ssl", "hashlib", "zipfile", "argparse", "frozen"}


def test_the_backend_carries_only_what_it_needs(node: Node, notify_socket: NotifySocket) -> None:
    # As where dnspython is installed: paho would load it.
    (node.release / "dns").mkdir()
    (node.release / "dns" / "__init__.py").touch()
    (node.release / "dns" / "resolver.py").touch()
    loaded = loaded_by(node, notify_socket, "tenta")
    assert "paho" in loaded
    assert not loaded & {"filelock", "asyncio", "dns", "psutil", "argparse", "frozen"}


@pytest.mark.parametrize("command", [["status"], ["link"], ["run", "updater"]])
def test_what_ends_soon_loads_little_and_looks_for_no_garbage_meanwhile(node: Node, command: list[str]) -> None:
    node.write_config()
    output, errors = node.start("-c", SAYS_WHAT_IT_LOADED, *command).communicate(timeout=80)
    loaded = set(output.splitlines()[-1].split())
    assert {"ivy", "pydantic", "collects", "frozen"} <= loaded, errors
    assert not loaded & {"paho", "asyncio", "ssl", "psutil", "zipfile", "email"}


def test_the_services_are_those_of_the_units() -> None:
    units = {path.stem.removeprefix("ivy-") for path in Path(constants.PROJECT_DIR, "units").glob("ivy-*.service")}
    assert units - {"call@", "owners", "repair", "restart", "rollback", "report@", "salvage", "provision"} == set(
        main.service_names()
    )
