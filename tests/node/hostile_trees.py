"""Trees that git would not make by itself, and that somebody with a signing key and bad intent could.

Each function returns a graft for `ReleaseMaker.release(graft=...)`, or several in a row (`releases.grafts`).
"""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.releases import Graft

FILE = "100644"
SET_USER_ID = "104755"
SYMLINK = "120000"
DIRECTORY = "40000"
SUBMODULE = "160000"
ID_BYTES = 20  # of SHA-1


@dataclass(frozen=True)
class Entry:
    """One entry of a tree object, as git stores it."""

    mode: str
    name: str
    object: str

    def as_bytes(self) -> bytes:
        return f"{self.mode} {self.name}\0".encode() + bytes.fromhex(self.object)

    def order(self) -> str:
        """Git sorts directories as if their names ended in a slash."""
        return f"{self.name}/" if self.mode == DIRECTORY else self.name


def file(path: Sequence[str], content: str = "hostile\n", mode: str = FILE) -> Graft:
    """A file at a path whose parts may be anything: `[".git", "hooks", "x"]`, `["..", "..", "x"]`, `["/etc/x"]`."""
    return lambda repository, tree: _add(repository, tree, path, mode, _write(repository, "blob", content.encode()))


def symlink(path: Sequence[str], target: str) -> Graft:
    """A symbolic link to anywhere, absolute or relative."""
    return file(path, target, SYMLINK)


def submodule(path: Sequence[str]) -> Graft:
    """A commit of another repository, which is not there."""
    return lambda repository, tree: _add(repository, tree, path, SUBMODULE, "1" * 2 * ID_BYTES)


def symlink_chain(outside: str = "../../..") -> list[Graft]:
    """Links that look harmless one by one; through `first/` a path leads outside."""
    return [
        symlink(["first"], "second"),
        symlink(["second"], "third/fourth"),
        symlink(["third", "fourth"], outside),
    ]


def link_and_directory(name: str, target: str, inner: str) -> list[Graft]:
    """Two entries of one name: a link to `target`, and a directory with a file; unpacked one after the other,
    the file is written into `target`."""
    return [symlink([name], target), file([name, inner])]


def bomb(path: Sequence[str], depth: int = 8, width: int = 10) -> Graft:
    """Directories of directories that are all the same one: a few objects that list `width ** depth` files."""

    def graft(repository: Path, tree: str) -> str:
        mode, inner = FILE, _write(repository, "blob", b"")
        for _ in range(depth):
            entries = [Entry(mode, str(number), inner) for number in range(width)]
            mode, inner = DIRECTORY, _write(repository, "tree", b"".join(entry.as_bytes() for entry in entries))
        return _add(repository, tree, path, DIRECTORY, inner)

    return graft


def _add(repository: Path, tree: str | None, path: Sequence[str], mode: str, what: str) -> str:
    """A tree with one more entry; directories on the way are entered, or made. Other entries stay."""
    entries = _read(repository, tree) if tree else []
    name, *rest = path
    if rest:
        inside = next((entry for entry in entries if (entry.name, entry.mode) == (name, DIRECTORY)), None)
        entries = [entry for entry in entries if entry is not inside]
        what, mode = _add(repository, inside.object if inside else None, rest, mode, what), DIRECTORY
    entries = sorted([*entries, Entry(mode, name, what)], key=Entry.order)
    return _write(repository, "tree", b"".join(entry.as_bytes() for entry in entries))


def _read(repository: Path, tree: str) -> list[Entry]:
    raw, entries = _git(repository, ["cat-file", "tree", tree]), []
    while raw:
        head, _, rest = raw.partition(b"\0")
        mode, _, name = head.decode().partition(" ")
        entries.append(Entry(mode, name, rest[:ID_BYTES].hex()))
        raw = rest[ID_BYTES:]
    return entries


def _write(repository: Path, kind: str, content: bytes) -> str:
    """Without git's checks of what a tree may hold."""
    command = ["hash-object", "-t", kind, "-w", "--literally", "--stdin"]
    return _git(repository, command, content).decode().strip()


def _git(repository: Path, arguments: Sequence[str], content: bytes = b"") -> bytes:
    """Not by `testbed.run`, which speaks text: trees are binary."""
    command = ["git", "--git-dir", str(repository), *arguments]
    return subprocess.run(command, input=content, stdout=subprocess.PIPE, check=True).stdout
