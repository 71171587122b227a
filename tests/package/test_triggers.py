"""The package wants to know of each change of what its services run on: interpreter, and libraries of Debian's."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
LIBRARIES = "/usr/lib/python3/dist-packages/"
MODULES = [path for path in (PROJECT / "ivy").rglob("*.py") if path.parts[-2] != "cli"]  # what stays in memory
LOADED = """
import sys
sys.modules["dns"] = None  # as ivy.backend.paho_client has it
before = {{*sys.modules}}
import {}
print(*(name for name, module in sys.modules.items() if module and name not in before))
"""


@pytest.fixture(scope="module")
def triggers() -> list[str]:
    """The paths that the package is interested in."""
    lines = (PROJECT / "debian" / "ivy.triggers").read_text().splitlines()
    words = [line.split() for line in lines if not line.startswith("#")]
    assert {kind for kind, _ in words} == {"interest-noawait"}, "another kind would hold up other packages"
    return [path for _, path in words]


def imported() -> set[str]:
    """The modules of others that ivy's own import, wherever in them."""
    found: set[str] = set()
    for module in MODULES:
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module)
    top = {name: name.split(".")[0] for name in found}
    # Those with a "_" are Python's own, perhaps of another version, or for who checks types only.
    return {name for name in found if name[0] != "_" and top[name] not in {"ivy", *sys.stdlib_module_names}}


def test_every_library_that_a_service_has_in_memory_is_watched(triggers: list[str]) -> None:
    wanted = {name.split(".")[0] for name in imported()}
    assert {"paho", "psutil", "pydantic"} <= wanted
    # By hand there may be no such library, so what is there tells what the others bring.
    present = sorted(name for name in imported() if importlib.util.find_spec(name.split(".")[0]))
    command = [sys.executable, "-c", LOADED.format(", ".join(present))]
    loaded = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True).stdout.split()
    top = {name.split(".")[0] for name in loaded if not name.startswith("_")}
    wanted |= top - {"ivy", "__main__", "__mp_main__", *sys.stdlib_module_names}
    watched = {path.removeprefix(LIBRARIES).removesuffix(".py") for path in triggers if path.startswith(LIBRARIES)}
    assert wanted <= watched
    # Which of them an environment cannot do without, the question about it names, too.
    question = (PROJECT / "ivy" / "fits.sh").read_text()
    assert all(name.split(".")[0] in question for name in imported())


def test_the_interpreter_is_watched_and_those_to_come(triggers: list[str]) -> None:
    assert "/usr/bin/python3" in triggers
    for directory in ("/usr/bin", "/usr/lib"):
        for minor in range(11, 21):
            assert f"{directory}/python3.{minor}" in triggers
