"""A damaged queue is replaced by one with all that can be read, and every process goes on with that."""

import contextlib
import errno
import math
import os
import random
import shutil
import sqlite3
import struct
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from ivy.types.messages import DataMessageBody, LogMessageBody, MessageQueueItem
from ivy.utils.host import clock, mounts
from ivy.utils.messaging_agent import ACTIVE_QUEUE_FILE, MessagingAgent
from ivy.utils.storage import aside, ballast, page_scan, salvage, schema
from ivy.utils.storage.archive import Appender
from ivy.utils.storage.store import Store
from tests.support import queue_file
from tests.support.helpers import DATA_DIR, Node
from tests.support.queue_file import QUEUE, rot


def fill(chance: random.Random) -> dict[int, str]:
    """Queue up to 600 messages, some of them of several pages. Returns their bodies."""
    bodies = {}
    for number in range(1, chance.randint(2, 600)):
        length = chance.randint(3000, 20_000) if chance.random() < 0.03 else chance.randint(0, 60)
        bodies[number] = DataMessageBody(data={"number": number, "text": "x" * length}).model_dump_json()
    queue_file.plant((number, 1.5 + number, body) for number, body in bodies.items())
    return bodies


def readable(bodies: dict[int, str], directory: Path) -> set[int]:
    """The messages that SQLite itself can still read, one by one, from a copy."""
    for file in DATA_DIR.glob(f"{QUEUE.name}*"):
        shutil.copy(file, directory / file.name)
    (directory / f"{QUEUE.name}-shm").unlink(missing_ok=True)
    database = sqlite3.connect(directory / QUEUE.name)
    database.text_factory = bytes
    found = set()
    for number, body in bodies.items():
        try:
            rows = database.execute("SELECT message_body FROM QUEUE WHERE internal_id = ?", (number,)).fetchall()
            found |= {number} if rows == [(body.encode(),)] else set()
        except (sqlite3.DatabaseError, UnicodeDecodeError):  # of a schema that rotted, the latter
            continue
    database.close()
    return found


def damage(chance: random.Random) -> None:
    """Truncate the file, or overwrite it or its log at random places with noise or zeros."""
    log = Path(f"{QUEUE}-wal")
    files = [QUEUE, QUEUE, log] if log.exists() and log.stat().st_size else [QUEUE]
    file = chance.choice(files)
    size = file.stat().st_size
    with file.open("r+b") as stream:
        if chance.random() < 0.3:
            stream.truncate(chance.randrange(size))
            return
        for _ in range(chance.randint(1, 3)):
            stream.seek(0 if chance.random() < 0.1 else chance.randrange(size))
            length = chance.choice([1, 100, 2048, 5000, 20_000])
            stream.write(chance.randbytes(length) if chance.random() < 0.6 else bytes(length))


def salvage_now(agent: MessagingAgent) -> None:
    """What the unit does that does it in the background."""
    agent.get_oldest_timestamp()  # finds the damage
    salvage.work(ACTIVE_QUEUE_FILE, agent.store)


def drain(agent: MessagingAgent) -> list[MessageQueueItem]:
    """Take everything out of the queue as a backend does."""
    drained: list[MessageQueueItem] = []
    while items := agent.get_n_latest_messages(50):
        drained += items
        agent.remove_messages([item.identifier for item in items])
        assert len(drained) < 5000, "the same messages come again and again"
    return drained


def data(items: list[MessageQueueItem]) -> list[DataMessageBody]:
    """The data among messages."""
    return [item.message_body for item in items if isinstance(item.message_body, DataMessageBody)]


def logs(items: list[MessageQueueItem]) -> list[str]:
    """The subjects of the logs among messages."""
    return [item.message_body.subject for item in items if isinstance(item.message_body, LogMessageBody)]


# In the last four, SQLite itself gives a new message the number of another.
@pytest.mark.parametrize("seed", [*range(60), 69, 70, 85, 194])
def test_nothing_is_lost_that_sqlite_can_read(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    agent = MessagingAgent()
    bodies = fill(chance)
    if is_open := chance.random() < 0.5:
        if chance.random() < 0.5:
            queue_file.checkpoint()
    else:
        agent.teardown()
    damage(chance)
    wanted = readable(bodies, tmp_path)
    if not is_open:
        agent = MessagingAgent()
    agent.add_message(DataMessageBody(data={"new": 1}))
    drained = drain(agent)  # where damage may be found later
    salvage.work(ACTIVE_QUEUE_FILE, agent.store)
    drained += drain(agent)
    texts = [body.model_dump_json() for body in data(drained)]
    assert {bodies[number] for number in wanted} <= set(texts)
    assert DataMessageBody(data={"new": 1}).model_dump_json() in texts
    assert len(texts) <= len(set(texts)) + 50  # what was on its way when damage was found in its rows
    agent.teardown()


def destroy() -> None:
    """Make it no database any more, without touching the pages with messages."""
    with QUEUE.open("r+b") as file:
        file.write(b"no database" * 50)


@pytest.fixture
def damaged(agent: MessagingAgent) -> list[int]:
    """A queue without a usable first page; the numbers that are in it."""
    fill(random.Random(1))
    found = [int(body.data["number"]) for body in data(agent.get_n_latest_messages(10_000))]
    queue_file.checkpoint()
    agent.database.close()
    destroy()
    return found


def queued(agent: MessagingAgent) -> list[int]:
    """The numbers in a queue."""
    return [int(body.data["number"]) for body in data(agent.get_n_latest_messages(10_000))]


def test_pages_are_read_where_sqlite_reads_nothing(agent: MessagingAgent, damaged: list[int]) -> None:
    salvage_now(agent)
    assert queued(agent) == damaged and len(damaged) > 50


def test_it_is_reported_and_the_damaged_file_kept(
    agent: MessagingAgent, damaged: list[int], capfd: pytest.CaptureFixture[str]
) -> None:
    agent.get_oldest_timestamp()
    [found] = logs(agent.get_n_latest_messages(10))
    assert found.startswith("queue - ERROR - The message queue was damaged: a new one is used")
    salvage_now(agent)
    text = f"The message queue was damaged: {len(damaged)} messages salvaged"
    assert logs(agent.get_n_latest_messages(10_000))[1:] == [f"queue - WARNING - {text}"]
    [kept] = aside.damaged_files(ACTIVE_QUEUE_FILE)
    assert Path(kept).read_bytes().startswith(b"no database")
    errors = capfd.readouterr().err
    assert errors.count("is damaged (") == errors.count("messages salvaged") == 1


def test_what_was_dropped_is_still_known(agent: MessagingAgent) -> None:
    fill(random.Random(1))
    queue_file.execute("INSERT INTO DROPPED VALUES ('data', 7, 3)")
    agent.database.close()  # with what it remembers
    with QUEUE.open("r+b") as file:  # the first page and the tables' roots are needed to know it
        file.truncate(QUEUE.stat().st_size - schema.PAGE_SIZE)
    drain(agent)
    salvage.work(ACTIVE_QUEUE_FILE, agent.store)
    assert aside.damaged_files(ACTIVE_QUEUE_FILE)
    assert queue_file.execute("SELECT variant, count FROM DROPPED") == [("data", 7)]


def test_numbers_on_their_way_are_not_given_to_new_messages(agent: MessagingAgent, damaged: list[int]) -> None:
    last = max(damaged)
    agent.add_message(DataMessageBody(data={"number": 0}))
    newest = agent.get_n_latest_messages(1)[0]
    assert newest.identifier > last
    salvage_now(agent)
    assert queued(agent) == [*damaged, 0]


@pytest.mark.parametrize("is_readable", [True, False])
def test_nor_where_the_archive_is_behind(
    agent: MessagingAgent, monkeypatch: pytest.MonkeyPatch, is_readable: bool
) -> None:
    """What is known of the numbers without the queue is how far the archive goes."""
    agent.add_message(DataMessageBody(data={"number": 1}))
    with monkeypatch.context() as patch:
        patch.setattr(Appender, "append", fail)
        for number in range(2, 100):
            agent.add_message(DataMessageBody(data={"number": number}))
    under_way = [item.identifier for item in agent.get_n_latest_messages(100)]
    agent.database.close()
    if is_readable:
        queue_file.execute("DROP TABLE MARKS")
        queue_file.execute("CREATE TABLE MARKS (other)")
        queue_file.checkpoint()
    else:
        destroy()
    agent.add_message(DataMessageBody(data={"number": 100}))
    agent.remove_messages(under_way)
    assert queued(agent) == [100]
    salvage.work(ACTIVE_QUEUE_FILE, agent.store)
    assert [item.identifier for item in agent.get_n_latest_messages(1000)][: len(under_way)] == under_way


def fail(*_: object) -> None:
    raise OSError(errno.EIO, "sick")


def test_only_the_newest_damaged_files_are_kept(agent: MessagingAgent) -> None:
    for _ in range(5):
        agent.get_oldest_timestamp()
        agent.database.close()
        destroy()
    salvage_now(agent)
    assert len(aside.damaged_files(ACTIVE_QUEUE_FILE)) == 3


def test_others_that_hold_the_old_file_go_on_with_the_new_one(agent: MessagingAgent) -> None:
    other = MessagingAgent()
    other.add_message(DataMessageBody(data={"number": 1}))
    queue_file.checkpoint()
    aside.move_aside(ACTIVE_QUEUE_FILE, "damage", 0)  # what one of them does when it finds damage
    salvage.work(ACTIVE_QUEUE_FILE, agent.store)
    other.add_message(DataMessageBody(data={"number": 2}))
    other.teardown()  # must not take the new file's log along
    assert queued(agent) == [1, 2]
    third = MessagingAgent()
    assert queued(third) == [1, 2]
    third.teardown()


ADD = """
import sys
from ivy.types.messages import DataMessageBody
from ivy.utils.messaging_agent import MessagingAgent
agent = MessagingAgent()
print("ready", flush=True)
for line in sys.stdin:
    agent.add_message(DataMessageBody(data={"number": int(line)}))
    print("added", flush=True)
"""


@pytest.mark.slow
def test_many_processes_one_of_which_salvages(node: Node, agent: MessagingAgent) -> None:
    processes = [node.start("-c", ADD) for _ in range(4)]
    agent.add_message(DataMessageBody(data={"number": -1}))
    for process in processes:
        assert process.stdout and process.stdout.readline() == "ready\n"
    queue_file.checkpoint()
    QUEUE.write_bytes(b"no database" * 50 + QUEUE.read_bytes()[550:])
    for number, process in enumerate(processes):
        assert process.stdin
        process.stdin.write("".join(f"{100 * number + count}\n" for count in range(20)))
        process.stdin.flush()
    for process in processes:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
    expected = {-1} | {100 * number + count for number in range(4) for count in range(20)}
    salvage_now(agent)
    assert set(queued(agent)) == expected
    assert len(aside.damaged_files(ACTIVE_QUEUE_FILE)) <= 1


def disk_with(free_bytes: float) -> mounts.Disk:
    return mounts.Disk(0, int(free_bytes), 0, None, False)


def test_evidence_makes_room_for_a_salvage(
    agent: MessagingAgent, damaged: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2):
        Path(f"{ACTIVE_QUEUE_FILE}.damaged-100000000{number}").touch()
    ballast.keep(free=4 * ballast.SIZE)
    size = QUEUE.stat().st_size

    def free(_: str) -> mounts.Disk:
        return disk_with(size * (1.3 - 0.1 * len(aside.damaged_files(ACTIVE_QUEUE_FILE))))

    monkeypatch.setattr(mounts, "disk", free)
    monkeypatch.setattr(schema, "ROOM_TO_OPEN", 0)
    salvage_now(agent)
    assert queued(agent) == damaged
    kept = aside.damaged_files(ACTIVE_QUEUE_FILE)
    assert len(kept) == 2 and kept[0].endswith(".damaged-1000000002")
    assert Path(ballast.BALLAST_FILE).exists()


def test_where_there_is_no_room_for_all_the_oldest_go(
    agent: MessagingAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = '{"variant":"data","data":{"number":%d}}'
    queue_file.plant((number, 1.5, body % number) for number in range(1, 10_001))
    agent.database.close()
    destroy()
    ballast.keep(free=4 * ballast.SIZE)
    size = QUEUE.stat().st_size
    monkeypatch.setattr(mounts, "disk", lambda _: disk_with(size // 2))
    salvage_now(agent)
    numbers = queued(agent)
    assert len(numbers) == pytest.approx(4500, abs=200)
    assert numbers == list(range(10_001 - len(numbers), 10_001))
    assert queue_file.execute("SELECT variant, count FROM DROPPED") == [("data", 10_000 - len(numbers))]
    assert "oldest dropped for lack of room" in logs(agent.get_n_latest_messages(1))[0]
    assert not Path(ballast.BALLAST_FILE).exists()


@pytest.mark.parametrize("place", range(4))
def test_a_damaged_queue_that_was_being_moved_is_found(
    agent: MessagingAgent, damaged: list[int], monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    Path(f"{ACTIVE_QUEUE_FILE}-wal").write_bytes(b"whatever")
    renames = 0
    real: Callable[..., None] = os.rename

    def rename(*names: str) -> None:
        nonlocal renames
        renames += 1
        if renames > place:
            raise KeyboardInterrupt  # as sudden as a power cut
        real(*names)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", rename)
        with contextlib.suppress(KeyboardInterrupt):
            agent.get_oldest_timestamp()
    agent.database.close()
    salvage_now(agent)
    assert queued(agent) == damaged
    assert len(aside.damaged_files(ACTIVE_QUEUE_FILE)) == 1
    assert {path.name.partition(".sqlite3")[2].partition("-1")[0] for path in DATA_DIR.glob(f"{QUEUE.name}*")} <= {
        *("", "-wal", "-shm", ".lock", ".damaged")
    }


def test_what_was_left_of_a_move_joins_its_own_queue(
    agent: MessagingAgent, damaged: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not one that waits for its salvage already, whatever the clock says."""
    agent.get_oldest_timestamp()
    [first] = aside.waiting(ACTIVE_QUEUE_FILE)
    Path(f"{first}-wal").write_bytes(b"the first one's")
    agent.database.close()
    monkeypatch.setattr("time.time", lambda: 1000.5)  # another boot
    aside.keep(ACTIVE_QUEUE_FILE, aside.unused_name(f"{ACTIVE_QUEUE_FILE}.aside"))  # killed after the first rename
    Path(f"{ACTIVE_QUEUE_FILE}-wal").write_bytes(b"the second one's")
    aside.finish_moving(ACTIVE_QUEUE_FILE)
    assert len(aside.waiting(ACTIVE_QUEUE_FILE)) == 2
    assert Path(f"{first}-wal").read_bytes() == b"the first one's"
    assert Path(f"{aside.waiting(ACTIVE_QUEUE_FILE)[1]}-wal").read_bytes() == b"the second one's"


@pytest.mark.parametrize("place", range(0, 20, 3))
def test_a_salvage_that_was_killed_goes_on_and_repeats_nothing(
    agent: MessagingAgent, monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    body = '{"variant":"data","data":{"number":%d}}'
    queue_file.plant((number, 1.5, body % number) for number in range(1, 3001))
    agent.database.close()
    destroy()
    agent.get_oldest_timestamp()
    calls = 0
    real = Store.put_salvaged

    def put(self: Store, *arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls > place:
            raise KeyboardInterrupt
        real(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "put_salvaged", put)
        with contextlib.suppress(KeyboardInterrupt):
            salvage.work(ACTIVE_QUEUE_FILE, agent.store)
    sent = drain(agent)
    salvage_now(agent)
    numbers = [int(body.data["number"]) for body in data(sent + drain(agent))]
    assert sorted(numbers) == list(range(1, 3001))


def test_what_a_power_cut_took_from_the_archive_comes_back_from_a_damaged_queue(
    agent: MessagingAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It damages both, if anything does."""
    for number in range(1, 5):
        agent.add_message(DataMessageBody(data={"number": number}))
        if number == 2:
            agent.keep_durable()
    agent.teardown()
    monkeypatch.setattr(clock, "boot_id", lambda: "another")
    day = Path(agent.get_message_archive_file())
    day.write_text("".join(day.read_text().splitlines(keepends=True)[:4]))  # the header, 1, 2, 3
    queue_file.execute("DROP TABLE ONCE")
    queue_file.execute("CREATE TABLE ONCE (other)")
    booted = MessagingAgent()
    for number in range(5, 100):
        booted.add_message(DataMessageBody(data={"number": number, "text": "x" * 1000}))
    for _ in range(2):
        salvage.work(ACTIVE_QUEUE_FILE, booted.store)
    assert sorted(queued(booted)) == list(range(1, 100))
    archived = [item.message_body for item in booted.load_message_archive(date.fromisoformat(day.stem))]
    numbers = [int(body.data["number"]) for body in archived if isinstance(body, DataMessageBody)]
    assert sorted(numbers) == list(range(1, 100))
    booted.teardown()


def test_how_far_a_salvage_came_does_not_count_for_the_next_one(
    agent: MessagingAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was killed when all was done, but for forgetting that."""
    for number in (1, 2):
        agent.add_message(DataMessageBody(data={"number": number}))
        agent.database.close()
        destroy()
        agent.get_oldest_timestamp()

    def be_killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Store, "forget_salvages", be_killed)
        salvage.work(ACTIVE_QUEUE_FILE, agent.store)
    salvage.work(ACTIVE_QUEUE_FILE, agent.store)
    assert sorted(queued(agent)) == [1, 2]
    assert queue_file.execute("SELECT name FROM MARKS") == [("archived",)]


def test_what_1_0_was_salvaging_is_salvaged(agent: MessagingAgent, damaged: list[int]) -> None:
    os.rename(QUEUE, schema.salvaging_path(ACTIVE_QUEUE_FILE))
    agent.add_message(DataMessageBody(data={"number": 0}))
    salvage_now(agent)
    assert sorted(queued(agent)) == [0, *damaged]


def test_whoever_finds_damage_goes_on_at_once(agent: MessagingAgent, damaged: list[int]) -> None:
    agent.add_message(DataMessageBody(data={"number": 0}))
    assert queued(agent) == [0] and agent.get_spare_length() == 0
    assert len(aside.waiting(ACTIVE_QUEUE_FILE)) == 1


def test_a_log_that_is_not_whole_is_read_as_sqlite_does(agent: MessagingAgent, tmp_path: Path) -> None:
    fill(random.Random(3))
    agent.add_message(DataMessageBody(data={"number": -1}))
    size = Path(f"{ACTIVE_QUEUE_FILE}-wal").stat().st_size
    for length in (40, 3000, 9000, size * 2 // 3):
        for suffix in ("", "-wal"):
            shutil.copy(f"{ACTIVE_QUEUE_FILE}{suffix}", tmp_path / f"copy{suffix}")
        os.truncate(tmp_path / "copy-wal", size - length)
        scanned = {row[0] for row in page_scan.rows(str(tmp_path / "copy"))}
        database = sqlite3.connect(tmp_path / "copy")
        exists = database.execute("SELECT COUNT(*) FROM sqlite_schema WHERE name = 'QUEUE'").fetchone()[0]
        wanted = {row[0] for row in database.execute("SELECT internal_id FROM QUEUE")} if exists else set()
        database.close()
        assert scanned == wanted


def test_what_was_added_behind_damage_in_the_log_is_salvaged(agent: MessagingAgent) -> None:
    for number in range(100):
        agent.add_message(DataMessageBody(data={"number": number}))
    with open(f"{ACTIVE_QUEUE_FILE}-wal", "r+b") as log:
        log.seek(os.path.getsize(log.name) // 2)
        log.write(b"noise" * 100)
    aside.move_aside(ACTIVE_QUEUE_FILE, "damage", 100)
    salvage_now(agent)
    assert sorted(queued(agent)) == list(range(100))


def test_two_messages_of_the_same_number_are_both_salvaged(agent: MessagingAgent) -> None:
    for number in range(3):
        agent.add_message(DataMessageBody(data={"number": number}))
    queue_file.checkpoint()
    agent.database.close()
    page = QUEUE.read_bytes()
    for old, new in ((b"\x03\x04", b"\x02\x04"), (b"\x01\x04", b"\x00\x04")):  # identifier, size of the header
        page = page.replace(old, new)
    QUEUE.write_bytes(page)
    queued(agent)
    salvage_now(agent)
    assert sorted(queued(agent)) == [0, 1, 2]
    assert aside.damaged_files(ACTIVE_QUEUE_FILE)


@pytest.mark.parametrize("number", [-5, 0, 1 << 60, 1 << 62])
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE QUEUE SET internal_id = ? WHERE internal_id = 2",
        "UPDATE MARKS SET number = ? WHERE name = 'archived'",
    ],
)
def test_numbers_that_none_was_given_make_no_message_come_for_ever(
    agent: MessagingAgent, number: int, statement: str
) -> None:
    for text in range(2):
        agent.add_message(DataMessageBody(data={"number": text}))
    queue_file.execute(statement, (number,))
    agent.add_message(DataMessageBody(data={"number": 2}))
    queued(agent)
    salvage_now(agent)
    assert sorted(body.data["number"] for body in data(drain(agent))) == [0, 1, 2]


@pytest.mark.parametrize(
    ("timestamp", "is_salvaged"),
    [
        (math.nan, True),  # SQLite takes it for NULL, and finds damage
        *((timestamp, how) for timestamp in (math.inf, -math.inf, 1e300, -1.0) for how in (True, False)),
    ],
)
def test_a_timestamp_that_rotted_costs_no_message(
    agent: MessagingAgent, timestamp: float, is_salvaged: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time", lambda: 1.5)
    agent.add_message(DataMessageBody(data={"number": 1}))
    queue_file.checkpoint()
    agent.database.close()
    body = b'{"variant":"data"'
    rot(struct.pack(">d", 1.5) + body, struct.pack(">d", timestamp) + body)
    if is_salvaged:
        destroy()
    agent.get_n_latest_messages(9)
    salvage_now(agent)
    [item] = [item for item in agent.get_n_latest_messages(9) if item.message_body.variant == "data"]
    assert item.timestamp == 0
    assert agent.get_oldest_timestamp() == 0


def test_a_name_that_rotted_is_damage_too(agent: MessagingAgent) -> None:
    """Python cannot decode what SQLite says of it."""
    agent.add_message(DataMessageBody(data={"number": 1}))
    agent.database.run(schema.make_index)
    queue_file.checkpoint()
    agent.database.close()
    rot(b"indexQUEUE_VARIANTS", b"index" + b"\xff" * 14)
    rot(b"CREATE INDEX QUEUE_VARIANTS", b"\xff" * 27)
    salvage_now(agent)
    assert queued(agent) == [1]
    assert aside.damaged_files(ACTIVE_QUEUE_FILE)


def test_counts_that_rotted_stop_no_salvage(agent: MessagingAgent) -> None:
    agent.add_message(DataMessageBody(data={"number": 1}))
    queue_file.execute("INSERT INTO DROPPED VALUES ('data', 7000, 3)")
    queue_file.checkpoint()
    agent.database.close()
    rot(b"\x04\x15\x02\x01data", b"\x04\x15\x00\x03data")  # the count is NULL
    aside.move_aside(ACTIVE_QUEUE_FILE, "damage", 1)
    salvage_now(agent)
    assert queued(agent) == [1]


def test_a_salvage_that_fails_is_told_and_not_tried_for_ever(
    agent: MessagingAgent, damaged: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: str) -> Iterator[page_scan.Row]:
        yield 1, 1.5, b'{"variant":"data","data":{"number":1}}'
        raise OverflowError("nobody thought of this")

    monkeypatch.setattr(page_scan, "rows", fail)
    salvage_now(agent)
    assert "OverflowError" in logs(agent.get_n_latest_messages(1))[0]
    [kept] = aside.damaged_files(ACTIVE_QUEUE_FILE)
    assert Path(kept).read_bytes().startswith(b"no database")


def test_a_salvage_that_lacks_room_is_tried_again(
    agent: MessagingAgent, damaged: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(page_scan, "rows", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(OSError, match="No space left"):
            salvage_now(agent)
    salvage_now(agent)
    assert queued(agent) == damaged
