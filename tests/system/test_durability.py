"""What only a whole machine shows: what reaches the disk before a call returns, and who owns what root makes."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.emulation import needs_own_processor

PROJECT = Path(__file__).parents[2]
ADD = """
import os
from ivy.types.messages import DataMessageBody
from ivy.utils.messaging_agent import MessagingAgent
agent = MessagingAgent()
agent.add_message(DataMessageBody(data={"a": 1}))
os.write(1, b"opened and warm")
agent.add_message(DataMessageBody(data={"a": 2}))
os.write(1, b"returned")
"""
REMOVE = f"""{ADD}
os.write(1, b"sending")
agent.remove_messages({{1, 2}})
os.write(1, b"removed")
"""
REMOVE_MANY = """
import os
from ivy.types.messages import DataMessageBody
from ivy.utils.messaging_agent import MessagingAgent
agent = MessagingAgent()
agent.add_once("all", [DataMessageBody(data={"a": number}) for number in range(1000)])
agent.keep_durable()
os.write(1, b"many")
agent.remove_messages(list(range(1, 901)))
os.write(1, b"removed")
agent.remove_and_forget({950, 951}, is_durable=False)
os.write(1, b"sampled")
agent.add_message(DataMessageBody(data={"a": 2}))
os.write(1, b"returned")
"""
UPDATE = """
from ivy.utils.state_interface import StateInterface
with StateInterface.update() as state:
    state.system.last_5_min_load = 1
"""
WAL = r"<[^>]*active-message-queue\.sqlite3-wal>"
ARCHIVE = r"<[^>]*/messages/[^>]*\.csv>"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The environment of a process with an empty data directory."""
    (tmp_path / "data").mkdir()
    places = {"IVY_ROOT_DIR": str(tmp_path), "IVY_DATA_DIR": str(tmp_path / "data")}
    return {**os.environ, "PYTHONPATH": str(PROJECT), "PYTHONDONTWRITEBYTECODE": "1", **places}


def traced(code: str, environment: dict[str, str], tmp_path: Path) -> list[str]:
    """The system calls of a Python program that have to do with files."""
    calls = "trace=write,pwrite64,fsync,fdatasync,rename,renameat,renameat2,sendto"
    trace = tmp_path / "trace"
    command = ["strace", "--follow-forks", "--decode-fds=path", "--output", str(trace), "-e", calls]
    subprocess.run([*command, sys.executable, "-c", code], env=environment, cwd=tmp_path, check=True)
    return trace.read_text().splitlines()


def first(pattern: str, lines: list[str]) -> int:
    """The number of the first line that matches."""
    for number, line in enumerate(lines):
        if re.search(pattern, line):
            return number
    raise AssertionError(f"no {pattern} in:\n" + "\n".join(lines))


@needs_own_processor
def test_a_message_is_on_the_disk_when_add_message_returns(environment: dict[str, str], tmp_path: Path) -> None:
    """By one sync, that of the queue; the archive has its line, too, as far as nobody cuts the power."""
    lines = traced(ADD, environment, tmp_path)
    lines = lines[first("opened and warm", lines) : first('"returned"', lines)]
    last_write = max(number for number, line in enumerate(lines) if re.search(rf"pwrite64\(\d+{WAL}", line))
    assert first(rf"f(data)?sync\(\d+{WAL}\) += 0", lines) > last_write
    assert len([line for line in lines if re.search(r"f(data)?sync\(", line)]) == 1
    assert first(rf"write\(\d+{ARCHIVE}", lines)


@needs_own_processor
def test_the_archive_is_on_the_disk_before_a_message_leaves_the_queue(
    environment: dict[str, str], tmp_path: Path
) -> None:
    lines = traced(REMOVE, environment, tmp_path)
    lines = lines[first("sending", lines) : first('"removed"', lines)]
    assert first(rf"f(data)?sync\(\d+{ARCHIVE}\) += 0", lines) < first(rf"pwrite64\(\d+{WAL}", lines)
    assert first(rf"pwrite64\(\d+{WAL}", lines) < first(rf"f(data)?sync\(\d+{WAL}\) += 0", lines)


@needs_own_processor
def test_many_messages_that_leave_together_cost_one_sync(environment: dict[str, str], tmp_path: Path) -> None:
    lines = traced(REMOVE_MANY, environment, tmp_path)
    lines = lines[first('"many"', lines) : first('"removed"', lines)]
    writes = [number for number, line in enumerate(lines) if re.search(rf"pwrite64\(\d+{WAL}", line)]
    syncs = [number for number, line in enumerate(lines) if re.search(rf"f(data)?sync\(\d+{WAL}\) += 0", line)]
    assert len(syncs) == 1
    assert syncs[0] > max(writes)


@needs_own_processor
def test_what_leaves_as_it_was_sampled_costs_no_sync_but_that_of_the_next_sample(
    environment: dict[str, str], tmp_path: Path
) -> None:
    lines = traced(REMOVE_MANY, environment, tmp_path)
    removed = lines[first('"removed"', lines) : first('"sampled"', lines)]
    added = lines[first('"sampled"', lines) : first('"returned"', lines)]
    assert first(rf"pwrite64\(\d+{WAL}", removed)
    assert not [line for line in removed if re.search(r"f(data)?sync\(", line)]
    assert first(rf"f(data)?sync\(\d+{WAL}\) += 0", added) > first(rf"pwrite64\(\d+{WAL}", added)


@needs_own_processor
def test_the_backend_is_woken_after_the_commit(environment: dict[str, str], tmp_path: Path) -> None:
    lines = traced(ADD, environment, tmp_path)
    lines = lines[first("opened and warm", lines) : first('"returned"', lines)]
    assert first("sendto.*forwarder.sock", lines) > first(r"f(data)?sync\(.*sqlite3-wal>\) += 0", lines)


@needs_own_processor
def test_the_state_is_on_the_disk_before_it_takes_the_place_of_the_old(
    environment: dict[str, str], tmp_path: Path
) -> None:
    lines = traced(UPDATE, environment, tmp_path)
    data = re.escape(str(tmp_path / "data"))
    synced = first(rf"fsync\(\d+<{data}/\.state\.json\.[\w-]+>\) += 0", lines)
    renamed = first(r"rename\w*\(.*/state\.json", lines)
    directory = first(rf"fsync\(\d+<{data}>\) += 0", lines)
    assert first(rf"write\(\d+<{data}/\.state\.json\.", lines) < synced < renamed < directory


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A directory that every user reaches, unlike those of pytest."""
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        yield Path(directory)


def test_what_root_makes_belongs_to_the_owner_of_the_data_directory(
    environment: dict[str, str], reachable: Path
) -> None:
    """As when the admin calls `ivy status` on a new node, and the services come later."""
    data = reachable / "data"
    data.mkdir()
    owner = 4711 if os.geteuid() == 0 else os.geteuid()
    os.chown(data, owner, -1)
    environment["IVY_DATA_DIR"] = str(data)
    subprocess.run([sys.executable, "-c", ADD + UPDATE], env=environment, cwd=reachable, check=True)
    made = [data / name for name in ("state.json", "state.lock", "messages", "messages.lock")]
    made += [*data.glob("active-message-queue.sqlite3*"), *data.glob("messages/*")]
    assert {path.stat().st_uid for path in made} == {owner}
