"""`ivy messages`: what of the archive is wanted, and the forms in which it leaves the node."""

import argparse
import csv
import io
import json
import math
import re
import sys
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from ivy.cli.archive import selection
from ivy.cli.archive.selection import Selection
from ivy.cli.archive.table import write_csv
from ivy.types.messages import DataMessageBody, LogMessageBody
from ivy.utils.messaging_agent import MessagingAgent
from ivy.utils.storage import archive as storage
from tests.support.helpers import ARCHIVE_DIR, Node
from tests.unit.archives import DAY, NOON, Ivy, archive, sample


@pytest.fixture
def days() -> None:
    """Noon of three days, with a message of each kind on the second."""
    sample(NOON - DAY, temperature=1.5, humidity=40)
    sample(NOON, temperature=2.5, state='ö, "quoted"\nand more')
    archive(NOON + 1, variant="log", level="ERROR", subject="tenta - ERROR - trouble", body="details")
    general = {"config_revision": 7, "software_version": "1.0.0"}
    archive(NOON + 2, variant="config", status="accepted", config={"general": general})
    sample(NOON + DAY, temperature=3.5, timestamp=99)


@pytest.mark.parametrize(
    ("text", "timestamp"),
    [
        ("2026-11-20", NOON - DAY / 2),
        ("2026-11-20T12:00", NOON),
        ("2026-11-20 12:00:01.5", NOON + 1.5),
        ("2026-11-20T12:00:00Z", NOON),
        ("2026-11-20T13:00+01:00", NOON),
        ("0001-01-01T00:00+02:00", 0),
        ("9999-12-31T23:00-02:00", 253_402_214_400),
        ("-999999999w", 0),
        ("1795176000.5", NOON + 0.5),
    ],
)
def test_times_are_iso_and_utc(text: str, timestamp: float) -> None:
    assert selection.parse_time(text) == timestamp


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("-2h", 7200),
        ("2h", 7200),
        ("-90s", 90),
        ("-1.5d", 1.5 * DAY),
        ("-5min", 300),
        ("-5m", 300),
        ("-1w", 7 * DAY),
    ],
)
def test_times_before_now(text: str, seconds: float) -> None:
    before = time.time()
    assert before - seconds <= selection.parse_time(text) <= time.time() - seconds


@pytest.mark.parametrize(
    "text", ["", "yesterday", "-2", "-2y", "--2h", "2026-13-01", "1e3h", "٣h", "2026-11-20T25:00"]
)
def test_other_times_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="must look like 2026-11-20"):
        selection.parse_time(text)


def timestamps(output: str) -> list[float]:
    return [json.loads(line)["timestamp"] - NOON for line in output.splitlines()]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--since", "2026-11-20"], [0, 1, 2, DAY]),
        (["--since=2026-11-20T12:00:01"], [1, 2, DAY]),
        (["--until", "2026-11-20T12:00:01"], [-DAY, 0]),
        (["--since", "2026-11-20", "--until", "2026-11-21"], [0, 1, 2]),
        (["--date", "2026-11-20"], [0, 1, 2]),
        (["--since", "2000-01-01", "--kind", "log"], [1]),
        (["--since", "2000-01-01", "--kind", "config"], [2]),
        (["--since", "2000-01-01", "--kind", "data"], [-DAY, 0, DAY]),
        (["--since", "2000-01-01", "--key", "hum*", "state"], [-DAY, 0]),
        (["--since", "9999-12-31"], []),
        (["--until", "0001-01-01"], []),
        ([], []),
    ],
)
def test_messages_are_chosen(ivy: Ivy, days: None, arguments: list[str], expected: list[float]) -> None:
    status, output, errors = ivy("messages", "--json", *arguments)
    assert (status, errors) == (0, "")
    assert timestamps(output) == expected


def test_a_time_before_now_may_be_a_word_of_its_own(ivy: Ivy) -> None:
    now = time.time()
    sample(now - 7300, a=1)
    sample(now - 7100, a=2)
    status, output, _ = ivy("messages", "--since", "-2h", "--json", "--until", "-1min")
    assert (status, [json.loads(line)["message_body"]["data"] for line in output.splitlines()]) == (0, [{"a": 2}])


def test_only_the_wanted_keys_are_shown(ivy: Ivy, days: None) -> None:
    assert ivy("messages", "--date", "2026-11-20", "--key", "temp*")[1].endswith("data   temperature=2.5\n")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--date", "2026-11-20", "--since", "-2h"], "--date goes neither"),
        (["--since", "2026-11-21", "--until", "2026-11-20"], "--since must be earlier"),
        (["--key", "a", "--kind", "log"], "the kind log have no keys"),
        (["--csv", "--json"], "not both"),
        (["--csv", "--follow"], "use --json"),
        (["--follow", "--until", "-1h"], "does not go with --until"),
        (["--since", "soon"], "argument --since: must look like"),
        (["--kind", "surprise"], "--kind"),
        (["--since", "-j"], "argument --since: must look like"),
    ],
)
def test_what_does_not_go_together_is_wrong_use(ivy: Ivy, arguments: list[str], reason: str) -> None:
    status, output, errors = ivy("messages", *arguments)
    assert (status, output) == (2, "")
    assert reason in errors


def table(output: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(output, newline="")))


def test_data_as_a_table(ivy: Ivy, days: None) -> None:
    status, output, errors = ivy("messages", "--since", "2000-01-01", "--csv")
    assert (status, errors) == (0, "")
    rows = table(output)
    assert list(rows[0]) == [
        *("timestamp", "time_utc", "timestamp_in_doubt"),
        *("temperature", "humidity", "state", "data.timestamp"),
    ]
    assert [float(row["timestamp"]) for row in rows] == [NOON - DAY, NOON, NOON + DAY]
    assert [row["time_utc"] for row in rows] == [f"2026-11-{day}T12:00:00.000Z" for day in (19, 20, 21)]
    assert [row["temperature"] for row in rows] == ["1.5", "2.5", "3.5"]
    assert [row["humidity"] for row in rows] == ["40", "", ""]
    assert rows[1]["state"] == 'ö, "quoted"\nand more' and rows[2]["data.timestamp"] == "99"


def test_other_kinds_as_a_table(ivy: Ivy, days: None) -> None:
    [log] = table(ivy("messages", "--since", "2000-01-01", "--csv", "--kind", "log")[1])
    assert (log["level"], log["subject"], log["body"]) == ("ERROR", "tenta - ERROR - trouble", "details")
    [config] = table(ivy("messages", "--since", "2000-01-01", "--csv", "--kind", "config")[1])
    assert (config["status"], config["config_revision"], config["software_version"]) == ("accepted", "7", "1.0.0")


def test_a_table_of_nothing_has_its_header(ivy: Ivy) -> None:
    assert ivy("messages", "--csv") == (0, "timestamp,time_utc,timestamp_in_doubt\n", "")


def test_special_numbers_and_doubts_in_a_table(ivy: Ivy) -> None:
    sample(NOON, a=math.nan, b=-math.inf)
    archive(NOON, variant="data", data={"a": 1}, clock_synchronised=False)
    first, second = table(ivy("messages", "--date", "2026-11-20", "--csv")[1])
    assert math.isnan(float(first["a"])) and float(first["b"]) == -math.inf
    assert (first["timestamp_in_doubt"], second["timestamp_in_doubt"]) == ("0", "1")


@pytest.mark.parametrize("form", [[], ["--csv"], ["--json"]])
def test_times_as_printed_are_understood(ivy: Ivy, monkeypatch: pytest.MonkeyPatch, form: list[str]) -> None:
    """Whatever the zone of the machine."""
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    time.tzset()
    try:
        sample(NOON + 0.25, a=1)
        sample(NOON + 1.25, a=2)
        output = ivy("messages", "--since", "2026-11-20", *form)[1]
        last = output.splitlines()[-1]
        printed = re.findall(r"2026-[-\dT:.]+(?:Z|[+-]\d\d:\d\d)|\d{10}\.\d+", last)
        assert printed
        for moment in printed:
            again = ivy("messages", "--since", moment, *form)[1]
            assert again.splitlines()[-1] == last and "\n" in again and len(again) <= len(output) - len("a=1")
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_column_that_comes_late_is_empty_before(ivy: Ivy) -> None:
    sample(NOON, a=1, note='of\n"two" lines')
    sample(NOON + 1, b=2)
    sample(NOON + 2, a=3, c=4)
    rows = table(ivy("messages", "--date", "2026-11-20", "--csv")[1])
    assert [[row[key] for key in ("a", "note", "b", "c")] for row in rows] == [
        *(["1", 'of\n"two" lines', "", ""], ["", "", "2", ""], ["3", "", "", "4"]),
    ]


def test_a_table_that_has_no_room_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(100):
        sample(NOON + number, **{f"key{number // 10}": number})
    tables = []
    for room in (10**9, 500, 0):
        out = io.StringIO()
        write_csv(Selection(since=NOON, kind="data"), out, room)
        tables.append(out.getvalue())
    assert tables[1:] == tables[:1] * 2 and len(table(tables[0])) == 100


def test_the_archive_is_read_once_for_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    sample(NOON, a=1)
    read: list[str] = []
    records = storage.records

    def count(path: str) -> Iterator[storage.Record]:
        read.append(path)
        return records(path)

    monkeypatch.setattr(storage, "records", count)
    write_csv(Selection(since=NOON, kind="data"), io.StringIO())
    assert len(read) == 1


def test_whoever_watches_on_a_terminal_sees_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    sample(NOON, a=1)
    sample(NOON + DAY, a=1)
    for terminal in (Terminal(), io.StringIO()):
        monkeypatch.setattr(sys, "stderr", terminal)
        write_csv(Selection(since=NOON, kind="data"), io.StringIO())
        if terminal.isatty():
            assert "reading the archive: 2026-11-21, 1 of 2" in terminal.getvalue()
            assert terminal.getvalue().endswith(" \r")  # nothing of it is left
        else:
            assert terminal.getvalue() == ""


@pytest.mark.slow
def test_a_long_archive_is_not_loaded_into_memory() -> None:
    for day in range(20):
        for second in range(500):
            sample(NOON + day * DAY + second, temperature=second, note="x" * 200)

    class Nowhere(io.StringIO):
        def write(self, text: str) -> int:
            return len(text)

    tracemalloc.start()
    try:
        write_csv(Selection(since=0.0), Nowhere())
        assert tracemalloc.get_traced_memory()[1] < 1_000_000  # of 2.6 MB on the disk, much more as objects
    finally:
        tracemalloc.stop()


def test_a_torn_line_costs_itself_only(ivy: Ivy, days: None) -> None:
    with Path(ARCHIVE_DIR, "2026-11-20.csv").open("a", encoding="utf-8") as file:
        file.write('1795176000.5,"{""variant"":""da')
    assert len(table(ivy("messages", "--since", "2026-11-20", "--csv")[1])) == 2


@pytest.mark.parametrize("arguments", [["messages"], ["messages", "--csv"]])
def test_no_character_ends_a_command(node: Node, arguments: list[str]) -> None:
    sample(time.time(), **{"grün": 1, "note": "\u2603"})
    node.environment |= {"PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    status, output, errors = node.ivy(*arguments)
    assert (status, errors) == (0, "") and "gr" in output


def test_what_comes_is_chosen_too(node: Node) -> None:
    now = time.time()
    sample(now - DAY, old=1)
    sample(now - 1, recent=2)
    arguments = ("--follow", "--json", "--since", "-2d", "--kind", "data", "--key", "old", "new")
    process = node.start("-m", "ivy", "messages", *arguments)
    assert process.stdout
    assert json.loads(process.stdout.readline())["message_body"]["data"] == {"old": 1}
    agent = MessagingAgent()
    agent.add_message(LogMessageBody(level="INFO", subject="unwanted", body=""))
    agent.add_message(DataMessageBody(data={"new": 3, "unwanted": 4}))
    agent.teardown()
    assert json.loads(process.stdout.readline())["message_body"]["data"] == {"new": 3}
