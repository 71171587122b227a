"""Looks at the disk of a node whose power failed: what of ivy's is damaged, by kind, and which samples are kept.

What may be missing or unfinished, as nobody was promised it, is not damaged.
"""

import contextlib
import hashlib
import json
import os
import shutil
import sqlite3
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeAlias

from ivy.utils.updates import manifest
from tests.node.aftermath import LEFTOVER
from tests.support.sampling import Sample

PLACES = ("var/lib/ivy", "etc/ivy")
CURRENT = "var/lib/ivy/current"
DATA = "var/lib/ivy/data"
QUEUE = "active-message-queue.sqlite3"
NULS = bytes(512)
SUFFIXES = ("", "-wal", "-shm", "-journal")
# The ballast file is nothing but NULs; of SQLite's files only SQLite knows; Python is asked again what "fits" says;
# and who does not find what was announced announces it again.
OTHER = {"reserve", "fits", "announced", *(f"{QUEUE}{suffix}" for suffix in SUFFIXES)}


class Seen(NamedTuple):
    """What is seen of a file at a glance."""

    is_empty: bool
    has_nuls: bool
    leads_nowhere: bool


Files: TypeAlias = Mapping[str, Seen]


@dataclass
class Damage:
    """What was found, by its kind: the files, or whatever else."""

    found: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, kind: str, what: object) -> None:
        """Note a piece of damage."""
        self.found[kind].append(str(what))

    def __str__(self) -> str:
        kinds = {kind: sorted(set(names)) for kind, names in self.found.items()}
        return ", ".join(f"{kind}: {len(names)} {names[:4]}" for kind, names in kinds.items()) or "none"


def files(root: Path) -> dict[str, Seen]:
    """All finished files of ivy's on a disk that is mounted there, by their paths. They may change meanwhile."""
    found = {}
    for place in PLACES:
        for directory, directories, names in os.walk(root / place):
            directories[:] = [name for name in directories if not LEFTOVER.fullmatch(name)]
            for name in [*names, *directories]:
                path = Path(directory, name)
                if name not in OTHER and not LEFTOVER.fullmatch(name):
                    with contextlib.suppress(FileNotFoundError):
                        if path.is_symlink() or path.is_file():
                            found[str(path.relative_to(root))] = _see(root, path)
    return found


def _see(root: Path, path: Path) -> Seen:
    if path.is_symlink():
        return Seen(False, False, _leads_nowhere(root, path))
    content = path.read_bytes()
    if path.suffix == ".csv":  # lines may have had their size before their content, and are appended again
        content = content.replace(b"\0", b"")
    return Seen(not content, NULS in content, False)


def _leads_nowhere(root: Path, path: Path) -> bool:
    """Within the node; also if that is another link."""
    target = path.readlink()
    place = root / target.relative_to("/") if target.is_absolute() else path.parent / target
    return not place.exists() and not place.is_symlink()


def look(root: Path, known: Sequence[Files], damage: Damage) -> None:
    """Note all damage of the disk that is mounted at `root`.

    Args:
        root: Where.
        known: What the disk had before and after, when nothing had happened to it.
        damage: Where to note it.
    """
    now = files(root)
    for name in set.intersection(*(set(each) for each in known)) - now.keys():
        if not name.startswith(f"{DATA}/messages/."):
            damage.add("missing", name)
    for name, seen in now.items():
        same = [each[name] for each in known if name in each]
        if seen.leads_nowhere and (name == CURRENT or (name in known[0] and not known[0][name].leads_nowhere)):
            damage.add("link", name)
        elif same and seen.is_empty and not any(each.is_empty for each in same):
            damage.add("empty", name)
        elif same and seen.has_nuls and not any(each.has_nuls for each in same):
            damage.add("nul", name)
        elif name.endswith(".json") and not seen.is_empty and not (root / name).is_symlink():
            _check_json(root / name, damage)
    if (root / CURRENT).is_dir():
        for name in manifest.damaged((root / CURRENT).resolve()):
            damage.add("release", name)
    with _queue(root) as queue:
        if queue is not None:
            _check_database(queue, damage)


def _check_json(path: Path, damage: Damage) -> None:
    try:
        json.loads(path.read_bytes())
    except ValueError as error:
        damage.add("json", f"{path.name}: {error}")


def _check_database(queue: sqlite3.Connection, damage: Damage) -> None:
    try:
        [said] = queue.execute("PRAGMA integrity_check(1)").fetchone()
    except sqlite3.Error as error:
        said = str(error)
    if said != "ok":
        damage.add("database", said)


@contextlib.contextmanager
def _queue(root: Path) -> Iterator[sqlite3.Connection | None]:
    """A copy of it, as looking may change it."""
    with tempfile.TemporaryDirectory() as scratch:
        for suffix in SUFFIXES[:2]:
            file = root / DATA / f"{QUEUE}{suffix}"
            if file.exists():
                shutil.copy(file, scratch)
        path = Path(scratch, QUEUE)
        if not path.exists():
            yield None
            return
        with contextlib.closing(sqlite3.connect(path)) as database:
            yield database


def has_digest(path: Path, md5: str) -> bool:
    """Whether it is a file with this content, as packages tell it."""
    return path.is_file() and hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() == md5


def kept(root: Path) -> set[Sample]:
    """All samples that are in the queue or in the archive of a disk that is mounted there."""
    bodies = archived_bodies(root)
    with _queue(root) as queue, contextlib.suppress(sqlite3.Error):
        if queue is not None:
            bodies += [body for (body,) in queue.execute("SELECT message_body FROM QUEUE")]
    return set(samples(bodies))


def archived_bodies(root: Path) -> list[str]:
    """The bodies in the archive, in its order, of whole lines and of others."""
    files = sorted((root / DATA / "messages").glob("*.csv"))
    lines = [line for path in files for line in path.read_bytes().decode(errors="replace").split("\n")]
    return [line.partition(',"')[2].removesuffix('"').replace('""', '"') for line in lines]


def samples(bodies: Iterable[str]) -> list[Sample]:
    """Those of the fast sampler among messages. A body that is torn is none."""
    found = []
    for body in bodies:
        with contextlib.suppress(ValueError):
            data = json.loads(body).get("data")
            if data and "life" in data:
                found.append((int(data["life"]), int(data["number"])))
    return found
