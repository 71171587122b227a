"""The queue and the archive stay within their bounds, and the operator hears what that cost."""

import datetime
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ivy.procedures import _housekeeping
from ivy.procedures._housekeeping import Housekeeper
from ivy.types.config import QueueConfig
from ivy.types.messages import DataMessageBody
from ivy.utils.logger import Logger
from ivy.utils.messaging_agent import MessagingAgent
from ivy.utils.storage import ballast, bounds
from ivy.utils.storage.bounds import Size, limit
from tests.support import queue_file
from tests.support.helpers import ARCHIVE_DIR, BACKEND, make_config

MEGABYTE = 1_000_000
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
def test_room_is_given_back_to_the_disk(agent: MessagingAgent) -> None:
    fill(60_000)
    before = bounds.measure(agent.database).file
    agent.remove_messages(list(range(1, 60_000)))
    bounds.enforce(QueueConfig(), agent.database, PLENTY)
    queue_file.checkpoint()
    assert before > 15 * MEGABYTE
    assert bounds.measure(agent.database).file < 5 * MEGABYTE


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

    def info(self, message: str, details: str | None = None) -> None:
        """Remember it."""
        self.to_operator.append(message)


def keep(agent: MessagingAgent, logger: Logger, **sections: object) -> Housekeeper:
    """A housekeeper of a config."""
    return Housekeeper(make_config(**sections), logger, agent.database)


def keep_when_free(agent: MessagingAgent, logger: Logger, free: Callable[[], int]) -> Housekeeper:
    """A housekeeper on a disk with so many bytes free."""
    return Housekeeper(make_config(), logger, agent.database, free)


def test_the_operator_hears_of_drops_once_an_hour(
    agent: MessagingAgent, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = Heard()
    housekeeper = keep(agent, logger, queue={"max_megabytes": 1})
    for _ in range(3):
        fill(6000)
        housekeeper.work()
    assert len(logger.to_operator) == 1 and " log" in logger.to_operator[0]
    assert capfd.readouterr().out.count("The queue is full: dropped") == 3
    monkeypatch.setattr(_housekeeping, "SECONDS_BETWEEN_REPORTS", 0)
    housekeeper.work()
    assert len(logger.to_operator) == 2
    housekeeper.work()
    assert len(logger.to_operator) == 2  # nothing new
    keep(agent, logger).work()  # nor after a restart
    assert len(logger.to_operator) == 2


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
