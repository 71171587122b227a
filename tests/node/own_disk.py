"""A disk of its own for a directory of a node, small enough to be filled."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from testbed.bed import Node
from testbed.run import run


def insert(node: Node, inside: str, megabytes: int) -> None:
    """Put the disk in, with what the directory holds. The node, which has no power now, keeps it."""
    image, directory = node.directory / "own.img", node.path(inside)
    content = node.directory / "own.content"
    run(["truncate", f"--size={megabytes}M", image])
    run(["cp", "--archive", directory, content])
    run(["mkfs.ext4", "-q", "-m", "0", "-d", content, image])
    run(["mount", "-o", "loop", image, directory])


@contextmanager
def filled(directory: Path, free: int) -> Generator[None, None, None]:
    """A disk with no more room than so many bytes."""
    filler = directory / "filler"
    with filler.open("wb") as file:
        found = os.statvfs(directory)
        os.posix_fallocate(file.fileno(), 0, found.f_bavail * found.f_frsize - free)
    try:
        yield
    finally:
        filler.unlink()
