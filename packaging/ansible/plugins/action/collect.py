"""The action ivy.fleet.collect: copies what is new of a node's message archive to a directory of the desk.

A file there is only ever appended to. Where the node has another day of the same name, as after its board was
replaced, both are kept. How it is read on the node, by whom, is in `archive_reader`. Neither rsync nor sftp: they
would read as the user who logs in, who may be root, what links of the user ivy lead to.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import json
import os
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

READER = Path(__file__).parents[1] / "module_utils" / "archive_reader.py"
AS_IVY = "setpriv --reuid=ivy --regid=ivy --init-groups -- python3 -IS -"
MARK = "ivy-archive:"
DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
COLLECTED = ".collected.json"
"""For each day, what the node said of its files when it was collected last; and how large it was here then."""

LARGEST_PIECE = 1 << 23
LARGEST_DAY = 1 << 29
ALL_NEW = {"starts": {}, "size": LARGEST_DAY}
"""What is known of a day of which nothing is here."""

DAYS_AT_ONCE = 100


class ActionModule(ActionBase):
    """`there`: the archive on the node. `here`: the directory of this node, which is made."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Copy. Returns how many bytes came of which days."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        there, here = self._task.args["there"], Path(self._task.args["here"]).expanduser()
        listed = {day: found for day, found in self.ask("list", there=there).items() if DAY.fullmatch(day)}
        if self._task.check_mode:
            new = list(unknown(listed, load(here), here))
            return {**result, "changed": bool(new), "days": new}
        here.mkdir(parents=True, exist_ok=True)
        with alone(here):
            collected = Collected(here, listed)
            try:
                for asked in batches(collected.unknown()):
                    sizes = {day: [path.stat().st_size for path in files_of(here, day)] for day in asked}
                    known = {day: found for day, found in sizes.items() if found}
                    matched = self.ask("match", there=there, days=known) if known else {}
                    for day in asked:
                        self._take(there, day, matched.get(day, ALL_NEW), collected)
            finally:
                collected.save()
        failed = [f"{day}: {why}" for day, why in collected.failed.items()]
        result |= {"changed": bool(collected.copied), "copied": collected.copied}
        if collected.kept_both:
            kept = ", ".join(collected.kept_both)
            result["warnings"] = [f"the node has other days than before, of the same names; both are kept: {kept}"]
        return {**result, "failed": True, "msg": f"could not be read: {'; '.join(failed)}"} if failed else result

    def _take(self, there: str, day: str, found: Mapping[str, Any], collected: Collected) -> None:
        """Copy what is new of a day."""
        if "error" in found:
            collected.failed[day] = str(found["error"])
            return
        path = collected.place(day, found)
        if path is None:
            return
        offset = path.stat().st_size if path.exists() else 0
        while offset < found["size"]:
            answer = self.ask("read", there=there, day=day, offset=offset)
            if "error" in answer:
                collected.failed[day] = str(answer["error"])
                return
            data = zlib.decompressobj().decompress(base64.b64decode(answer["data"]), LARGEST_PIECE)
            append(path, data)
            collected.copied[day] = collected.copied.get(day, 0) + len(data)
            offset += len(data)
            if not data:
                break
        collected.note(day, path)

    def ask(self, do: str, **asked: Any) -> dict[str, Any]:
        """Let the node's user ivy answer."""
        request = json.dumps(json.dumps({"do": do, **asked}))
        script = f"{READER.read_text(encoding='utf-8')}\n\nanswer({request})\n".encode()
        done = self._low_level_execute_command(AS_IVY, in_data=script, chdir="/")
        for line in done["stdout"].splitlines():
            if line.startswith(MARK):
                found: dict[str, Any] = json.loads(line.removeprefix(MARK))
                return found
        said = (done.get("stderr") or done["stdout"]).strip().splitlines()
        raise AnsibleActionFail(f"the archive could not be read: {said[-1] if said else 'nothing was said'}")


class Collected:
    """What is here of a node's archive, and becomes of it."""

    def __init__(self, here: Path, listed: Mapping[str, list[int]]) -> None:
        self.copied: dict[str, int] = {}
        self.kept_both: list[str] = []
        self.failed: dict[str, str] = {}
        self._here, self._listed, self._notes = here, listed, load(here)

    def unknown(self) -> list[str]:
        """The days to look at."""
        return list(unknown(self._listed, self._notes, self._here))

    def place(self, day: str, found: Mapping[str, Any]) -> Path | None:
        """The file to append to; None if there is nothing new."""
        here = files_of(self._here, day)
        for path in sorted(here, key=lambda path: -path.stat().st_size):
            size = path.stat().st_size
            if found["starts"].get(str(size)) == digest(path, size):
                if size < found["size"]:
                    return path
                return self.note(day, path)
            if size > found["size"] and digest(path, found["size"]) == found["digest"]:
                return self.note(day, path)  # the node has lost its end
        if here:
            self.kept_both.append(day)
        return self._here / (f"{day}.{len(here) + 1}.csv" if here else f"{day}.csv")

    def note(self, day: str, path: Path) -> None:
        """Remember that a day is here, as the node has listed it."""
        self._notes[day] = [self._listed[day], path.name, path.stat().st_size]

    def save(self) -> None:
        """Write down what was noted."""
        beside = self._here / f"{COLLECTED}.part"
        beside.write_text(json.dumps(self._notes), encoding="utf-8")
        beside.replace(self._here / COLLECTED)


def unknown(listed: Mapping[str, list[int]], notes: Mapping[str, Any], here: Path) -> Iterator[str]:
    """The days that have changed since they were noted, there or here."""
    for day, found in listed.items():
        try:
            noted, name, size = notes[day]
            if noted == found and (here / name).stat().st_size == size:
                continue
        except (KeyError, OSError, TypeError, ValueError):
            pass
        yield day


def load(here: Path) -> dict[str, Any]:
    """What was noted; nothing where it is damaged."""
    with contextlib.suppress(OSError, ValueError):
        found = json.loads((here / COLLECTED).read_text(encoding="utf-8"))
        if isinstance(found, dict):
            return found
    return {}


def files_of(here: Path, day: str) -> list[Path]:
    """All that are kept of a day, in the order in which they came."""
    found = [here / f"{day}.csv"]
    while found[-1].exists():
        found.append(here / f"{day}.{len(found) + 1}.csv")
    return found[:-1]


def digest(path: Path, size: int) -> str:
    """Of the first bytes of a file, SHA-256."""
    known = hashlib.sha256()
    with path.open("rb") as file:
        while size > 0 and (block := file.read(min(size, 1 << 16))):
            known.update(block)
            size -= len(block)
    return known.hexdigest()


def append(path: Path, data: bytes) -> None:
    """Add to a file, which is made if need be, and to the disk."""
    with path.open("ab") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def batches(days: Sequence[str]) -> Iterator[Sequence[str]]:
    """So many days at a time as one look at the node is to take."""
    for begin in range(0, len(days), DAYS_AT_ONCE):
        yield days[begin : begin + DAYS_AT_ONCE]


@contextlib.contextmanager
def alone(here: Path) -> Iterator[None]:
    """See that no other play appends to the same files."""
    with (here / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AnsibleActionFail(f"another play collects to {here}") from None
        yield
