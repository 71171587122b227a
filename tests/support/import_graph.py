"""The import graph of `ivy`: its rooms, the floors they are on, and the arrows between its modules.

python -m tests.support.import_graph      # prints it; exits with 1 if an arrow points up, or there is a circle
"""

import ast
import functools
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "ivy"

FLOORS: tuple[tuple[str, ...], ...] = (
    ("version", "files"),
    ("constants",),
    ("types",),
    ("utils.host", "utils.notify"),  # who waits for a program goes on with heartbeats, and signals may end both
    ("utils.functions",),
    ("utils.storage",),
    ("utils.messaging_agent", "utils.state_interface"),
    ("utils.logger", "overview"),
    ("utils.lifecycle_manager", "utils.mainloop_toggle"),
    ("utils.updates",),
    ("utils.updater",),
    ("procedures", "backend"),
    ("service",),
    ("update_pass",),
    ("main",),
    ("cli",),
    ("__main__",),
)
"""From the ground up. A module may import from its own room, from `SHARED` floors', and from all floors below."""

SHARED = {"utils.host", "utils.notify"}
"""The only two rooms on one floor that know each other."""


def modules() -> list[Path]:
    """The files of all modules but the package itself."""
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def name_of(module: Path) -> str:
    """A module's name, without the `ivy.` in front."""
    parts = module.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(name: str) -> str:
    """The room of a module: `utils.host.clock` is in `utils.host`, `backend.offers` in `backend`.

    Raises:
        LookupError: It is in none; the text says what to do.
    """
    rooms = [room for floor in FLOORS for room in floor]
    found = [room for room in rooms if name == room or name.startswith(f"{room}.")]
    if not found and name not in ("", "utils"):
        raise LookupError(
            f"ivy.{name} is in no room that FLOORS in tests/support/import_graph.py knows. A new folder is named "
            "there, on the lowest floor that has all below it that it imports; tell ivy/README.md what it is for."
        )
    return found[0] if found else name


def floor_of(room: str) -> int:
    """How high a room is; what is only a package is below all."""
    return next((number for number, floor in enumerate(FLOORS) if room in floor), -1)


@functools.cache
def imports_of(module: Path) -> frozenset[str]:
    """All that a module imports, wherever in it, by full names.

    Raises:
        SyntaxError: A relative import, which hides where it leads.
    """
    found = set[str]()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level or not node.module:
                raise SyntaxError(f"{module}: a relative import hides the room")
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(found)


def arrows() -> dict[str, set[str]]:
    """Which modules of `ivy` each one imports."""
    names = {name_of(module): module for module in modules()}
    return {name: set(_known(imports_of(module), names)) - {name} for name, module in names.items()}


def _known(imported: frozenset[str], names: Mapping[str, Path]) -> Iterator[str]:
    for full in imported:
        if not full.startswith("ivy."):
            continue
        name = full.removeprefix("ivy.")
        while name and name not in names:
            name = name.rpartition(".")[0]
        if name and names[name].name != "__init__.py":
            yield name


def is_up(one: str, other: str) -> bool:
    """Whether an arrow from one module to another leads to a room that it must not know."""
    own, its = room_of(one), room_of(other)
    return own != its and floor_of(its) >= floor_of(own) and not {own, its} <= SHARED


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Modules that import each other, directly or through others (Tarjan's strongly connected components)."""
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    path: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        number[name] = lowest[name] = len(number)
        path.append(name)
        for other in sorted(graph[name]):
            if other not in number:
                visit(other)
            if other in path:
                lowest[name] = min(lowest[name], lowest[other])
        if lowest[name] == number[name]:
            circle = path[path.index(name) :]
            del path[path.index(name) :]
            if len(circle) > 1:
                found.append(sorted(circle))

    for name in sorted(graph):
        if name not in number:
            visit(name)
    return found


def main() -> int:
    """Print the graph. Returns the exit status."""
    graph = arrows()
    up = [f"{one} -> {other}" for one, others in graph.items() for other in sorted(others) if is_up(one, other)]
    for number, floor in reversed(list(enumerate(FLOORS))):
        for room in floor:
            inside = [name for name in graph if room_of(name) == room]
            below = sorted({room_of(other) for name in inside for other in graph[name]} - {room})
            print(f"{number:2} {room:<24} {len(inside):3} modules  imports {', '.join(below) or 'nothing'}")
    around = circles(graph)
    total = sum(map(len, graph.values()))
    print(f"{len(graph)} modules, {total} arrows, {len(up)} up, {len(around)} circles")
    print(*up, *map(", ".join, around), sep="\n")
    return 1 if up or around else 0


if __name__ == "__main__":
    sys.exit(main())
