"""Damages a node's queue under its services, and says which samples SQLite can read afterwards."""

import contextlib
import random
import re
import shutil
from collections.abc import Generator, Sequence

from testbed.bed import Node

from tests.support.sampling import Sample

PACKAGE = "sqlite3"
QUEUE = "/var/lib/ivy/data/active-message-queue.sqlite3"
_SUFFIXES = ("", "-wal")
_LENGTHS = (1, 100, 4096, 20_000)
_SAMPLE = re.compile(r'"data":\{"life":([0-9]+),"number":([0-9]+)(?:,"channel_[0-9]+":20\.5){20}\}')


@contextlib.contextmanager
def frozen(node: Node, services: Sequence[str]) -> Generator[None, None, None]:
    """The services stand still, so that their files do."""

    def freeze() -> bool:
        """All of them, or none: one may be about to be restarted."""
        if node.run(["systemctl", "freeze", *services], check=False).returncode == 0:
            return True
        node.run(["systemctl", "thaw", *services], check=False)
        return False

    node.wait_for(freeze, 60, "all services to be active, and to stand still")
    try:
        yield
    finally:
        node.run(["systemctl", "thaw", *services])


def checkpoint(node: Node) -> None:
    """Bring what can be from the write-ahead log into the main file, where damage is to be done."""
    node.run(["sqlite3", QUEUE, "PRAGMA busy_timeout = 5000; PRAGMA wal_checkpoint(TRUNCATE)"], check=False)


def truncate(node: Node, chance: random.Random) -> None:
    """Cut the file off at a random place."""
    path = node.path(QUEUE)
    with path.open("r+b") as file:
        file.truncate(chance.randrange(path.stat().st_size))


def overwrite(node: Node, chance: random.Random) -> None:
    """Write noise or zeros to random places."""
    path = node.path(QUEUE)
    with path.open("r+b") as file:
        for _ in range(chance.randint(1, 3)):
            file.seek(chance.randrange(path.stat().st_size))
            length = chance.choice(_LENGTHS)
            file.write(chance.randbytes(length) if chance.random() < 0.6 else bytes(length))


def copy(node: Node, name: str) -> str:
    """Keep the queue as it is now, for `readable`. Returns where, in the node."""
    target = f"/root/{name}.sqlite3"
    for suffix in _SUFFIXES:
        node.path(target + suffix).unlink(missing_ok=True)
        if node.path(QUEUE + suffix).exists():
            shutil.copy(node.path(QUEUE + suffix), node.path(target + suffix))
    return target


def readable(node: Node, copied: str) -> set[Sample]:
    """The samples in a copy that SQLite's own recovery finds, whole."""
    found = node.run(["sqlite3", copied, ".recover"], check=False).stdout
    return {(int(life), int(number)) for life, number in _SAMPLE.findall(found)}
