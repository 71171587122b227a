"""`ivy.utils.storage.store`: one sync a message, and what a power cut takes from the archive comes back."""

import contextlib
import datetime
import errno
import fcntl
import os
import random
import shutil
import signal
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ivy import constants
from ivy.types.config import QueueConfig
from ivy.types.messages import DataMessageBody
from ivy.utils import messaging_agent
from ivy.utils.host import clock
from ivy.utils.messaging_agent import MESSAGE_ARCHIVE_DIR, MESSAGE_ARCHIVE_DIR_LOCK, MessagingAgent
from ivy.utils.storage import archive, bounds, contents, database, errors, store
from ivy.utils.storage.turns import Turns
from tests.support import queue_file
from tests.support.helpers import ARCHIVE_DIR, Node, wait_until


def add(agent: MessagingAgent, *numbers: int) -> None:
    """Add samples."""
    for number in numbers:
        agent.add_message(DataMessageBody(data={"number": number}))


def numbers(agent: MessagingAgent) -> list[int]:
    """The samples in the queue."""
    return [_number(item.message_body) for item in agent.get_n_latest_messages(10_000)]


def latest(agent: MessagingAgent) -> list[int]:
    """The numbers of what is in the queue; negative for what waits in memory."""
    return [item.identifier for item in agent.get_n_latest_messages(10_000)]


def archived() -> list[int]:
    """The samples in the archive of all days."""
    days = sorted(ARCHIVE_DIR.glob("*.csv"))
    found = [MessagingAgent.load_message_archive(datetime.date.fromisoformat(day.stem)) for day in days]
    bodies = [item.message_body for items in found for item in items]
    return [_number(body) for body in bodies if isinstance(body, DataMessageBody)]


def _number(body: object) -> int:
    assert isinstance(body, DataMessageBody)
    return int(body.data["number"])


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What Python syncs, by name."""
    found: list[str] = []
    for name in ("fsync", "fdatasync"):
        real = getattr(os, name)

        def sync(descriptor: int, real: object = real) -> None:
            found.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
            real(descriptor)  # type: ignore[operator]

        monkeypatch.setattr(os, name, sync)
    return found


def test_the_archive_is_synced_when_messages_leave_the_queue_and_once_for_all(
    agent: MessagingAgent, synced: list[str]
) -> None:
    add(agent, *range(10))
    assert synced == []
    identifiers = [item.identifier for item in agent.get_n_latest_messages(10)]
    agent.remove_messages(identifiers[5:])
    day = Path(agent.get_message_archive_file()).name
    assert synced == [day, "messages"]
    agent.remove_messages(identifiers[:5])  # older than what is durable by now
    assert synced == [day, "messages"]
    assert agent.database.run(contents.archived) == max(identifiers)


def test_without_a_backend_it_is_synced_now_and_then(agent: MessagingAgent, synced: list[str]) -> None:
    add(agent, 1, 2)
    for _ in range(3):
        agent.store.keep_durable()
    assert len(synced) == 2  # the file and its name, once
    assert agent.database.run(contents.archived) == 2


def cut_power(agent: MessagingAgent, monkeypatch: pytest.MonkeyPatch, boot: str) -> None:
    """All that was noted in memory is gone with it."""
    agent.teardown()
    monkeypatch.setattr(clock, "boot_id", lambda: boot)


@pytest.mark.parametrize("seed", range(8))
def test_what_a_power_cut_takes_from_the_archive_comes_back(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    chance = random.Random(seed)
    number = safe = 0
    for boot in ("one", "two", "three"):
        agent = MessagingAgent()
        add(agent, *range(number, number := number + chance.randint(1, 40)))
        day = Path(agent.get_message_archive_file())
        if chance.random() < 0.5:
            some = agent.get_n_latest_messages(chance.randint(1, 9))
            agent.remove_messages([item.identifier for item in some])
            safe = day.stat().st_size
            add(agent, *range(number, number := number + chance.randint(0, 9)))
        cut_power(agent, monkeypatch, boot)
        with day.open("r+b") as file:
            lost = chance.randint(safe, day.stat().st_size)
            file.truncate(lost)
            file.seek(0, os.SEEK_END)
            file.write(bytes(chance.choice([0, 0, 100])))  # a size that was written before the content
    agent = MessagingAgent()
    assert archived() == list(range(number))
    agent.teardown()


@pytest.mark.parametrize("nuls", [0, 100])  # a size that was written before the content
@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_line_that_can_be_read_without_its_end_is_not_repeated(
    agent: MessagingAgent, monkeypatch: pytest.MonkeyPatch, cut: int, nuls: int
) -> None:
    add(agent, 1, 2)
    cut_power(agent, monkeypatch, "another")
    day = Path(agent.get_message_archive_file())
    size = day.stat().st_size - cut
    os.truncate(day, size)
    os.truncate(day, size + nuls)
    booted = MessagingAgent()
    assert archived() == [1, 2]
    add(booted, 3)
    assert archived() == [1, 2, 3]
    booted.teardown()


def test_who_is_killed_between_the_two_places_is_made_up_for(
    agent: MessagingAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(agent, 1)
    with monkeypatch.context() as patch:
        patch.setattr(archive.Appender, "append", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            add(agent, 2)
    other = MessagingAgent()
    add(other, 3)
    assert numbers(agent) == archived() == [1, 2, 3]
    other.teardown()


def test_a_message_that_is_removed_meanwhile_is_in_the_archive_first(
    agent: MessagingAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(archive.Appender, "append", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            add(agent, 1)
    agent.remove_messages([1])
    assert numbers(agent) == [] and archived() == [1]


def test_numbers_are_not_given_again(agent: MessagingAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    add(agent, 1, 2)
    agent.remove_messages([1, 2])
    cut_power(agent, monkeypatch, "another")
    add(agent, 3)
    assert [item.identifier for item in agent.get_n_latest_messages(9)] == [3]
    assert archived() == [1, 2, 3]


def test_no_two_messages_have_the_same_millisecond(agent: MessagingAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    other = MessagingAgent()
    now = 1_700_000_000.0
    monkeypatch.setattr(time, "time", lambda: now + 0.0004)
    add(agent, 1)
    add(other, 2)
    agent.add_once("key", [DataMessageBody(data={"number": number}) for number in (3, 4)])
    monkeypatch.setattr(time, "time", lambda: now + 0.0017)
    add(other, 5)
    milliseconds = [round(item.timestamp * 1000) - 1_700_000_000_000 for item in agent.get_n_latest_messages(9)]
    assert milliseconds == [0, 1, 2, 3, 4]
    times = [item.timestamp for item in agent.get_n_latest_messages(9)]
    assert [item.timestamp for item in agent.load_message_archive(datetime.date(2023, 11, 14))] == times
    monkeypatch.setattr(time, "time", lambda: now - 3600)  # the clock was set back
    add(agent, 6)
    assert agent.get_n_latest_messages(1)[0].timestamp == now - 3600
    other.teardown()


NOW = 1_700_000_000.0


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that stands still, and is known to be right."""
    monkeypatch.setattr(time, "time", lambda: NOW)
    monkeypatch.setattr(clock, "is_synchronised", lambda: True)


@pytest.mark.usefixtures("judged")
def test_a_message_may_bring_its_own_time_and_stands_in_its_own_day(agent: MessagingAgent) -> None:
    add(agent, 1)
    recorded = NOW - 3 * 86_400 + 0.25
    agent.add_message(DataMessageBody(data={"number": 2}), timestamp=recorded)
    add(agent, 3)
    assert [item.timestamp for item in agent.get_n_latest_messages(9)] == [NOW, recorded, NOW + 0.001]
    [item] = agent.load_message_archive(datetime.date(2023, 11, 11))
    assert (item.timestamp, _number(item.message_body)) == (recorded, 2)
    assert [_number(item.message_body) for item in agent.load_message_archive(datetime.date(2023, 11, 14))] == [
        1,
        3,
    ]


@pytest.mark.usefixtures("judged")
def test_no_two_messages_have_the_same_millisecond_whoever_brings_its_time(agent: MessagingAgent) -> None:
    """Those that do are moved by as little as that; whoever does not is not moved to where another one is."""
    other = MessagingAgent()
    add(agent, 1)
    for time_of_its_own in (NOW, NOW + 0.002, NOW - 3600, NOW - 3600, NOW - 7200, NOW + 59):
        other.add_message(DataMessageBody(data={"number": 2}), timestamp=time_of_its_own)
    add(agent, 3, 4)
    agent.add_once("key", [DataMessageBody(data={"number": 5})])
    milliseconds = [round((item.timestamp - NOW) * 1000) for item in agent.get_n_latest_messages(99)]
    assert milliseconds == [0, 1, 2, -3_600_000, -3_599_999, -7_200_000, 59_000, 3, 4, 5]
    other.teardown()


@pytest.mark.usefixtures("judged")
def test_what_is_known_of_such_times_is_bounded(agent: MessagingAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "MOST_TIMES", 3)
    for second in (1, 2, 3, 4, 5, 1, 5):
        agent.add_message(DataMessageBody(data={"number": second}), timestamp=NOW - 100 + second)
    assert len(agent.database.execute("SELECT key FROM ONCE")) == 3
    times = [item.timestamp - NOW + 100 for item in agent.get_n_latest_messages(2)]
    assert times == pytest.approx([1, 5.001])


@pytest.mark.usefixtures("judged")
@pytest.mark.parametrize(
    ("timestamp", "complaint"),
    [
        (NOW + 301, "301 s in the future"),
        (NOW - 8 * 86_400, "8 days ago, and 7 are kept"),
        (-1.0, "not a time in seconds"),
        (NOW * 1000, "not a time in seconds"),
        (float("nan"), "not a time in seconds"),
        (True, "not a time in seconds"),
        ("now", "not a time in seconds"),
    ],
)
def test_a_time_that_cannot_be_is_refused(
    agent: MessagingAgent, monkeypatch: pytest.MonkeyPatch, timestamp: Any, complaint: str
) -> None:
    monkeypatch.setattr(MessagingAgent, "archive_days", 7)
    with pytest.raises(ValueError, match=f"^timestamp: .*{complaint}"):
        agent.add_message(DataMessageBody(data={"number": 1}), timestamp=timestamp)
    assert numbers(agent) == archived() == []


def test_a_clock_that_is_not_set_judges_no_other(agent: MessagingAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 100.0)
    monkeypatch.setattr(clock, "is_synchronised", lambda: False)
    agent.add_message(DataMessageBody(data={"number": 1}), timestamp=NOW)
    [item] = agent.get_n_latest_messages(1)
    assert item.timestamp == NOW and "clock_synchronised" not in item.message_body.model_dump()


def test_without_an_archive_messages_stay_for_a_while_and_are_counted_then(
    agent: MessagingAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    ARCHIVE_DIR.write_text("a file where the directory should be")
    add(agent, 1, 2)
    with pytest.raises(Exception, match="archive takes no messages"):
        agent.remove_messages([1, 2])
    assert numbers(agent) == [1, 2]
    monkeypatch.setattr(store, "SECONDS_WITHOUT_ARCHIVE", -1)
    agent.remove_messages([1, 2])
    assert numbers(agent) == []
    assert queue_file.execute("SELECT * FROM DROPPED") == [("archive", 2, 0)]
    ARCHIVE_DIR.unlink()
    add(agent, 3)
    assert archived() == [3]


def test_without_an_archive_messages_cost_no_more_where_many_wait(
    agent: MessagingAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    ARCHIVE_DIR.write_text("a file where the directory should be")
    monkeypatch.setattr(store, "MUCH", 1)
    looks: list[int] = []
    real = contents.size_of_following

    def look(connection: sqlite3.Connection, number: int) -> int:
        looks.append(number)
        return real(connection, number)

    monkeypatch.setattr(contents, "size_of_following", look)
    add(agent, *range(10))
    assert len(looks) == 1
    ARCHIVE_DIR.unlink()
    monkeypatch.setattr(time, "monotonic", lambda now=time.monotonic: now() + store.SECONDS_BETWEEN_TRIES)
    add(agent, 10)
    assert archived() == list(range(11))


def test_an_archive_that_is_back_is_tried_before_anything_is_given_up(
    agent: MessagingAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    ARCHIVE_DIR.write_text("a file where the directory should be")
    monkeypatch.setattr(store, "MUCH", 1)
    monkeypatch.setattr(store, "SECONDS_WITHOUT_ARCHIVE", 0.0)
    add(agent, *range(3))
    ARCHIVE_DIR.unlink()
    agent.remove_messages([agent.get_n_latest_messages(1, set())[0].identifier])
    assert archived() == [0, 1, 2]


@pytest.mark.parametrize("name", ["text", "overflow", "nothing"])
def test_what_somebody_wrote_beside_the_messages_harms_nobody(agent: MessagingAgent, name: str) -> None:
    add(agent, 1)
    statement = {
        "text": "INSERT OR REPLACE INTO MARKS VALUES ('archived', 'no number')",
        "overflow": f"INSERT OR REPLACE INTO MARKS VALUES ('archived', {(1 << 63) - 1})",
        "nothing": "DELETE FROM MARKS",
    }[name]
    queue_file.execute(statement)
    queue_file.execute("INSERT INTO QUEUE (timestamp, message_body) VALUES ('late', x'00ff')")
    add(agent, 2)
    found = [item for item in agent.get_n_latest_messages(9) if item.message_body.variant == "data"]
    assert len(found) >= 1  # the first may be salvaged later
    agent.remove_messages([item.identifier for item in found])


def test_what_somebody_made_of_lock_and_note_harms_nobody(agent: MessagingAgent) -> None:
    add(agent, 1)
    for path in (MESSAGE_ARCHIVE_DIR_LOCK, f"{Path(MESSAGE_ARCHIVE_DIR).parent}/run/last-message"):
        for make in (os.mkdir, os.mkfifo, lambda path: os.symlink("/dev/zero", path)):
            os.unlink(path) if os.path.isfile(path) or os.path.islink(path) else None
            os.rmdir(path) if os.path.isdir(path) else None
            make(path)
            other = MessagingAgent()
            add(other, 2)
            other.teardown()
    assert len(numbers(agent)) == len(archived()) == 7


def test_without_room_for_the_note_the_disk_takes_messages_all_the_same(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    no_directory = f"{Path(MESSAGE_ARCHIVE_DIR).parent}/no-directory"
    Path(no_directory).touch()
    monkeypatch.setattr(constants, "IVY_RUN_DIR", no_directory)
    agent, other = MessagingAgent(), MessagingAgent()
    add(agent, 1, 2)
    add(other, 3)
    add(agent, 4)
    assert numbers(agent) == archived() == [1, 2, 3, 4] and min(latest(agent)) > 0
    assert "lost" not in capfd.readouterr().err
    agent.teardown()
    other.teardown()


def test_a_note_that_memory_does_not_take_costs_no_message(
    agent: MessagingAgent, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    add(agent, 1)
    monkeypatch.setattr(os, "pwrite", refuse)
    add(agent, 2, 3)
    assert numbers(agent) == archived() == [1, 2, 3] and min(latest(agent)) > 0
    assert capfd.readouterr().err == ""


HOLD = """
import fcntl, sys
file = open(sys.argv[1], "a")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
input()
"""


def test_who_waits_for_the_lock_of_a_stopped_process_goes_on_when_that_is_killed(
    agent: MessagingAgent, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "SECONDS_TO_WAIT", 60)
    holder = node.start("-c", HOLD, MESSAGE_ARCHIVE_DIR_LOCK)
    assert holder.stdout and holder.stdout.readline() == "held\n"
    holder.send_signal(signal.SIGSTOP)
    heartbeats: list[None] = []
    monkeypatch.setattr("ivy.utils.notify.heartbeat", lambda: heartbeats.append(None))
    writer = threading.Thread(target=add, args=[agent, 1])
    writer.start()
    wait_until(lambda: len(heartbeats) >= 3)
    assert writer.is_alive()
    holder.kill()
    writer.join(80)
    assert numbers(agent) == archived() == [1]


@contextlib.contextmanager
def another_disk() -> Iterator[None]:
    """Mounted over the data, with the same messages: it was there at an earlier boot."""
    data = Path(constants.IVY_DATA_DIR)
    assert os.stat("/dev/shm").st_dev != data.stat().st_dev
    with tempfile.TemporaryDirectory(dir="/dev/shm") as other:
        shutil.copytree(data, other, dirs_exist_ok=True)
        beneath = data.rename(f"{data}.beneath")
        data.symlink_to(other)
        try:
            yield
        finally:
            data.unlink()
            beneath.rename(data)


def test_what_lies_beneath_a_disk_that_is_mounted_over_it_is_queued_there(
    agent: MessagingAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nobody removes messages of the new disk by the numbers of those beneath."""
    monkeypatch.setattr(messaging_agent, "SECONDS_BETWEEN_TRIES", 0)
    add(agent, 1, 2, 3)
    agent.remove_messages([1])
    with another_disk():
        for _ in range(2):  # as when the backend stops
            with pytest.raises(errors.OtherDisk):
                agent.remove_messages([2])
        assert numbers(agent) == [2, 3]
        add(agent, 4, 5)
        assert sorted(numbers(agent)) == [2, 2, 3, 3, 4, 5]
        assert {2, 3, 4, 5} <= set(archived())
        assert agent.database.beneath is None
    with contextlib.suppress(errors.OtherDisk):
        agent.get_queue_length()
    assert numbers(agent) == []


def test_a_backend_that_reads_on_removes_nothing_of_the_new_disk(agent: MessagingAgent) -> None:
    """What waits in memory meanwhile hides from it that the disk is another one."""
    backend = MessagingAgent()
    add(agent, 1, 2)
    under_way = latest(backend)
    with another_disk():
        add(agent, 3)
        assert [identifier for identifier in latest(backend) if identifier > 0] == []
        with pytest.raises(errors.OtherDisk):
            backend.remove_messages(under_way)
        assert under_way == [identifier for identifier in latest(backend) if identifier > 0]
        backend.teardown()
    with contextlib.suppress(errors.OtherDisk):
        agent.get_queue_length()


def test_what_the_archive_of_the_new_disk_lacks_is_appended_whatever_was_noted_beneath(
    agent: MessagingAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is late after a power cut, mostly, which took the end of its archive."""
    monkeypatch.setattr(messaging_agent, "SECONDS_BETWEEN_TRIES", 0)
    add(agent, 1, 2, 3)
    with another_disk():
        queue_file.execute("UPDATE QUEUE SET message_body = replace(message_body, 'number\":', 'number\":1')")
        queue_file.execute("UPDATE MARKS SET number = 0")
        Path(agent.get_message_archive_file()).unlink()
        add(agent, 4, 5)
        assert set(archived()) == {1, 2, 3, 4, 5, 11, 12, 13}
    with contextlib.suppress(errors.OtherDisk):
        agent.get_queue_length()


def test_a_message_is_added_under_the_lock(agent: MessagingAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else two processes that find a new file would both begin it with a header."""
    real = os.write

    def write(descriptor: int, data: bytes) -> int:
        with open(MESSAGE_ARCHIVE_DIR_LOCK, "a") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", write)
    add(agent, 1)
    assert archived() == [1]


def test_what_1_0_adds_after_a_rollback_is_in_both_places_once(
    agent: MessagingAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gives numbers again, and syncs the archive by itself."""
    add(agent, 1, 2)
    agent.remove_messages([1, 2])
    appender = archive.Appender()
    for number in (3, 4):
        body = DataMessageBody(data={"number": number}).model_dump_json()
        now = time.time()
        queue_file.execute("INSERT INTO QUEUE (timestamp, message_body) VALUES (?, ?)", (now, body))
        appender.append(agent.get_message_archive_file(), archive.line(now, body))
    appender.close()
    add(agent, 5)
    assert numbers(agent) == [3, 4, 5] and archived() == [1, 2, 3, 4, 5]
    cut_power(agent, monkeypatch, "another")
    booted = MessagingAgent()
    add(booted, 6)
    assert numbers(booted) == [3, 4, 5, 6] and archived() == [1, 2, 3, 4, 5, 6]
    booted.teardown()


def test_troubles_far_apart_are_not_one(agent: MessagingAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend writes no lines, by which it would learn that the archive is well again."""
    backend = MessagingAgent()
    add(agent, 1, 2, 3)
    real, now = archive.sync, time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)

    def fail(_: str) -> None:
        raise OSError(errno.EIO, "sick")

    for number in (1, 4):
        monkeypatch.setattr(archive, "sync", fail)
        with pytest.raises(OSError):
            backend.store.remove([number])
        monkeypatch.setattr(archive, "sync", real)
        backend.store.remove([number])
        now += 3600
        add(agent, 10 + number)
    assert numbers(agent) == [2, 3, 14]
    backend.teardown()


def test_a_day_that_is_no_file_is_replaced_also_after_a_boot(
    agent: MessagingAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(agent, 1)
    cut_power(agent, monkeypatch, "another")
    day = Path(agent.get_message_archive_file())
    day.unlink()
    os.mkfifo(day)
    booted = MessagingAgent()
    add(booted, 2)
    assert archived() == [1, 2]
    booted.teardown()


def test_what_is_dropped_before_the_archive_has_it_is_counted_as_lost_there(
    agent: MessagingAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(agent, *range(10))
    agent.keep_durable()

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(archive.Appender, "append", fail)
    for number in range(10, 1000):
        agent.add_message(DataMessageBody(data={"number": number, "text": "x" * 1000}))
    config = QueueConfig(max_megabytes=1)
    dropped = bounds.enforce(config, agent.database, free=10**9)["data"]
    counts = agent.database.run(contents.dropped)
    assert counts["data"] == dropped > 100 and counts["archive"] == dropped - 10


@pytest.mark.parametrize("when", ["just before the wait", "when the lock was given"])
def test_an_alarm_that_comes_at_a_bad_instant_leaves_nobody_waiting(
    agent: MessagingAgent, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    real_timer, real_signal, calls = signal.setitimer, signal.signal, 0

    def be_ignored(number: int, handler: Any) -> Any:
        def handle(*arguments: Any) -> None:
            nonlocal calls
            calls += 1
            if calls > 1:
                handler(*arguments)

        return real_signal(number, handle)

    def be_late(which: int, seconds: float, interval: float = 0) -> tuple[float, float]:
        nonlocal calls
        calls += 1
        if calls == 2:  # the lock is held
            raise TimeoutError
        return real_timer(which, seconds, interval)

    lock = os.open(MESSAGE_ARCHIVE_DIR_LOCK, os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    release = threading.Timer(60 if when == "just before the wait" else 0.2, fcntl.flock, [lock, fcntl.LOCK_UN])
    release.start()
    if when == "just before the wait":
        monkeypatch.setattr(signal, "signal", be_ignored)
    else:
        monkeypatch.setattr(signal, "setitimer", be_late)
    turns = Turns(MESSAGE_ARCHIVE_DIR_LOCK, os.path.join(constants.IVY_RUN_DIR, "last-message"))
    began = time.monotonic()
    with contextlib.suppress(TimeoutError), turns.take(0.5):
        pass
    assert time.monotonic() - began < 30
    release.cancel()
    release.join()
    fcntl.flock(lock, fcntl.LOCK_UN)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # nobody else holds it
    os.close(lock)
    turns.close()


def test_whatever_becomes_of_a_change_that_needs_no_sync_the_next_one_has_its_own(agent: MessagingAgent) -> None:
    def fail(_: sqlite3.Connection) -> None:
        raise sqlite3.IntegrityError("no")

    with pytest.raises(sqlite3.IntegrityError):
        agent.database.transaction(fail, is_synced=False)
    assert agent.database.execute("PRAGMA synchronous") == [(2,)]  # FULL
    agent.database.transaction(lambda _: None, is_synced=False)
    assert agent.database.execute("PRAGMA synchronous") == [(2,)]
