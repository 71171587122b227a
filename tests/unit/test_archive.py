"""`ivy.utils.storage.archive`: one CSV file per UTC day that a power cut costs one line at most."""

import csv
import datetime
import os
import time
from pathlib import Path

import pytest

from ivy.types.messages import DataMessageBody
from ivy.utils.messaging_agent import MESSAGE_ARCHIVE_DIR, MESSAGE_ARCHIVE_DIR_LOCK, MessagingAgent
from ivy.utils.storage import archive
from tests.support.helpers import ARCHIVE_DIR

BODY = '{"variant":"data","data":{"a":1}}'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An archive file that does not exist."""
    return tmp_path / "messages" / "day.csv"


def append(path: Path, timestamp: float = 1.5) -> None:
    """Append a message."""
    appender = archive.Appender()
    appender.append(str(path), archive.line(timestamp, BODY))
    appender.close()


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
        "\0\0\0a",
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


def test_a_torn_line_hides_no_other_from_who_reads_csv(path: Path) -> None:
    line = archive.line(1.5, '{"variant":"data","data":{"a":"b"}}')
    for length in range(1, len(line)):
        path.unlink(missing_ok=True)
        append(path, 1)
        with path.open("a") as file:
            file.write(line[:length])
        append(path, 2)
        append(path, 3)
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["timestamp"] for row in rows if row["message_body"] == BODY] == ["1", "2", "3"], line[:length]


def test_a_line_that_lost_only_its_end_is_read(path: Path) -> None:
    append(path, 1)
    path.write_bytes(path.read_bytes().removesuffix(b"\n"))
    append(path, 2)
    assert [item.timestamp for item in archive.read(str(path))] == [1, 2]


@pytest.mark.parametrize("torn", ["", '2,"{""va', archive.line(2, BODY)])
def test_a_file_that_ends_with_nuls_loses_them(path: Path, torn: str) -> None:
    """A file system may store the size of a file before its content. If the power fails then, there are NULs."""
    append(path, 1)
    with path.open("a") as file:
        file.write(torn + "\0" * 4000)
    append(path, 3)
    append(path, 4)
    assert b"\0" not in path.read_bytes()
    with path.open(newline="") as file:
        whole = [row for row in csv.reader(file) if row[1:] == [BODY]]
    assert [row[0] for row in whole] == (["1", "2", "3", "4"] if torn.endswith("\n") else ["1", "3", "4"])


def test_a_file_of_nothing_but_nuls_gets_a_header(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(bytes(4096))
    append(path, 1)
    assert path.read_text() == archive.HEADER + archive.line(1, BODY)


@pytest.mark.parametrize("torn", ["", "timest"])
def test_a_torn_header_costs_no_message(path: Path, torn: str) -> None:
    path.parent.mkdir()
    path.write_text(torn)
    append(path, 1)
    assert [item.timestamp for item in archive.read(str(path))] == [1]


def test_without_an_archive_there_are_no_messages(path: Path) -> None:
    assert list(archive.read(str(path))) == []
    assert MessagingAgent.load_message_archive(datetime.date(2000, 1, 1)) == []


def test_what_is_appended_to_is_the_file_of_that_name(path: Path) -> None:
    appender = archive.Appender()
    appender.append(str(path), archive.line(1, BODY))
    path.rename(path.with_name("another"))
    appender.append(str(path), archive.line(2, BODY))
    path.write_text(path.read_text() + "torn")  # by somebody else
    appender.append(str(path), archive.line(3, BODY))
    path.unlink()
    appender.append(str(path), archive.line(4, BODY))
    appender.close()
    assert path.read_text() == archive.HEADER + archive.line(4, BODY)


def test_an_archive_is_not_for_others(path: Path) -> None:
    append(path)
    assert path.stat().st_mode & 0o007 == 0 and path.parent.stat().st_mode & 0o007 == 0
