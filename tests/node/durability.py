"""Judges recorded calls: what is renamed into place must be on the disk, and the rename itself before what follows.

Not for the queue, whose durability is SQLite's, nor for locks and fetched sources, which need none.
"""

import os.path
import re
from collections.abc import Iterable

from tests.support.strace import Call

PATH = re.compile(r'"(/var/lib/ivy/[^"]*)"|<(/var/lib/ivy[^>]*)>')
NOT_OURS = re.compile(r"/var/lib/ivy/(data/(?!\.?state\.json)|source\.git|.*\.lock$)")
TRIAL = "/var/lib/ivy/previous"  # removing it ends a trial; all else that is removed may come back
RENAMES = {"rename", "renameat2"}
SYNCS = {"fsync", "fdatasync"}
CHANGES = {"write", "openat", "mkdir", "chmod", "fchmod", "lchown", "fchown", "ftruncate"}


def lapses(calls: Iterable[Call]) -> list[str]:
    """What a power cut could undo although the pass went on as if it were done."""
    found: list[str] = []
    files: set[str] = set()  # with their directories: changed since they were synced
    names: set[str] = set()  # directories in which a name was changed since then
    for call in calls:
        paths = [path for path in _paths(call) if not NOT_OURS.match(path)]
        if call.name == "sync":
            files, names = set(), set()
        elif not paths or call.result < 0:
            continue
        elif call.name in SYNCS:
            files.discard(paths[0])
            names.discard(paths[0])
        elif call.name in RENAMES or (call.name, paths[0]) == ("unlink", TRIAL):
            found += [f"{path} is not synced before {call}" for path in sorted(files) if _is_in(path, paths[0])]
            found += [f"a name in {path} is not synced before {call}" for path in sorted(names)]
            names.add(os.path.dirname(paths[-1]))
        elif call.name in CHANGES and (call.name != "openat" or "O_CREAT" in call.arguments):
            files.add(paths[0])
        elif call.name == "rmdir":  # the last of a tree
            files = {path for path in files if not _is_in(path, paths[0])}
    return found + [f"a name in {path} is not synced at the end" for path in sorted(names)]


def _paths(call: Call) -> list[str]:
    """The paths of ivy's that a call is about. What it writes may look like one."""
    about = call.arguments.split(",")[0] if call.name == "write" else call.arguments
    return [quoted or decoded for quoted, decoded in PATH.findall(about)]


def _is_in(path: str, directory: str) -> bool:
    return path == directory or path.startswith(f"{directory}/")
