"""How the tests may use each other: what several suites use stands in `tests/support`."""

import ast
from collections.abc import Iterator
from pathlib import Path

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


def test_no_test_imports_another_test_or_suite() -> None:
    faults = []
    for path in MODULES:
        where = path.relative_to(TESTS)
        for parts in (name.split(".") for name in imported(path)):
            is_of_a_test = any(part.startswith("test_") for part in parts)
            if parts[1] not in (where.parts[0], "support") or is_of_a_test:
                faults.append(f"{where}: {'.'.join(parts)}")
    assert faults == []  # what several use moves to tests/support
