"""`ivy.utils.storage.archive`: one CSV file per UTC day that a power cut costs one line at most."""

import datetime
import os
import time
from pathlib import Path

import pytest

from ivy.types.messages import DataMessageBody
from ivy.utils.host import locks
from ivy.utils.messaging_agent import MESSAGE_ARCHIVE_DIR, MESSAGE_ARCHIVE_DIR_LOCK, MessagingAgent
from ivy.utils.storage import archive
from tests.support.helpers import ARCHIVE_DIR, Node, all_go

BODY = '{"variant":"data","data":{"a":1}}'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An archive file that does not exist."""
    return tmp_path / "messages" / "day.csv"


def append(path: Path, timestamp: float = 1.5) -> None:
    """Append a message."""
    archive.append(str(path), str(path.parent.parent / "lock"), timestamp, BODY)


def test_the_format_is_the_predecessors(path: Path) -> None:
    append(path, 1.5)
    append(path, 1700000000.123456)
    assert path.read_text() == (
        "timestamp,message_body\n"
        '1.5,"{""variant"":""data"",""data"":{""a"":1}}"\n'
        '1700000000.123456,"{""variant"":""data"",""data"":{""a"":1}}"\n'
    )


def test_where_it_is(data_dir: Path) -> None:
    assert f"{data_dir}/messages" == MESSAGE_ARCHIVE_DIR
    assert f"{data_dir}/messages.lock" == MESSAGE_ARCHIVE_DIR_LOCK
    assert archive.file_of("/m", datetime.date(2024, 2, 9)) == "/m/2024-02-09.csv"


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "Etc/GMT+12"])
def test_the_day_is_that_of_utc(agent: MessagingAgent, monkeypatch: pytest.MonkeyPatch, zone: str) -> None:
    noon = 1_700_000_000.0 // 86400 * 86400
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        for now in (noon - 0.001, noon):
            monkeypatch.setattr(time, "time", lambda now=now: now)
            agent.add_message(DataMessageBody(data={"a": 1}))
        today = datetime.datetime.now(datetime.UTC).date()
        assert agent.get_message_archive_file() == f"{MESSAGE_ARCHIVE_DIR}/{today}.csv"
    finally:
        monkeypatch.undo()
        time.tzset()
    assert sorted(os.listdir(ARCHIVE_DIR)) == ["2023-11-13.csv", "2023-11-14.csv"]
    for day in (13, 14):
        assert len(agent.load_message_archive(datetime.date(2023, 11, day))) == 1


SAMPLE = '"{""variant"":""data"",""data"":{}}"'


@pytest.mark.parametrize(
    "torn",
    [
        '1.5,"{""variant"":""da',
        '1.5,"',
        "1",
        "\0\0\0",
        "\udcff",
        f"1e300,{BODY}",
        f"nan,{BODY}",
        "1," + "[" * 99999,
    ],
)
def test_a_torn_line_costs_itself_only(path: Path, torn: str, capfd: pytest.CaptureFixture[str]) -> None:
    append(path, 1)
    with path.open("a", encoding="utf-8", errors="surrogateescape") as file:
        file.write(torn)
    append(path, 2)
    append(path, 3)
    assert [item.timestamp for item in archive.read(str(path))] == [1, 2, 3]
    assert f"{path}: left out a line that is no message" in capfd.readouterr().err


def test_a_line_that_lost_only_its_end_is_read(path: Path) -> None:
    append(path, 1)
    path.write_bytes(path.read_bytes().removesuffix(b"\n"))
    append(path, 2)
    assert [item.timestamp for item in archive.read(str(path))] == [1, 2]


@pytest.mark.parametrize("torn", ["", "timest"])
def test_a_torn_header_costs_no_message(path: Path, torn: str) -> None:
    path.parent.mkdir()
    path.write_text(torn)
    append(path, 1)
    assert [item.timestamp for item in archive.read(str(path))] == [1]


def test_without_an_archive_there_are_no_messages(path: Path) -> None:
    assert list(archive.read(str(path))) == []
    assert MessagingAgent.load_message_archive(datetime.date(2000, 1, 1)) == []


APPEND = """
import sys
from ivy.utils.storage.archive import append
print("ready", flush=True)
input()
_, path, lock, writer = sys.argv
for number in range(100):
    append(path, lock, float(f"{writer}{number}"), '{"variant":"data","data":{"a":1}}')
"""


@pytest.mark.slow
def test_many_processes_append_whole_lines_below_one_header(node: Node, path: Path, tmp_path: Path) -> None:
    lock = str(tmp_path / "lock")
    processes = [node.start("-c", APPEND, str(path), lock, writer) for writer in "1234"]
    for process in processes:
        assert process.stdout and process.stdout.readline() == "ready\n"
    all_go(processes)
    lines = path.read_text().splitlines()
    assert [number for number, line in enumerate(lines) if line.startswith("timestamp")] == [0]
    timestamps = [item.timestamp for item in archive.read(str(path))]
    assert len(timestamps) == len(lines) - 1
    assert set(timestamps) == {float(f"{writer}{number}") for writer in (1, 2, 3, 4) for number in range(100)}
    for writer in "1234":  # each one's in its order
        own = [timestamp for timestamp in timestamps if f"{timestamp:.0f}".startswith(writer)]
        assert own == [float(f"{writer}{number}") for number in range(100)]


def test_a_line_is_written_under_the_lock(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else two processes that find a new file would both begin it with a header."""
    real = os.write

    def write(descriptor: int, data: bytes) -> int:
        with pytest.raises(TimeoutError), locks.file_lock(str(tmp_path / "lock"), timeout=0):
            pass
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", write)
    append(path)
    assert len(list(archive.read(str(path)))) == 1


def test_a_hanging_holder_of_the_lock_does_not_stop_the_others(
    node: Node, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = str(tmp_path / "lock")
    code = f"from ivy.utils.host.locks import *\nwith file_lock({lock!r}, 0): print('held', flush=True); input()"
    holder = node.start("-c", code)
    assert holder.stdout and holder.stdout.readline() == "held\n"
    monkeypatch.setattr(archive, "SECONDS_FOR_THE_LOCK", 0.05)
    append(path)
    assert len(list(archive.read(str(path)))) == 1


def test_an_archive_is_not_for_others(path: Path) -> None:
    append(path)
    assert path.stat().st_mode & 0o007 == 0 and path.parent.stat().st_mode & 0o007 == 0
