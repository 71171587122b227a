"""All that can be damaged below /var/lib/ivy, and how: what a card, a kernel and a power cut make of files."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from testbed.bed import Node

ROOT = "/var/lib/ivy"
OTHERS = ("data/messages/", "data/active-message-queue.sqlite3")
"""Archive and queue, which have tests of their own."""


def zeros(path: Path) -> None:
    """As after a power cut, of what was written and not synced."""
    path.write_bytes(bytes(path.stat().st_size))


def truncated(path: Path) -> None:
    """The same on other file systems."""
    path.write_bytes(b"")


def flipped(path: Path) -> None:
    """As a card that is worn."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def removed(path: Path) -> None:
    """As by fsck."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


HARMS: dict[str, Callable[[Path], None]] = {harm.__name__: harm for harm in (zeros, truncated, flipped, removed)}


@dataclass(frozen=True)
class Damage:
    """What is done to which file, by its path in the node."""

    harm: str
    path: str

    def do(self, node: Node) -> None:
        """Do it to a node without power."""
        HARMS[self.harm](node.path(self.path, follow=False))

    def __str__(self) -> str:
        return f"{self.path} {self.harm}"


def all_of_them(node: Node) -> list[Damage]:
    """All damage that changes something, of all files of a node without power."""
    root = node.path(ROOT)
    found = []
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if name.startswith(OTHERS) or not (path.is_symlink() or path.is_file()):
            continue
        has_content = not path.is_symlink() and path.stat().st_size > 0
        found += [Damage(harm, f"{ROOT}/{name}") for harm in HARMS if has_content or harm == "removed"]
    return found


def some_of(damages: Sequence[Damage], wanted: Sequence[tuple[str, str]]) -> list[Damage]:
    """Of each wanted kind one: how it is damaged, and how its path ends.

    Raises:
        LookupError: There is no such file.
    """
    chosen = []
    for harm, end in wanted:
        found = [damage for damage in damages if damage.harm == harm and Path(damage.path).match(end)]
        if not found:
            raise LookupError(f"no file {end} that could be {harm}")
        chosen.append(found[0])
    return chosen
