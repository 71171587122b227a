"""The action `ivy.fleet.collect` for Ansible, without Ansible: what comes to the desk, and is not lost there."""

import gzip
import json
import random
import subprocess
import sys
import tracemalloc
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.ansible_plugin import load

DAY = "2026-01-01"
HEADER = "timestamp,message_body\n"


class _RefusedError(Exception):
    """What Ansible would show."""


class _Connected:
    """In the place of Ansible's own class: a node that is this machine."""

    def __init__(self, task: types.SimpleNamespace) -> None:
        self._task = task
        self.asked: list[str] = []

    def run(self, *_: Any) -> dict[str, Any]:
        return {}

    said: dict[str, Any] | None = None
    """What the node says instead of what it should."""

    def _low_level_execute_command(self, command: str, in_data: bytes, chdir: str) -> dict[str, Any]:
        if self.said is not None:
            return self.said
        assert command.endswith("python3 -IS -") and "--reuid=ivy" in command
        self.asked.append(in_data.decode().strip().splitlines()[-1])
        done = subprocess.run([sys.executable, "-IS", "-"], input=in_data, capture_output=True, cwd=chdir)
        return {"stdout": f"bash: warning\n{done.stdout.decode()}", "stderr": done.stderr.decode()}


Collect = Callable[..., dict[str, Any]]


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """The archive on the node."""
    there = tmp_path / "there"
    there.mkdir()
    return there


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """That at the desk; it does not exist yet."""
    return tmp_path / "archive" / "roof-1"


@pytest.fixture
def collect(monkeypatch: pytest.MonkeyPatch, there: Path, here: Path) -> Collect:
    """Collects. Returns what is said, with how often the node was `asked`."""
    given: dict[str, dict[str, Any]] = {
        "ansible.errors": {"AnsibleActionFail": _RefusedError},
        "ansible.plugins.action": {"ActionBase": _Connected},
    }
    plugin = load(monkeypatch, "action/collect.py", given)

    def collect(*, check_mode: bool = False) -> dict[str, Any]:
        task = types.SimpleNamespace(args={"there": str(there), "here": str(here)}, check_mode=check_mode)
        action = plugin.ActionModule(task)
        said: dict[str, Any] = action.run()
        return {**said, "asked": len(action.asked)}

    return collect


def test_what_is_new_comes_and_what_has_grown_is_appended(collect: Collect, there: Path, here: Path) -> None:
    plain, packed = there / f"{DAY}.csv", there / "2025-12-31.csv.gz"
    plain.write_text(HEADER)
    packed.write_bytes(gzip.compress(b"a\n") + gzip.compress(b"b\n"))
    (there / "2025-12-31.csv").write_text("c\n")
    (there / "notes.txt").write_text("no day")
    assert collect(check_mode=True)["days"] == ["2025-12-31", DAY] and not here.exists()
    assert collect()["changed"] is True
    assert (here / "2025-12-31.csv").read_text() == "a\nb\nc\n"
    inode = (here / plain.name).stat().st_ino
    with plain.open("a") as file:
        file.write("1\n")
    assert collect()["copied"] == {DAY: 2}
    assert (here / plain.name).read_text() == f"{HEADER}1\n" and (here / plain.name).stat().st_ino == inode
    again = collect()
    assert (again["changed"], again["asked"]) == (False, 1)


def test_a_day_that_was_compressed_is_the_same(collect: Collect, there: Path, here: Path) -> None:
    plain = there / f"{DAY}.csv"
    plain.write_text(HEADER)
    collect()
    (there / f"{DAY}.csv.gz").write_bytes(gzip.compress(f"{HEADER}1\n".encode()))
    plain.unlink()
    assert collect()["copied"] == {DAY: 2} and (here / plain.name).read_text() == f"{HEADER}1\n"
    assert [path.name for path in here.glob("*.csv")] == [plain.name]


def test_another_board_replaces_nothing(collect: Collect, there: Path, here: Path) -> None:
    plain = there / f"{DAY}.csv"
    plain.write_text(HEADER + "old\n" * 58)
    collect()
    for text in (HEADER + "new\n" * 10, HEADER + "new\n" * 90):
        plain.write_text(text)
        said = collect()
        assert (here / plain.name).read_text() == HEADER + "old\n" * 58
        assert (here / f"{DAY}.2.csv").read_text() == text
    assert "warnings" not in said, "it is only told once"
    plain.write_text(HEADER + "third\n")
    assert DAY in collect()["warnings"][0] and (here / f"{DAY}.3.csv").read_text() == HEADER + "third\n"
    assert collect()["changed"] is False


def test_what_the_node_has_lost_stays_at_the_desk(collect: Collect, there: Path, here: Path) -> None:
    plain = there / f"{DAY}.csv"
    plain.write_text(HEADER + "1\n2\n")
    collect()
    plain.write_text(HEADER + "1\n")
    assert collect()["changed"] is False
    plain.unlink()
    assert collect()["changed"] is False
    assert [path.read_text() for path in here.glob("*.csv")] == [HEADER + "1\n2\n"]


@pytest.mark.parametrize("note", ["", "{", "[]", json.dumps({DAY: 7})])
def test_an_interrupted_play_is_gone_on_with(collect: Collect, there: Path, here: Path, note: str) -> None:
    """Also where the notes at the desk are damaged, or of a version before: then there are none."""
    (there / f"{DAY}.csv").write_text(HEADER + "1\n")
    here.mkdir(parents=True)
    (here / f"{DAY}.csv").write_text(HEADER)
    (here / ".collected.json").write_text(note)
    assert collect()["copied"] == {DAY: 2} and (here / f"{DAY}.csv").read_text() == HEADER + "1\n"


def test_no_link_and_no_pipe_is_read_and_the_others_are(collect: Collect, there: Path, here: Path) -> None:
    (there / "2025-12-30.csv").symlink_to("/etc/passwd")
    (there / "2025-12-31.csv.gz").write_bytes(b"no gzip")
    (there / f"{DAY}.csv").write_text(HEADER)
    said = collect()
    assert said["failed"] is True and "2025-12-30" in said["msg"] and "2025-12-31" in said["msg"]
    assert [path.name for path in here.glob("*.csv")] == [f"{DAY}.csv"] and DAY not in said["msg"]


def test_an_empty_day(collect: Collect, there: Path, here: Path) -> None:
    (there / f"{DAY}.csv").touch()
    collect()
    assert collect()["asked"] == 1
    (there / f"{DAY}.csv").write_text(HEADER)
    assert collect()["copied"] == {DAY: len(HEADER)}
    assert [path.name for path in here.glob("*.csv")] == [f"{DAY}.csv"]


def test_a_large_day_comes_in_pieces(collect: Collect, there: Path, here: Path) -> None:
    chance = random.Random(1)
    (there / f"{DAY}.csv").write_bytes(chance.randbytes(21_000_000))
    tracemalloc.start()
    try:
        collect()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (here / f"{DAY}.csv").read_bytes() == (there / f"{DAY}.csv").read_bytes()
    assert peak < 60_000_000, f"{peak / 1e6:.0f} MB"  # not a day, in base64, several times


def test_a_node_without_archive_has_none(collect: Collect, there: Path) -> None:
    there.rmdir()
    assert collect()["changed"] is False


def test_what_the_node_says_instead_is_shown(collect: Collect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Connected, "said", {"stdout": "", "stderr": "x\nsetpriv: no user\n"})
    with pytest.raises(_RefusedError, match="setpriv: no user"):
        collect()
