"""`ivy.utils.host.rights`: root touches what belongs to the services with their rights only, and not for ever."""

import fcntl
import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ivy.utils.host import rights
from tests.support.helpers import Node

OTHER = 4711
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up root's rights")


@pytest.fixture
def theirs(root_dir: Path) -> Iterator[str]:
    """A directory that belongs to somebody else."""
    directory = root_dir / "theirs"
    directory.mkdir()
    if os.geteuid() == 0:
        os.chown(directory, OTHER, OTHER)
    yield str(directory)


def _who() -> list[object]:
    return [list(os.getresuid()), list(os.getresgid()), os.getgroups(), os.getcwd()]


@needs_root
def test_a_child_is_fully_somebody_else(theirs: str) -> None:
    os.setgroups([0, 42])
    try:
        assert rights.ask(_who, theirs) == [[OTHER] * 3, [OTHER] * 3, [], "/"]
        assert (os.getresuid(), os.getgroups()) == ((0, 0, 0), [0, 42])
    finally:
        os.setgroups([])


@needs_root
def test_rights_are_given_up_for_good(theirs: str, node: Node) -> None:
    code = f"""
import os
from ivy.utils.host import rights
os.setgroups([0, 42])
rights.give_up({theirs!r})
print(*os.getresuid(), *os.getresgid(), os.getgroups())
try:
    os.setuid(0)
except PermissionError:
    print("for good")
"""
    assert node.python("-c", code) == f"{' '.join([str(OTHER)] * 6)} []\nfor good\n"


def test_where_all_is_our_own_nothing_is_given_up(root_dir: Path) -> None:
    before = _who()
    rights.give_up(str(root_dir))
    rights.give_up(str(root_dir / "missing"))
    assert _who() == before == rights.ask(_who, str(root_dir))


def test_an_answer_comes_back_and_a_failure_in_words() -> None:
    assert rights.ask(lambda: {"a": [1, None, "é"]}, always=True) == {"a": [1, None, "é"]}

    def fail() -> None:
        raise sqlite3.OperationalError("database is locked")

    with pytest.raises(rights.NoAnswer, match=r"^database is locked$"):
        rights.ask(fail, always=True)


@pytest.mark.parametrize("ignored", [signal.SIGTERM, signal.SIGALRM])
def test_a_child_that_takes_too_long_is_ended(ignored: signal.Signals) -> None:
    def hang() -> None:
        signal.signal(ignored, signal.SIG_IGN)
        signal.pause()

    began = time.monotonic()
    with pytest.raises(rights.NoAnswer, match="no answer in time"):
        rights.ask(hang, seconds=0.2, always=True)
    assert time.monotonic() - began < 10


def test_a_child_that_is_killed_gives_no_answer() -> None:
    with pytest.raises(rights.NoAnswer):
        rights.ask(lambda: os.kill(os.getpid(), signal.SIGKILL), always=True)


@pytest.mark.parametrize("said", [b"", b"{", b"[]", b'{"x": 1}', b"\xff", b"[" * 100_000, b" " * 20_000_000])
def test_what_is_no_answer_is_none(said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """As somebody might say who has taken the child over."""
    monkeypatch.setattr(rights.json, "dumps", lambda _: said.decode("latin-1"))  # type: ignore[attr-defined]
    with pytest.raises(rights.NoAnswer):
        rights.ask(lambda: None, always=True)


def test_a_child_holds_no_lock_of_ours(tmp_path: Path) -> None:
    with open(tmp_path / "lock", "w") as ours:
        fcntl.flock(ours, fcntl.LOCK_EX)

        def is_open() -> bool:
            return any(os.path.samefile(f"/proc/self/fd/{each}", tmp_path / "lock") for each in _open_files())

        assert not rights.ask(is_open, always=True)
        assert is_open()


def _open_files() -> list[str]:
    return [each for each in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{each}")]
