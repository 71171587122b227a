"""How the tests may use each other: what several suites use stands in `tests/support`."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
MODULES = sorted(TESTS.rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """All that a module may import of the tests, as absolute names of modules or of what is in them."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.startswith("tests."))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(TESTS)))
def test_no_test_imports_another_test_or_suite(path: Path) -> None:
    suite = path.relative_to(TESTS).parts[0]
    for name in imported(path):
        parts = name.split(".")
        assert parts[1] in (suite, "support"), f"{name} is of another suite: what both use moves to tests/support"
        assert not any(part.startswith("test_") for part in parts), f"{name} is a test"
