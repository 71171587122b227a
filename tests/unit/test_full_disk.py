"""A disk that takes nothing stops nothing: the newest messages wait in memory until it does again."""

import datetime
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ivy.types.messages import DataMessageBody, LogMessageBody
from ivy.utils.messaging_agent import MessagingAgent
from ivy.utils.storage import ballast, database, memory_buffer, schema
from tests.support import queue_file

OUT_OF_ROOM = OSError(28, "No space left on device")


def full() -> sqlite3.OperationalError:
    """What SQLite says of a full disk."""
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode = sqlite3.SQLITE_FULL
    return error


class Disk:
    """A disk that can be full: for queue and archive."""

    def __init__(self, agent: MessagingAgent, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_full = False
        self.room: int | None = None  # statements until it is full
        self.tries = 0
        is_torn = False
        run, write = agent.database.run, os.write

        def run_if_room(work: Callable[[sqlite3.Connection], object]) -> object:
            self.tries += 1
            if self.room is not None:
                self.room -= 1
                self.is_full = self.is_full or self.room < 0
            if self.is_full:
                raise full()
            return run(work)

        def write_if_room(descriptor: int, data: bytes) -> int:
            nonlocal is_torn
            is_torn = self.is_full and not is_torn
            if is_torn:
                return write(descriptor, data[:20])  # what still fits
            if self.is_full:
                raise OUT_OF_ROOM
            return write(descriptor, data)

        monkeypatch.setattr(agent.database, "run", run_if_room)
        monkeypatch.setattr(os, "write", write_if_room)


@pytest.fixture
def disk(agent: MessagingAgent, monkeypatch: pytest.MonkeyPatch) -> Disk:
    """The disk of the queue; it has room."""
    return Disk(agent, monkeypatch)


def add(agent: MessagingAgent, *numbers: int) -> None:
    """Queue samples."""
    for number in numbers:
        agent.add_message(DataMessageBody(data={"number": number}))


def queued(agent: MessagingAgent) -> list[int]:
    """The samples in the queue."""
    bodies = [item.message_body for item in agent.get_n_latest_messages(100_000)]
    return [int(body.data["number"]) for body in bodies if isinstance(body, DataMessageBody)]


def archived() -> list[int]:
    """The samples in today's archive."""
    items = MessagingAgent.load_message_archive(datetime.datetime.now(datetime.UTC).date())
    bodies = [item.message_body for item in items]
    return [int(body.data["number"]) for body in bodies if isinstance(body, DataMessageBody)]


def told(agent: MessagingAgent) -> list[str]:
    """The log messages in the queue."""
    bodies = [item.message_body for item in agent.get_n_latest_messages(100_000)]
    return [body.subject for body in bodies if isinstance(body, LogMessageBody)]


def test_nothing_is_lost_that_was_added_meanwhile(
    agent: MessagingAgent, disk: Disk, capfd: pytest.CaptureFixture[str]
) -> None:
    add(agent, 1)
    disk.is_full = True
    add(agent, 2, 3, 4)
    disk.is_full = False
    add(agent, 5)
    assert queued(agent) == archived() == [1, 2, 3, 4, 5]
    assert told(agent) == ["queue - WARNING - the queue took no messages for 0 s, 0 were lost"]
    errors = capfd.readouterr().err
    assert errors.count("takes no messages") == errors.count("took no messages") == 2  # queue and archive
    assert "left out a line" not in errors


def test_each_message_keeps_its_time(agent: MessagingAgent, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    disk.is_full = True
    for now in (1e9, 1e9 + 1):
        monkeypatch.setattr("time.time", lambda now=now: now)
        add(agent, 1)
    disk.is_full = False
    monkeypatch.setattr("time.time", lambda: 1e9 + 500)
    add(agent, 2)
    assert [item.timestamp for item in agent.get_n_latest_messages(100)][:3] == [1e9, 1e9 + 1, 1e9 + 500]


def test_the_newest_survive_and_logs_go_first(
    agent: MessagingAgent, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_buffer, "MOST_ROWS", 5)
    disk.is_full = True
    add(agent, 1)
    agent.add_message(LogMessageBody(level="INFO", subject="gone", body=""))
    add(agent, *range(2, 9))
    disk.is_full = False
    add(agent, 9)
    assert queued(agent) == [4, 5, 6, 7, 8, 9]
    assert len(told(agent)) == 1 and "4 were lost" in told(agent)[0]
    assert sorted(queue_file.execute("SELECT variant, count FROM DROPPED")) == [("data", 3), ("log", 1)]


def test_what_was_lost_is_counted_when_the_disk_really_takes_it(
    agent: MessagingAgent, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_buffer, "MOST_ROWS", 5)
    disk.is_full = True
    add(agent, *range(1, 9))
    disk.is_full = False
    disk.room = 6  # for what was held, and not for the count and the report
    add(agent, 9)
    disk.is_full, disk.room = False, None
    assert queued(agent) == [4, 5, 6, 7, 8, 9] and told(agent) == []
    add(agent, 10)
    assert queued(agent) == [*range(4, 11)]
    assert queue_file.execute("SELECT variant, count FROM DROPPED") == [("data", 3)]
    assert len(told(agent)) == 2 and all("3 were lost" in subject for subject in told(agent))


def test_large_messages_do_not_fill_the_memory(agent: MessagingAgent, disk: Disk) -> None:
    disk.is_full = True
    for number in range(20):
        agent.add_message(DataMessageBody(data={"number": number, "text": "x" * 1_000_000}))
    disk.is_full = False
    add(agent, 20)
    assert queued(agent) == [17, 18, 19, 20]


def test_each_message_is_one_try(agent: MessagingAgent, disk: Disk) -> None:
    disk.is_full = True
    add(agent, *range(50))
    assert disk.tries == 50


def test_the_reserve_is_given_back_first(
    agent: MessagingAgent, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    ballast.keep(free=4 * ballast.SIZE)
    connection: Any = agent.database.connection

    class UntilThereIsRoom:
        def execute(self, *arguments: Any) -> Any:
            if Path(ballast.BALLAST_FILE).exists():
                raise full()
            return connection.execute(*arguments)

        def close(self) -> None:
            connection.close()

    monkeypatch.setattr(agent.database, "connection", UntilThereIsRoom())
    add(agent, 1)
    assert queued(agent) == [1] and not Path(ballast.BALLAST_FILE).exists()
    assert capfd.readouterr().err == ""


def test_a_queue_that_cannot_be_opened_yet_is_opened_later(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    real = schema.connect
    tries = 0

    def connect(*_: object) -> sqlite3.Connection:
        nonlocal tries
        tries += 1
        raise full()

    monkeypatch.setattr(schema, "connect", connect)
    agent = MessagingAgent()
    add(agent, 1, 2)
    assert tries == 1  # no hot loop: the salvage of a damaged file may be part of it
    monkeypatch.setattr(schema, "connect", real)
    monkeypatch.setattr(database, "SECONDS_BETWEEN_TRIES", 0)
    add(agent, 3)
    assert queued(agent) == [1, 2, 3] == archived()
    assert "cannot be opened yet" in capfd.readouterr().err
    agent.teardown()
