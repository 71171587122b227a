"""While the data directory takes nothing, messages wait in the spare queue, are sent from there, and come back."""

import contextlib
import datetime
import errno
import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ivy.types.messages import DataMessageBody, LogMessageBody
from ivy.utils import messaging_agent
from ivy.utils.messaging_agent import SPARE_QUEUE_FILE, MessagingAgent
from ivy.utils.storage import ballast, database, errors, schema, spare, trouble
from ivy.utils.storage.store import Store
from tests.support import queue_file
from tests.support.helpers import ARCHIVE_DIR


def of(code: int, text: str = "trouble") -> sqlite3.OperationalError:
    """An error of SQLite's."""
    error = sqlite3.OperationalError(text)
    error.sqlite_errorcode = code
    return error


TROUBLES: list[Exception] = [
    of(sqlite3.SQLITE_FULL),
    of(sqlite3.SQLITE_READONLY),
    of(sqlite3.SQLITE_IOERR_WRITE),
    of(sqlite3.SQLITE_CANTOPEN),
    of(sqlite3.SQLITE_BUSY),
    OSError(errno.EROFS, "read-only"),
    PermissionError(errno.EACCES, "another's"),
    OSError(errno.EIO, "I/O error"),
    TimeoutError("the lock is held"),
    of(sqlite3.SQLITE_PERM),
]


@pytest.mark.parametrize("code", [errno.EIO, errno.EUCLEAN, errno.EBADMSG], ids=errno.errorcode.get)
def test_what_a_damaged_file_system_says_is_trouble_of_the_disk(code: int) -> None:
    assert errors.is_disk_trouble(OSError(code, "damaged"))


class Disk:
    """The disk of the queue, which can be in trouble."""

    def __init__(self) -> None:
        self.trouble: Exception | None = None
        self.tries = 0


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """A disk that is well."""
    disk = Disk()
    real = database.QueueDatabase.run

    def run(self: database.QueueDatabase, work: object) -> object:
        if self.is_spare:
            return real(self, work)  # type: ignore[arg-type]
        disk.tries += 1
        if disk.trouble is not None:
            raise disk.trouble
        return real(self, work)  # type: ignore[arg-type]

    monkeypatch.setattr(database.QueueDatabase, "run", run)
    monkeypatch.setattr(messaging_agent, "SECONDS_BETWEEN_TRIES", 0)
    yield disk


@pytest.fixture
def agent(disk: Disk) -> Iterator[MessagingAgent]:
    """An open queue."""
    agent = MessagingAgent()
    yield agent
    agent.teardown()


def add(agent: MessagingAgent, *numbers: int) -> None:
    """Queue samples."""
    for number in numbers:
        agent.add_message(DataMessageBody(data={"number": number}))


def queued(agent: MessagingAgent) -> list[int]:
    """The samples that a backend finds, the oldest first."""
    bodies = [item.message_body for item in agent.get_n_latest_messages(100_000)]
    return [int(body.data["number"]) for body in bodies if isinstance(body, DataMessageBody)]


def archived() -> list[int]:
    """The samples in the archive: of all days, as it may be midnight."""
    days = sorted(ARCHIVE_DIR.glob("*.csv"))
    found = [MessagingAgent.load_message_archive(datetime.date.fromisoformat(day.stem)) for day in days]
    bodies = [item.message_body for items in found for item in items]
    return [int(body.data["number"]) for body in bodies if isinstance(body, DataMessageBody)]


def told(agent: MessagingAgent) -> list[str]:
    """The log messages in the queue."""
    bodies = [item.message_body for item in agent.get_n_latest_messages(100_000)]
    return [body.subject for body in bodies if isinstance(body, LogMessageBody)]


@pytest.mark.parametrize("error", TROUBLES, ids=repr)
def test_nothing_is_lost_whatever_the_trouble(agent: MessagingAgent, disk: Disk, error: Exception) -> None:
    add(agent, 1)
    disk.trouble = error
    add(agent, 2, 3, 4)
    assert queued(agent) == [2, 3, 4]  # what can be read
    assert told(agent) == [f"queue - ERROR - the queue takes no messages, they wait in memory: {error}"]
    disk.trouble = None
    assert queued(agent) == [1, 2, 3, 4]
    add(agent, 5)
    assert queued(agent) == archived() == [1, 2, 3, 4, 5]
    [_, is_over] = told(agent)
    assert re.fullmatch(r"queue - WARNING - the queue took no messages for \d+ s, 0 were lost", is_over)
    assert agent.get_spare_length() == 0


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "no room"), of(sqlite3.SQLITE_FULL)], ids=repr)
@pytest.mark.parametrize(
    "ask",
    [
        MessagingAgent.get_queue_length,
        MessagingAgent.get_oldest_timestamp,
        MessagingAgent.get_untold_losses,
        lambda agent: agent.note_told_losses({"data": 1}),
        lambda agent: agent.get_n_latest_messages(1),
        lambda agent: agent.get_messages([1]),
        lambda agent: agent.get_set_aside(1.0),
        lambda agent: agent.set_aside({1: "why"}, 0.0),
        lambda agent: agent.remove_messages([1]),
    ],
)
def test_whoever_asks_gets_one_kind_of_error(
    agent: MessagingAgent, disk: Disk, ask: Callable[[MessagingAgent], object], error: Exception
) -> None:
    disk.trouble = error
    with pytest.raises(sqlite3.Error):
        ask(agent)


def test_the_trouble_is_noted_for_all_and_told_once(agent: MessagingAgent, disk: Disk) -> None:
    other = MessagingAgent()
    disk.trouble = of(sqlite3.SQLITE_FULL, "no room")
    add(agent, 1)
    add(other, 2)
    found = trouble.look()
    assert found is not None and found.reason == "no room" and 0 <= found.seconds < 60
    disk.trouble = None
    add(agent, 3)
    add(other, 4)
    assert trouble.look() is None
    assert len(told(agent)) == 2 and queued(agent) == [1, 2, 3, 4]
    other.teardown()


def test_a_restarted_process_loses_nothing(agent: MessagingAgent, disk: Disk) -> None:
    disk.trouble = of(sqlite3.SQLITE_IOERR)
    add(agent, 1, 2)
    agent.teardown()
    other = MessagingAgent()
    add(other, 3)
    assert queued(other) == [1, 2, 3]
    disk.trouble = None
    add(other, 4)
    assert queued(other) == archived() == [1, 2, 3, 4]
    other.teardown()


def test_what_was_delivered_meanwhile_comes_into_the_archive_only(agent: MessagingAgent, disk: Disk) -> None:
    disk.trouble = of(sqlite3.SQLITE_READONLY)
    add(agent, 1, 2, 3)
    agent.remove_messages([item.identifier for item in agent.get_n_latest_messages(9)][:3])  # the report, 1, 2
    assert queued(agent) == [3]
    disk.trouble = None
    add(agent, 4)
    assert queued(agent) == [3, 4] and archived() == [1, 2, 3, 4]


def test_what_is_on_its_way_when_it_is_moved_is_not_sent_again(agent: MessagingAgent, disk: Disk) -> None:
    disk.trouble = of(sqlite3.SQLITE_READONLY)
    add(agent, 1, 2)
    under_way = [item.identifier for item in agent.get_n_latest_messages(9)]
    disk.trouble = None
    add(agent, 3)
    assert len(agent.get_n_latest_messages(9, under_way)) == 2  # 3, and that the trouble is over
    agent.remove_messages(under_way)
    assert queued(agent) == [3]


def test_what_the_queue_gets_in_the_same_millisecond_is_sent_all_the_same(
    agent: MessagingAgent, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1.7e9)
    add(agent, 1)
    disk.trouble = of(sqlite3.SQLITE_BUSY)
    add(agent, 2)
    disk.trouble = None
    agent.add_once("of another process", [DataMessageBody(data={"number": 3})] * 2)
    items = agent.get_n_latest_messages(9)
    assert len({item.timestamp for item in items}) < len(items), "no two of them have the same time"
    agent.remove_messages([item.identifier for item in items if item.identifier < 0])
    assert queued(agent) == [1, 3, 3]


@pytest.mark.parametrize("is_acknowledged", [True, False])
def test_what_is_sent_in_the_middle_of_its_move_is_not_sent_again(
    agent: MessagingAgent, disk: Disk, monkeypatch: pytest.MonkeyPatch, is_acknowledged: bool
) -> None:
    backend = MessagingAgent()
    disk.trouble = of(sqlite3.SQLITE_READONLY)
    add(agent, 1)
    under_way = [item.identifier for item in backend.get_n_latest_messages(9)]
    disk.trouble = None
    real, found = Store.take_back, list[list[Any]]()

    def take_back(self: Store, *arguments: Any) -> list[int]:
        numbers = real(self, *arguments)
        found.append(backend.get_n_latest_messages(9, under_way))  # where both queues have it
        if is_acknowledged:
            backend.remove_messages(under_way)
        return numbers

    monkeypatch.setattr(Store, "take_back", take_back)
    add(agent, 2)
    assert all(item.identifier not in under_way for item in found[0]) and queued(backend) in ([2], [1, 2])
    if is_acknowledged:
        assert queued(backend) == [2] == queued(agent)
    backend.teardown()


def test_an_archive_that_fails_while_they_move_gets_nothing_twice(
    agent: MessagingAgent, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk.trouble = of(sqlite3.SQLITE_FULL)
    add(agent, *range(20))
    agent.remove_messages([item.identifier for item in agent.get_n_latest_messages(99)])
    disk.trouble = None
    real, room = os.write, 1000

    def write(descriptor: int, content: bytes) -> int:
        nonlocal room
        if room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = real(descriptor, content[:room])
        room -= written
        return written

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        add(agent, 20)
        add(agent, 21)
    add(agent, 22)
    assert archived() == list(range(23)) and queued(agent) == [20, 21, 22]


def test_who_is_killed_while_moving_repeats_one_batch_at_most(
    agent: MessagingAgent, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk.trouble = of(sqlite3.SQLITE_READONLY)
    add(agent, *range(450))
    disk.trouble = None
    real, calls = Store.take_back, 0

    def be_killed(self: Store, *arguments: Any) -> list[int]:
        nonlocal calls
        calls += 1
        numbers = real(self, *arguments)
        if calls == 2:
            raise KeyboardInterrupt
        return numbers

    with monkeypatch.context() as patch:
        patch.setattr(Store, "take_back", be_killed)
        with pytest.raises(KeyboardInterrupt):
            add(agent, 450)
    add(agent, 451)
    assert sorted(set(queued(agent))) == list(range(452)) == sorted(set(archived()))
    assert len(queued(agent)) <= 452 + 200 and len(archived()) <= 452 + 200


def test_logs_go_first_then_the_oldest_and_are_counted(
    agent: MessagingAgent, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spare, "MOST_BYTES", 200_000)
    disk.trouble = of(sqlite3.SQLITE_FULL)
    for number in range(300):
        agent.add_message(LogMessageBody(level="INFO", subject="a log", body="x" * 200))
        add(agent, number)
    assert told(agent)[:5].count("a log") < 100
    assert queued(agent) == list(range(300))
    for number in range(300, 1800):
        agent.add_message(DataMessageBody(data={"number": number, "text": "x" * 200}))
    left = queued(agent)
    assert left == list(range(1800 - len(left), 1800)) and 100 < len(left) < 1000
    disk.trouble = None
    add(agent, 1800)
    counts = dict(queue_file.execute("SELECT variant, count FROM DROPPED"))
    assert counts["data"] == 1800 - len(left) and counts["archive"] == counts["data"] + counts["log"]
    assert f"{counts['data'] + counts['log']} were lost" in told(agent)[-1]


def test_where_neither_takes_it_the_loss_is_told_and_counted(
    agent: MessagingAgent, disk: Disk, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    disk.trouble = of(sqlite3.SQLITE_FULL)
    with monkeypatch.context() as patch:
        patch.setattr(spare.SpareQueue, "put", lambda *_: (_ for _ in ()).throw(of(sqlite3.SQLITE_FULL)))
        add(agent, 1, 2)
    assert capfd.readouterr().err.count("messages are lost") == 1
    disk.trouble = None
    add(agent, 3)
    assert queued(agent) == archived() == [3]
    assert dict(queue_file.execute("SELECT variant, count FROM DROPPED"))["data"] == 2


def test_a_sick_disk_is_tried_now_and_then_only(
    agent: MessagingAgent, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messaging_agent, "SECONDS_BETWEEN_TRIES", 1000)
    disk.trouble = of(sqlite3.SQLITE_IOERR)
    add(agent, *range(50))
    assert disk.tries < 10


def test_each_message_has_its_millisecond_there_too(
    agent: MessagingAgent, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1.7e9)
    disk.trouble = of(sqlite3.SQLITE_IOERR)
    add(agent, 1, 2, 3)
    times = [item.timestamp for item in agent.get_n_latest_messages(9)]
    assert len({round(1000 * timestamp) for timestamp in times}) == 4


def test_the_reserve_is_given_back_first(agent: MessagingAgent, capfd: pytest.CaptureFixture[str]) -> None:
    ballast.keep(free=4 * ballast.SIZE)
    connection = agent.database.connection

    class UntilThereIsRoom:
        total_changes = 0

        def execute(self, *arguments: object) -> object:
            if Path(ballast.BALLAST_FILE).exists():
                raise of(sqlite3.SQLITE_FULL)
            assert connection is not None
            return connection.execute(*arguments)  # type: ignore[arg-type]

        def close(self) -> None:
            assert connection is not None
            connection.close()

    agent.database.connection = UntilThereIsRoom()  # type: ignore[assignment]
    add(agent, 1)
    assert queued(agent) == [1] and not Path(ballast.BALLAST_FILE).exists()
    assert capfd.readouterr().err == ""


def test_a_queue_that_cannot_be_opened_yet_is_opened_later(monkeypatch: pytest.MonkeyPatch) -> None:
    real = schema.connect
    tries = 0

    def connect(path: str, timeout: float, *, is_synced: bool = True, **others: Any) -> sqlite3.Connection:
        nonlocal tries
        if not is_synced:
            return real(path, timeout, is_synced=False, **others)
        tries += 1
        raise of(sqlite3.SQLITE_FULL)

    monkeypatch.setattr(schema, "connect", connect)
    monkeypatch.setattr(messaging_agent, "SECONDS_BETWEEN_TRIES", 0)
    agent = MessagingAgent()
    add(agent, 1, 2)
    assert tries == 1  # no hot loop
    monkeypatch.setattr(schema, "connect", real)
    monkeypatch.setattr(database, "SECONDS_BETWEEN_TRIES", 0)
    add(agent, 3)
    assert queued(agent) == [1, 2, 3] == archived()
    agent.teardown()


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, lambda path: Path(path).write_bytes(b"noise" * 1000)])
def test_what_somebody_planted_there_harms_nobody(agent: MessagingAgent, disk: Disk, make: object) -> None:
    Path(SPARE_QUEUE_FILE).parent.mkdir(exist_ok=True)
    make(SPARE_QUEUE_FILE)  # type: ignore[operator]
    add(agent, 1)
    disk.trouble = of(sqlite3.SQLITE_FULL)
    add(agent, 2)
    assert 2 in queued(agent)
    disk.trouble = None
    add(agent, 3)
    assert queued(agent) == archived() == [1, 2, 3]


@pytest.mark.parametrize("code", [sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_READONLY])
def test_a_file_that_cannot_be_written_for_a_minute_is_replaced(
    agent: MessagingAgent, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """First its log is begun again: a sector of it may be what fails."""
    add(agent, 1)
    assert agent.database.connection is not None
    connection: sqlite3.Connection = agent.database.connection
    statements: list[str] = []

    class Sick:
        total_changes = 0

        def execute(self, statement: str, *arguments: object) -> object:
            statements.append(statement)
            if statement.startswith("INSERT"):
                raise of(code)
            return connection.execute(statement, *arguments)  # type: ignore[arg-type]

        def __enter__(self) -> None: ...

        def __exit__(self, *_: object) -> None:
            connection.rollback()

        def close(self) -> None:
            connection.close()

    monkeypatch.setattr(messaging_agent, "SECONDS_BETWEEN_TRIES", 0)
    agent.database.connection = Sick()  # type: ignore[assignment]
    add(agent, 2)
    assert not any("checkpoint" in statement for statement in statements)
    monkeypatch.setattr(database, "SECONDS_OF_ERRORS", -1)
    add(agent, 3)
    assert any("checkpoint" in statement for statement in statements)
    add(agent, 4)
    assert set(queued(agent)) >= {2, 3, 4} and archived() == [1, 2, 3, 4]
    assert any(".aside-" in name for name in os.listdir(Path(messaging_agent.ACTIVE_QUEUE_FILE).parent))


def test_a_disk_that_takes_no_file_keeps_its_queue(agent: MessagingAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "SECONDS_OF_ERRORS", -1)
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.EIO, "I/O error")))
    for _ in range(3):
        with pytest.raises(sqlite3.OperationalError):
            agent.database.run(lambda _: (_ for _ in ()).throw(of(sqlite3.SQLITE_IOERR_WRITE)))
    assert not any(".aside-" in name for name in os.listdir(Path(messaging_agent.ACTIVE_QUEUE_FILE).parent))


def test_no_number_is_given_again_there(agent: MessagingAgent, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was dropped for lack of room: a backend may have it on its way."""
    disk.trouble = of(sqlite3.SQLITE_FULL)
    agent.add_message(LogMessageBody(level="INFO", subject="the newest", body="x" * 100_000))
    under_way = [item.identifier for item in agent.get_n_latest_messages(9)]
    monkeypatch.setattr(spare, "MOST_BYTES", 50_000)
    other = MessagingAgent()
    add(other, 1)
    assert queued(agent) == [1] and told(agent) == []
    agent.remove_messages(under_way)
    assert queued(agent) == [1]
    other.teardown()


def test_a_spare_queue_that_is_removed_is_made_again(agent: MessagingAgent, disk: Disk) -> None:
    disk.trouble = of(sqlite3.SQLITE_FULL)
    backend = MessagingAgent()
    add(agent, 1)
    under_way = [item.identifier for item in backend.get_n_latest_messages(9)]
    for suffix in schema.FILE_SUFFIXES:
        Path(SPARE_QUEUE_FILE + suffix).unlink(missing_ok=True)
    backend.remove_messages(under_way)
    add(agent, 2, 3)
    assert queued(agent) == [2, 3]
    backend.teardown()


def test_it_is_bounded_where_messages_are_large(
    agent: MessagingAgent, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spare, "MOST_BYTES", 1_000_000)
    disk.trouble = of(sqlite3.SQLITE_FULL)
    for number in range(20):
        agent.add_message(DataMessageBody(data={"number": number, "text": "x" * 250_000}))
    size = sum(os.path.getsize(SPARE_QUEUE_FILE + suffix) for suffix in ("", "-wal"))
    assert size < 3_500_000 and queued(agent)[-1] == 19


def test_what_went_back_takes_up_no_room(
    agent: MessagingAgent, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is sick every other minute, for months."""
    monkeypatch.setattr(spare, "MOST_REMEMBERED", 50)
    for count in range(5):
        disk.trouble = of(sqlite3.SQLITE_FULL)
        add(agent, *range(100))
        disk.trouble = None
        add(agent, count)
        assert agent.get_spare_length() == 0
    with contextlib.closing(sqlite3.connect(SPARE_QUEUE_FILE)) as other:
        assert other.execute("SELECT COUNT(*) FROM MOVED").fetchall()[0][0] <= 50


def test_two_who_move_them_at_once_move_each_once(
    agent: MessagingAgent, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk.trouble = of(sqlite3.SQLITE_READONLY)
    add(agent, 1, 2)
    disk.trouble = None
    other = MessagingAgent()
    real, calls = Store.take_back, 0

    def take_back(self: Store, *arguments: Any) -> list[int]:
        nonlocal calls
        calls += 1
        if calls == 1:
            add(other, 3)
        return real(self, *arguments)

    monkeypatch.setattr(Store, "take_back", take_back)
    add(agent, 4)
    add(agent, 5)
    assert queued(agent) == archived() == [1, 2, 4, 3, 5]
    other.teardown()


def test_a_trouble_that_is_over_costs_no_message_anything(
    agent: MessagingAgent, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does it make other writers wait, by transactions out of turn."""
    disk.trouble = of(sqlite3.SQLITE_READONLY)
    add(agent, 1)
    disk.trouble = None
    add(agent, 2)
    tries = disk.tries
    monkeypatch.setattr(database.QueueDatabase, "transaction", None)
    add(agent, 3)
    assert disk.tries == tries + 1
    assert queued(agent) == [1, 2, 3]


def test_a_lock_that_is_held_is_waited_for_once(agent: MessagingAgent) -> None:
    """Then each sample goes to memory at once: sampling goes on."""
    add(agent, 1)
    with contextlib.closing(sqlite3.connect(messaging_agent.ACTIVE_QUEUE_FILE, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        add(agent, 2)
        began = time.monotonic()
        add(agent, 3, 4)
        assert time.monotonic() - began < database.SECONDS_TO_WAIT
    add(agent, 5)
    assert queued(agent) == archived() == [1, 2, 3, 4, 5]


def test_no_two_messages_have_the_same_millisecond_in_both_queues(
    agent: MessagingAgent, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time", lambda: 1_800_000_000.0)
    add(agent, 1, 2)
    disk.trouble = of(sqlite3.SQLITE_FULL)
    add(agent, 3, 4)
    disk.trouble = None
    add(agent, 5, 6)
    items = agent.get_n_latest_messages(100)
    assert len({round(item.timestamp * 1000) for item in items}) == len(items)
    assert [item.timestamp for item in items] == sorted(item.timestamp for item in items)


def test_a_message_keeps_its_own_time_there_and_moves_no_other(
    agent: MessagingAgent, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_800_000_000.0
    monkeypatch.setattr("time.time", lambda: now)
    add(agent, 1)
    disk.trouble = of(sqlite3.SQLITE_FULL)
    add(agent, 2)
    own = (now - 86_400, now - 86_400, now + 50)
    for timestamp in own:
        agent.add_message(DataMessageBody(data={"number": 3}), timestamp=timestamp)
    add(agent, 4)
    disk.trouble = None
    add(agent, 5)
    milliseconds = sorted(round((item.timestamp - now) * 1000) for item in agent.get_n_latest_messages(100))
    assert len(set(milliseconds)) == len(milliseconds)
    assert milliseconds[:2] == [-86_400_000, -86_399_999] and milliseconds[-1] == 50_000
    assert milliseconds[2] >= 0 and milliseconds[-2] < 20


@pytest.mark.parametrize("is_full", [True, False])
def test_a_full_memory_makes_no_message_come_again_and_again(
    agent: MessagingAgent, disk: Disk, monkeypatch: pytest.MonkeyPatch, is_full: bool
) -> None:
    """Nor does it cost those that the disk would take. Nearly full, it can forget nothing."""
    disk.trouble = of(sqlite3.SQLITE_READONLY)
    add(agent, 1, 2)
    disk.trouble = None

    real = database.QueueDatabase.transaction

    def transaction(self: database.QueueDatabase, work: Any) -> Any:
        if self.is_spare and (is_full or "moved" in getattr(work, "keywords", {})):
            raise of(sqlite3.SQLITE_FULL)
        return real(self, work)

    with monkeypatch.context() as patch:
        patch.setattr(database.QueueDatabase, "transaction", transaction)
        add(agent, 3, 4, 5)
        assert queue_file.execute("SELECT COUNT(*) FROM QUEUE")[0][0] <= 3 + 3
    add(agent, 6)
    assert sorted(queued(agent)) == sorted(set(archived())) == [1, 2, 3, 4, 5, 6]


def test_what_was_sent_from_memory_is_forgotten_whatever_the_disk_does(agent: MessagingAgent, disk: Disk) -> None:
    """A disk that takes nothing for weeks keeps what was sent from it before, and that only."""
    add(agent, 1)
    sent = {item.identifier for item in agent.get_n_latest_messages(9)}
    disk.trouble = of(sqlite3.SQLITE_READONLY)
    add(agent, 2, 3)
    sent |= {item.identifier for item in agent.get_n_latest_messages(9)}
    assert len(sent) == 4
    with pytest.raises(sqlite3.Error):
        agent.remove_and_forget(sent)
    assert len(sent) == 1
    disk.trouble = None
    agent.remove_and_forget(sent)
    assert sent == set() and queued(agent) == []
