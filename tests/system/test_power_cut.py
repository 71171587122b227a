"""The environment of a release that is made again, when the power fails meanwhile: what was not synced may be lost.

strace writes down what happens to the disk. From that each directory is made that a power cut may leave: of files
that were not synced, or of one of them, the name without the content; of changed names those up to any moment since
they were synced, or all but one.
"""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from ivy.utils.updates import environment
from tests.support import strace
from tests.support.emulation import needs_own_processor
from tests.support.helpers import give_libraries

PROJECT = Path(__file__).parents[2]
CALLS = [*strace.PERSISTENT, "openat", "write"]
LIBRARY = "a_dependency.py"
REPAIR = f"""
import os, sys
from pathlib import Path
from ivy.utils.updates import environment
from tests.support.helpers import give_libraries

def install(release):
    give_libraries(release)
    [packages] = (release / ".venv" / "lib").glob("*/site-packages")
    (packages / "{LIBRARY}").write_text("VALUE = 'new'\\n")

os.chown = lambda *arguments, **how: None
environment.install_dependencies = install
if "fast" in sys.argv:
    os.sync = lambda: None
environment.make_again(Path(sys.argv[1]))
"""
LINE = re.compile(r'(?:\w+<(?P<place>[^>]*)>|(?P<quoted>"(?:[^"\\]|\\.)*")|(?P<other>[^,"]+))(?:, |$)')


@dataclass(frozen=True)
class File:
    """Something that has a name."""

    kind: str
    """`directory`, `link` or `file`."""
    content: str = ""


@dataclass(frozen=True)
class Step:
    """What one system call does to the disk, in this order: removed, made, written or synced."""

    name: str
    path: str = ""
    other: str = ""
    """Where it is renamed to, what a link leads to, or what is written."""


Tree = Mapping[str, File]


def steps_of(calls: Sequence[strace.Call], root: Path) -> Iterator[Step]:
    """What happens below a directory; paths are relative to it."""
    for call in calls:
        if call.result < 0:
            continue
        words = [match.groupdict() for match in LINE.finditer(call.arguments)]
        paths = [_path(words, number, root) for number in range(len(words))]
        if call.name == "sync":
            yield Step("sync")
        elif call.name in ("fsync", "fdatasync"):
            yield Step("sync one", paths[0])
        elif call.name == "write":
            yield Step("write", paths[0], ast.literal_eval(f"b{words[1]['quoted']}").decode() if paths[0] else "")
        elif call.name == "openat" and "O_CREAT" in call.arguments:
            yield Step("create", paths[1])
        elif call.name == "symlink":
            yield Step("link", paths[1], ast.literal_eval(words[0]["quoted"]))
        elif call.name == "rename":
            yield Step("rename", paths[0], paths[1])
        elif call.name in ("mkdir", "unlink", "rmdir", "unlinkat"):
            yield Step("make" if call.name == "mkdir" else "remove", next(filter(None, reversed(paths)), ""))


def _path(words: Sequence[Mapping[str, str | None]], number: int, root: Path) -> str:
    """The path that an argument is, relative to the root; empty if it is none below it."""
    quoted, place = words[number]["quoted"], words[number]["place"]
    path: str | None = ast.literal_eval(quoted) if quoted else place
    if path and quoted and number > 0 and (before := words[number - 1]["place"]):
        path = os.path.join(before, path)
    return os.path.relpath(path, root) if path and path.startswith(f"{root}/") else ""


def apply(tree: Tree, steps: Sequence[Step]) -> dict[str, File]:
    """A tree after some steps."""
    found = dict(tree)
    for step in steps:
        if step.name in ("create", "make"):
            found[step.path] = File("file" if step.name == "create" else "directory")
        elif step.name == "link":
            found[step.path] = File("link", step.other)
        elif step.name == "write" and step.path in found:
            found[step.path] = File("file", found[step.path].content + step.other)
        elif step.name == "remove":
            found.pop(step.path, None)
        elif step.name == "rename" and step.path in found:
            found[step.other] = found.pop(step.path)
    return {path: file for path, file in found.items() if os.path.dirname(path) in (*found, "")}


def without_content(steps: Sequence[Step], end: int) -> list[Step]:
    """The steps until the power failed, but for what was written to files and not synced."""
    kept = []
    for number, step in enumerate(steps[:end]):
        later = steps[number + 1 : end]
        is_synced = any(each.name == "sync" or each == Step("sync one", step.path) for each in later)
        if step.name != "write" or is_synced:
            kept.append(step)
    return kept


def left_by_a_cut(before: Tree, steps: Sequence[Step]) -> Iterator[tuple[int, dict[str, File]]]:
    """Every tree that a power cut may leave, and after how many steps it does."""
    for end in range(len(steps) + 1):
        done = [number for number in range(end) if steps[number].name.startswith("sync")]
        durable = max(done) + 1 if done else 0
        empty = without_content(steps, end)
        yield end, apply(before, steps[:end])
        yield end, apply(before, empty)
        for step in set(steps[:end]) - set(empty):
            yield end, apply(before, [other for other in steps[:end] if other is not step])
        for until in range(durable, end):
            yield end, apply(before, steps[:until])
        for number in range(durable, end):
            if steps[number].name in ("rename", "remove"):
                yield end, apply(before, [step for step in empty if step is not steps[number]])


def read(root: Path) -> dict[str, File]:
    """What is on the disk."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = File("link", str(path.readlink()))
        else:
            found[name] = File("directory") if path.is_dir() else File("file", path.read_text())
    return found


def write(root: Path, tree: Tree) -> None:
    """Put a tree on the disk."""
    root.mkdir(parents=True)
    for name, file in sorted(tree.items()):
        if file.kind == "directory":
            (root / name).mkdir()
        elif file.kind == "link":
            (root / name).symlink_to(file.content)
        else:
            (root / name).write_text(file.content)


def repair(release: Path, *before: str) -> None:
    """Make the environment of a release again, as the updater does."""
    places = {"PYTHONPATH": str(PROJECT), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [*before, sys.executable, "-c", REPAIR, str(release), *([] if before else ["fast"])]
    subprocess.run(command, env={**os.environ, **places}, check=True)


def dependency(release: Path) -> str:
    """What a service finds that imports a dependency; empty if it finds none."""
    command = [environment.python_of(release), "-B", "-P", "-c", "import a_dependency; print(a_dependency.VALUE)"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A release with an environment that works. Nothing remembers that it does."""
    monkeypatch.setenv("DPKG_ADMINDIR", "/nonexistent")
    release = tmp_path / "1.0.0"
    (release / "ivy").mkdir(parents=True)
    (release / "ivy" / "__init__.py").touch()
    environment.make(release)
    give_libraries(release)
    [packages] = (release / ".venv" / "lib").glob("*/site-packages")
    (packages / LIBRARY).write_text("VALUE = 'old'\n")
    assert environment.fits(release) and dependency(release) == "old"
    return release


@needs_own_processor
def test_a_power_cut_leaves_an_environment_that_works_or_does_not_fit(release: Path, tmp_path: Path) -> None:
    before = read(release)
    log = tmp_path / "strace"
    repair(release, *strace.recording(str(log), CALLS))
    steps = [step for step in steps_of(strace.parse(log.read_text()), release) if step.path or step.name == "sync"]
    assert apply(before, steps) == read(release), "the record is not what happened"
    trees = {tuple(sorted(tree.items(), key=str)): end for end, tree in left_by_a_cut(before, steps)}
    found: list[str] = []
    for number, (tree, end) in enumerate(trees.items()):
        left = tmp_path / "left" / str(number)
        write(left, dict(tree))
        if environment.fits(left):
            found.append(dependency(left))
            assert found[-1] in ("old", "new"), f"a cut after {steps[end - 1] if end else 'nothing'}: {left}"
        else:
            found.append("none")
            if found.count("none") % 10 == 1:  # it begins with removing all of it
                repair(left)
                assert environment.fits(left) and dependency(left) == "new"
    assert set(found) == {"old", "none", "new"}
    print(f"{len(trees)} trees after {len(steps)} steps")
