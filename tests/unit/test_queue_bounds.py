"""The queue and the archive stay within their bounds, and the operator hears what that cost."""

import contextlib
import datetime
import errno
import gzip
import itertools
import json
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ivy import files
from ivy.procedures._housekeeping import Housekeeper
from ivy.types.config import QueueConfig, as_text
from ivy.types.messages import DataMessageBody
from ivy.utils.host import clock
from ivy.utils.logger import Logger
from ivy.utils.messaging_agent import MESSAGE_ARCHIVE_DIR, MESSAGE_ARCHIVE_DIR_LOCK, MessagingAgent
from ivy.utils.storage import archive, ballast, bounds, compressed, schema
from ivy.utils.storage.bounds import Size, limit
from ivy.utils.updates.releases import Releases
from ivy.version import Version
from tests.support import queue_file
from tests.support.helpers import ARCHIVE_DIR, BACKEND, make_config, wait_until

MEGABYTE = 1_000_000
SAMPLE = DataMessageBody(data={"number": 1}).model_dump_json()
PLENTY = 10**12


def fill(count: int, length: int = 200) -> None:
    """Queue messages: a config, then of every three one log and two of data."""
    rest = "x" * length
    bodies = ['{"variant":"config","status":"startup"}']
    for number in range(count - 1):
        variant = "data" if number % 3 else "log"
        bodies.append(f'{{"variant":"{variant}","number":{number},"text":"{rest}"}}')
    queue_file.plant((None, 1.5, body) for body in bodies)


def left(variant: str) -> list[int]:
    """The identifiers of the messages of a variant."""
    pattern = f'{{"variant":"{variant}",%'
    return [
        row[0] for row in queue_file.execute("SELECT internal_id FROM QUEUE WHERE message_body LIKE ?", (pattern,))
    ]


@pytest.mark.parametrize(
    ("file", "free", "expected"),
    [
        (100, 100_000, 2000),  # plenty of room: the bound in bytes
        (100, 700, 300),  # grows until 500 are free
        (100, 500, 100),
        (100, 0, 100),  # others took the room: what is queued stays, and what comes takes the place of the oldest
        (5, 20, 15),  # the first few megabytes, half of what is left at most
        (5, 400, 16),
    ],
)
def test_how_large_the_queue_may_be(file: int, free: int, expected: int) -> None:
    size = Size(file=file * MEGABYTE, used=file * MEGABYTE)
    assert limit(QueueConfig(), size, free * MEGABYTE) == expected * MEGABYTE


def test_a_queue_within_its_bounds_loses_nothing(agent: MessagingAgent) -> None:
    fill(1000)
    assert bounds.enforce(QueueConfig(), agent.database, PLENTY) == {}
    assert agent.get_queue_length() == 1000


def test_a_small_queue_loses_nothing_on_a_disk_that_others_filled(agent: MessagingAgent) -> None:
    fill(1000)
    assert bounds.enforce(QueueConfig(), agent.database, 0) == {}
    assert agent.get_queue_length() == 1000


def test_logs_go_before_data_and_the_oldest_first(agent: MessagingAgent) -> None:
    fill(9000)
    dropped = bounds.enforce(QueueConfig(max_megabytes=2), agent.database, PLENTY)
    logs, data = left("log"), left("data")
    assert dropped == {"log": 3000 - len(logs), "data": 5999 - len(data)}
    assert len(logs) <= 1 and 0 < dropped["data"] < 5999
    assert data == sorted(data)[-len(data) :] and max(data) >= 8999  # the newest are left
    assert left("config") == [1]


def test_only_as_many_logs_go_as_must(agent: MessagingAgent) -> None:
    fill(9000, length=400)
    queue_file.execute("DELETE FROM QUEUE WHERE variant = 'data'")
    bounds.enforce(QueueConfig(max_megabytes=1), agent.database, PLENTY)
    logs = left("log")
    assert 100 < len(logs) < 3000 and logs[-1] == max(logs) >= 8999


@pytest.mark.slow
def test_a_full_queue_stays_within_its_bound_and_has_room_for_more(agent: MessagingAgent) -> None:
    fill(20_000)
    bounds.enforce(QueueConfig(max_megabytes=2), agent.database, PLENTY)
    assert bounds.measure(agent.database).used <= 1.5 * MEGABYTE


def test_the_newest_row_always_stays(agent: MessagingAgent) -> None:
    """Else the next message would get its number, and be removed when the other is acknowledged."""
    fill(10)
    bounds.enforce(QueueConfig.model_construct(max_megabytes=0), agent.database, PLENTY)
    assert queue_file.execute("SELECT internal_id FROM QUEUE") == [(10,)]


@pytest.mark.slow
@pytest.mark.parametrize("made_by", ["1.0", "1.1"])
def test_room_is_given_back_to_the_disk_when_little_is_left(made_by: str) -> None:
    if made_by == "1.0":
        queue_file.execute("PRAGMA auto_vacuum = INCREMENTAL")
        queue_file.execute("CREATE TABLE first (id INTEGER)")
    agent = MessagingAgent()
    fill(60_000)
    queue_file.checkpoint()
    before = bounds.measure(agent.database).file
    agent.remove_messages(list(range(20_000, 60_000)))
    bounds.enforce(QueueConfig(), agent.database, PLENTY)
    assert bounds.measure(agent.database).file > 0.9 * before  # much would have to be copied
    agent.remove_messages(list(range(1, 20_000)))
    bounds.enforce(QueueConfig(), agent.database, PLENTY)
    assert before > 15 * MEGABYTE
    assert bounds.measure(agent.database).file < MEGABYTE and agent.get_queue_length() == 1
    assert agent.database.execute("PRAGMA auto_vacuum") == [(0,)]
    agent.teardown()


def test_the_log_of_a_reader_that_stands_still_is_counted_and_given_back(agent: MessagingAgent) -> None:
    fill(1000)
    with contextlib.closing(sqlite3.connect(queue_file.QUEUE, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT COUNT(*) FROM QUEUE").fetchall()
        for _ in range(20):
            fill(1000)
        size = bounds.measure(agent.database)
        assert size.log > 3 * MEGABYTE and size.file >= size.used + size.log
        dropped = bounds.enforce(QueueConfig(max_megabytes=5), agent.database, PLENTY)
        assert sum(dropped.values()) > 0
        assert bounds.measure(agent.database).used > 2 * MEGABYTE  # no more than a half goes for that
    bounds.enforce(QueueConfig(), agent.database, PLENTY)
    assert bounds.measure(agent.database).log <= schema.LARGEST_LOG


def test_dropping_logs_does_not_read_the_whole_queue(agent: MessagingAgent) -> None:
    fill(9000)
    assert agent.database.connection is not None
    statements: list[str] = []
    agent.database.connection.set_trace_callback(statements.append)
    bounds.enforce(QueueConfig(max_megabytes=1), agent.database, PLENTY)
    [first, *_] = [statement for statement in statements if statement.startswith("DELETE FROM QUEUE")]
    plan = [row[3] for row in queue_file.execute(f"EXPLAIN QUERY PLAN {first}")]
    assert any("USING INDEX QUEUE_VARIANTS" in line for line in plan) and "SCAN QUEUE" not in plan


def test_drops_are_counted_with_the_deletion(agent: MessagingAgent) -> None:
    for _ in range(2):
        fill(9000)
        bounds.enforce(QueueConfig(max_megabytes=1), agent.database, PLENTY)
    [[counted]] = queue_file.execute("SELECT SUM(count) FROM DROPPED")
    assert counted == 18_000 - agent.get_queue_length() > 9000


class Heard(Logger):
    """A logger whose lines can be read."""

    def __init__(self) -> None:
        super().__init__(make_config(backend=BACKEND), "test")
        self.to_operator: list[str] = []

    def without_messages(self) -> Logger:
        """What is not for the operator, nobody hears."""
        return Logger(self._config, self._origin).without_messages()

    def warning(self, message: str, details: str | None = None) -> None:
        """Remember it."""
        self.to_operator.append(message)

    def error(self, message: str, details: str | None = None) -> None:
        """Remember it."""
        self.to_operator.append(message)

    def info(self, message: str, details: str | None = None) -> None:
        """Remember it."""
        self.to_operator.append(message)


def keep(agent: MessagingAgent, logger: Logger, **sections: object) -> Housekeeper:
    """A housekeeper of a config."""
    return Housekeeper(make_config(**sections), logger, agent.database)


def keep_when_free(agent: MessagingAgent, logger: Logger, free: Callable[[], int]) -> Housekeeper:
    """A housekeeper on a disk with so many bytes free."""
    return Housekeeper(make_config(), logger, agent.database, free)


@pytest.fixture
def days(agent: MessagingAgent) -> list[str]:
    """An archive of five days before today, and today."""
    ARCHIVE_DIR.mkdir()
    today = datetime.datetime.now(datetime.UTC).date()
    for age in range(5, -1, -1):
        (ARCHIVE_DIR / f"{today - datetime.timedelta(age)}.csv").write_text("timestamp,message_body\n")
    (ARCHIVE_DIR / "notes.txt").touch()
    return sorted(path.name for path in ARCHIVE_DIR.glob("*.csv"))


def kept() -> list[str]:
    """The days that are left."""
    assert (ARCHIVE_DIR / "notes.txt").exists()
    return sorted(path.name for path in ARCHIVE_DIR.glob("*.csv"))


@pytest.mark.parametrize("most", [1, 3, 6, 100])
def test_the_archive_keeps_so_many_days(agent: MessagingAgent, days: list[str], most: int) -> None:
    logger = Heard()
    keep(agent, logger, archive={"max_days": most}, queue={"min_free_megabytes": 0}).work()
    assert kept() == days[-most:]
    assert len(logger.to_operator) == (most < 6)


def test_the_archive_keeps_all_days_while_there_is_room(agent: MessagingAgent, days: list[str]) -> None:
    keep(agent, Heard(), queue={"min_free_megabytes": 0}).work()
    assert kept() == days


def test_a_clock_that_jumps_costs_the_archive_nothing(agent: MessagingAgent, days: list[str]) -> None:
    config = make_config(archive={"max_days": 6}, queue={"min_free_megabytes": 0})
    for years in (-1, 1):
        today = datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(365 * years)
        Housekeeper(config, Heard(), agent.database, today=lambda today=today: today).work()  # type: ignore[misc]
        assert kept() == days


def test_when_room_is_short_the_oldest_days_go_until_it_is_not(agent: MessagingAgent, days: list[str]) -> None:
    logger = Heard()
    keep_when_free(agent, logger, lambda: 600 * MEGABYTE - 50 * MEGABYTE * len(kept())).work()
    assert kept() == days[-2:]
    assert logger.to_operator == [
        f"Removed from the archive, as the disk is full: {days[0][:10]} to {days[3][:10]}"
    ]


def test_when_no_more_files_are_possible_the_oldest_days_go(agent: MessagingAgent, days: list[str]) -> None:
    """Without an inode, the file of the next day cannot be made, whatever bytes are free."""
    config = make_config(queue={"min_free_megabytes": 0})
    free_files = lambda: 17 - len(kept())  # noqa: E731
    Housekeeper(config, Heard(), agent.database, lambda: PLENTY, free_files).work()
    assert kept() == days[-1:]
    Housekeeper(config, Heard(), agent.database, lambda: PLENTY, lambda: None).work()
    assert kept() == days[-1:]


def test_the_ballast_takes_none_of_the_last_files() -> None:
    ballast.keep(PLENTY, 15)
    assert not os.path.exists(ballast.BALLAST_FILE)
    ballast.keep(PLENTY, 16)
    assert os.path.exists(ballast.BALLAST_FILE)


def test_a_disk_that_is_mounted_late_is_told_once(agent: MessagingAgent) -> None:
    logger, devices = Heard(), iter([1, 1, 2, 2])
    housekeeper = Housekeeper(make_config(), logger, agent.database, device=lambda: next(devices))
    housekeeper.work()
    assert logger.to_operator == []
    housekeeper.work()
    housekeeper.work()
    [told] = logger.to_operator
    assert told.startswith("Another disk was mounted on ") and "mount --bind" in told


def write(day: str, text: str = "timestamp,message_body\n") -> None:
    """Append to a day, whatever day it is."""
    with (ARCHIVE_DIR / f"{day}.csv").open("a") as file:
        file.write(text)


def test_days_that_a_wrong_clock_named_go_in_the_order_in_which_they_were_written(agent: MessagingAgent) -> None:
    """Two boots began in the past, the second one in a year that the archive has already."""
    ARCHIVE_DIR.mkdir()
    keep_all = Housekeeper(make_config(), Heard(), agent.database, lambda: PLENTY)
    for day in ("2026-11-20", "2026-11-21", "1970-01-01", "2026-11-22", "2006-03-04", "1970-01-01", "2026-11-23"):
        write(day)
        keep_all.work()
        write(day)
        keep_all.work()
    left = []

    def free() -> int:
        left.append(sorted(path.name[:10] for path in ARCHIVE_DIR.glob("*.csv")))
        return 0

    Housekeeper(make_config(), Heard(), agent.database, free).work()
    gone = [set(before) - set(after) for before, after in itertools.pairwise(left) if before != after]
    assert gone == [{"2026-11-20"}, {"2026-11-21"}, {"2026-11-22"}, {"2006-03-04"}, {"1970-01-01"}]


def test_an_order_that_cannot_be_written_does_not_stop_the_pruning(
    agent: MessagingAgent, days: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object, **_options: object) -> None:
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(files, "write_atomically", refuse)
    keep_when_free(agent, Heard(), lambda: 0).work()
    assert kept() == days[-1:]


def test_no_day_goes_for_its_number_before_the_clock_is_known_to_be_right(
    agent: MessagingAgent, days: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    housekeeper = keep(agent, Heard(), archive={"max_days": 2}, queue={"min_free_megabytes": 0})
    monkeypatch.setattr(clock, "is_synchronised", lambda: False)
    housekeeper.work()
    assert kept() == days
    monkeypatch.setattr(clock, "is_synchronised", lambda: True)
    housekeeper.work()
    assert kept() == days[-2:]


def test_older_days_are_compressed_one_after_the_other(agent: MessagingAgent, days: list[str]) -> None:
    config = make_config(archive={"compress_after_days": 3}, queue={"min_free_megabytes": 0})
    housekeeper = Housekeeper(config, Heard(), agent.database)
    for number, day in enumerate(days[:3], start=1):
        housekeeper.work()
        wait_until(lambda number=number: len(list(ARCHIVE_DIR.glob("*.gz"))) == number)  # type: ignore[misc]
        wait_until(lambda day=day: not (ARCHIVE_DIR / day).exists())  # type: ignore[misc]
        housekeeper.settle()
    housekeeper.work()
    housekeeper.settle()
    assert kept() == days[3:]
    assert sorted(path.name for path in ARCHIVE_DIR.glob("*.gz")) == [f"{day}.gz" for day in days[:3]]
    assert [str(day) for day in archive.days(MESSAGE_ARCHIVE_DIR)] == [day[:10] for day in days]


@pytest.mark.parametrize("lost", ['"\n', "\n"])
def test_a_day_whose_last_line_is_torn_loses_nothing_when_more_joins_it(
    agent: MessagingAgent, days: list[str], lost: str
) -> None:
    day, first, second = ARCHIVE_DIR / days[0], archive.line(1.0, SAMPLE), archive.line(2.0, SAMPLE)
    day.write_text((archive.HEADER + first).removesuffix(lost))
    housekeeper = keep(agent, Heard(), archive={"compress_after_days": 5}, queue={"min_free_megabytes": 0})
    housekeeper.work()
    housekeeper.settle()
    day.write_text(archive.HEADER + second)  # as of a logger's memory, days later
    compressed.compress(str(day), MESSAGE_ARCHIVE_DIR_LOCK, archive.LARGEST_DAY)
    text = gzip.decompress(Path(f"{day}.gz").read_bytes()).decode()
    assert text == archive.HEADER + first + archive.HEADER + second


def test_compressed_days_go_like_others(agent: MessagingAgent, days: list[str]) -> None:
    (ARCHIVE_DIR / days[0]).unlink()
    (ARCHIVE_DIR / f"{days[0]}.gz").write_bytes(b"")
    keep(agent, Heard(), archive={"max_days": 5}, queue={"min_free_megabytes": 0}).work()
    assert not list(ARCHIVE_DIR.glob("*.gz")) and kept() == days[1:]


def test_a_day_that_cannot_be_compressed_stays_and_is_told_once(
    agent: MessagingAgent, days: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    (ARCHIVE_DIR / f"{days[0]}.gz").write_bytes(b"no gzip")
    config = make_config(archive={"compress_after_days": 5}, queue={"min_free_megabytes": 0})
    housekeeper = Housekeeper(config, Heard(), agent.database)
    for _ in range(4):
        housekeeper.work()
        housekeeper.settle()
    assert kept() == days
    assert capfd.readouterr().out.count("stays as it is, and is not compressed") == 1


@pytest.mark.parametrize("wanted", [None, 100])
def test_all_days_stay_plain_where_that_is_wanted(
    agent: MessagingAgent, days: list[str], wanted: int | None
) -> None:
    config = make_config(archive={"compress_after_days": wanted}, queue={"min_free_megabytes": 0})
    housekeeper = Housekeeper(config, Heard(), agent.database)
    housekeeper.work()
    housekeeper.settle()
    assert kept() == days


def test_no_day_is_compressed_while_something_is_on_trial(agent: MessagingAgent, days: list[str]) -> None:
    """A release that knows nothing of compressed days may run again in a minute."""
    config = make_config(archive={"compress_after_days": 1}, queue={"min_free_megabytes": 0})
    try_out({}, {})
    housekeeper = Housekeeper(config, Heard(), agent.database)
    housekeeper.work()
    housekeeper.settle()
    assert kept() == days


ROOMY = {"archive": {"max_days": 4}, "queue": {"max_megabytes": 99, "min_free_megabytes": 0}}
TIGHT = {"archive": {"max_days": 1}, "queue": {"max_megabytes": 1, "min_free_megabytes": 1_000_000}}
VERSION = Version("1.0.0")


def try_out(accepted: dict[str, Any], offered: dict[str, Any]) -> Releases:
    """Let a config be on trial."""
    releases = Releases()
    releases.config_file(VERSION).parent.mkdir(parents=True)
    releases.activate(VERSION)
    releases.write_config(VERSION, as_text(make_config(**accepted)))
    releases.begin_probation()
    releases.write_config(VERSION, as_text(make_config(**offered)))
    return releases


def test_a_config_on_trial_deletes_nothing_that_the_accepted_one_keeps(
    agent: MessagingAgent, days: list[str]
) -> None:
    fill(10_000)
    releases = try_out(ROOMY, TIGHT)
    housekeeper = keep(agent, Heard(), **TIGHT)
    housekeeper.work()
    assert kept() == days[-4:] and agent.get_queue_length() == 10_000
    releases.end_probation()
    housekeeper.work()
    assert kept() == days[-1:] and agent.get_queue_length() < 10_000


def test_nor_does_what_hangs_on_when_it_was_undone(agent: MessagingAgent, days: list[str]) -> None:
    releases = try_out({"queue": {"min_free_megabytes": 0}}, TIGHT)
    housekeeper = keep(agent, Heard(), **TIGHT)
    releases.go_back()
    releases.end_probation()
    housekeeper.work()
    assert kept() == days


def test_the_accepted_config_deletes_nothing_that_one_on_trial_would_keep(
    agent: MessagingAgent, days: list[str]
) -> None:
    try_out(TIGHT, ROOMY)
    keep(agent, Heard(), **ROOMY).work()
    assert kept() == days[-4:]


@pytest.mark.parametrize("content", [None, b"{", b"\xff", b'{"general": {}}'])
def test_where_the_accepted_config_cannot_be_read_all_is_kept(
    agent: MessagingAgent, days: list[str], content: bytes | None
) -> None:
    releases = try_out(ROOMY, TIGHT)
    found = releases.kept_config()
    assert found is not None
    found.unlink() if content is None else found.write_bytes(content)
    fill(10_000)
    keep(agent, Heard(), **TIGHT).work()
    assert kept() == days and agent.get_queue_length() == 10_000


def test_nor_is_a_section_of_another_version_guessed_at(agent: MessagingAgent, days: list[str]) -> None:
    releases = try_out(ROOMY, TIGHT)
    found = releases.kept_config()
    assert found is not None
    general = {"config_revision": 1, "software_version": "9.0.0"}
    found.write_text(json.dumps({"general": general, "archive": {"days": 4}}))
    keep(agent, Heard(), **TIGHT).work()
    assert kept() == days


def test_today_is_never_removed(agent: MessagingAgent, days: list[str]) -> None:
    keep_when_free(agent, Heard(), lambda: 0).work()
    assert kept() == days[-1:]


def test_a_disk_that_fails_is_told_once_and_stops_nothing(
    agent: MessagingAgent, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail() -> int:
        raise OSError("no such disk")

    housekeeper = keep_when_free(agent, Heard(), fail)
    for _ in range(3):
        housekeeper.work()
    assert capfd.readouterr().out.count("no such disk") == 1


def test_names_that_are_no_days_stop_nothing(agent: MessagingAgent, days: list[str]) -> None:
    (ARCHIVE_DIR / "2024-01-01").mkdir()
    (ARCHIVE_DIR / "2024-01-02.csv").mkdir()
    (ARCHIVE_DIR / "20240103.csv").touch()
    (ARCHIVE_DIR / "2024-01-04").touch()
    keep(agent, Heard(), archive={"max_days": 2}, queue={"min_free_megabytes": 0}).work()
    assert kept() == ["2024-01-02.csv", "20240103.csv", *days[-2:]]


def test_one_duty_that_fails_does_not_stop_the_others(
    agent: MessagingAgent, days: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object) -> None:
        raise PermissionError("no")

    monkeypatch.setattr(os, "unlink", fail)
    fill(6000)
    housekeeper = keep(agent, Heard(), archive={"max_days": 1}, queue={"max_megabytes": 1})
    for _ in range(3):
        housekeeper.work()
    assert bounds.measure(agent.database).used <= MEGABYTE
    assert Path(ballast.BALLAST_FILE).exists()
    assert capfd.readouterr().out.count("could not be kept: no\n") == 1


def test_a_reserve_that_was_cut_short_is_completed(data_dir: Path) -> None:
    Path(ballast.BALLAST_FILE).write_bytes(b"short")
    ballast.keep(free=4 * ballast.SIZE)
    assert Path(ballast.BALLAST_FILE).stat().st_size == ballast.SIZE


def test_the_reserve_is_taken_when_there_is_plenty_only(data_dir: Path) -> None:
    ballast.keep(free=3 * ballast.SIZE)
    assert not Path(ballast.BALLAST_FILE).exists() and not ballast.release()
    ballast.keep(free=4 * ballast.SIZE)
    status = Path(ballast.BALLAST_FILE).stat()
    assert status.st_size == ballast.SIZE and status.st_blocks * 512 >= ballast.SIZE
    assert ballast.release() and not Path(ballast.BALLAST_FILE).exists()


def test_a_queue_of_the_predecessor_is_bounded_too() -> None:
    queue_file.make_predecessors()
    agent = MessagingAgent()
    fill(9000)
    agent.add_message(DataMessageBody(data={"number": 1}))
    dropped = bounds.enforce(QueueConfig(max_megabytes=1), agent.database, PLENTY)
    assert dropped["log"] >= 2999 and bounds.measure(agent.database).used <= MEGABYTE
    agent.teardown()
