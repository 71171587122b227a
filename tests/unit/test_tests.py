"""What tests may use: of each other what stands in `tests/support`, and of ivy the public face."""

import ast
import re
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


PRIVATE = re.compile(r"\b(?!self\b|cls\b)\w+\._(?!_)\w+")
ALLOWED = {
    "os._exit": "public, in spite of its name",
    "parser._actions": "argparse lists what it was told nowhere else",
    "action._choices_actions": "as well",
    "argparse._SubParsersAction": "as well",
    "Logger._write_log_line": "named by the specification",
}


def private_names(tree: ast.Module) -> Iterator[str]:
    """Those that are read or patched, also by code in strings. Modules of `procedures` are none: `_` only says that
    they are no procedures.
    """
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(ast.Name(name), attribute):
                yield from PRIVATE.findall(f"{name}.{attribute}")
            case ast.Attribute(value, attribute) if not ast.unparse(value).startswith("super("):
                yield from PRIVATE.findall(f"it.{attribute}")
            case ast.Constant(str(text)):
                yield from PRIVATE.findall(text)
            case ast.Call(ast.Attribute(_, "setattr" | "delattr"), arguments):
                names = (re.fullmatch(r"'(_[^_]\w*)'", ast.unparse(argument)) for argument in arguments)
                yield from (f"it.{name[1]}" for name in names if name)
            case ast.ImportFrom(module, aliases) if module != "ivy.procedures":
                yield from (f"{module}.{alias.name}" for alias in aliases if alias.name.startswith("_"))


def test_no_test_touches_what_is_private() -> None:
    faults = []
    for path in MODULES:
        names = set(private_names(ast.parse(path.read_bytes()))) - ALLOWED.keys()
        faults += [f"{path.relative_to(TESTS)}: {name}" for name in sorted(names)]
    assert faults == []  # let it come in as a parameter, or see what it does from outside
