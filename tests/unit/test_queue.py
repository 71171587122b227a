"""`ivy.utils.messaging_agent`: the queue's contract. What only the host can show is in `tests/system`."""

import datetime
import json
import os
import select
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ivy.types.messages import DataMessageBody
from ivy.utils import notify
from ivy.utils.host import clock, mounts, signals
from ivy.utils.host.locks import file_lock
from ivy.utils.messaging_agent import ACTIVE_QUEUE_FILE, MessagingAgent
from ivy.utils.storage import database as queue_database
from ivy.utils.storage import errors, schema
from ivy.utils.storage.doorbell import Doorbell, Listener
from tests.support import queue_file
from tests.support.helpers import ARCHIVE_DIR, DATA_DIR, Node, all_go, wait_until


def body(number: int) -> DataMessageBody:
    """A message that can be told from others."""
    return DataMessageBody(data={"number": number})


def numbers(agent: MessagingAgent, n: int = 1_000_000, excluded: list[int] | None = None) -> list[int]:
    """What is in the queue."""
    items = agent.get_n_latest_messages(n, excluded or [])
    return [item.message_body.data["number"] for item in items if item.message_body.variant == "data"]  # type: ignore[misc]


def archived() -> list[int]:
    """What is in the archive: of all days, as it may be midnight."""
    days = sorted(ARCHIVE_DIR.glob("*.csv"))
    found = [MessagingAgent.load_message_archive(datetime.date.fromisoformat(day.stem)) for day in days]
    items = [item for each in found for item in each]
    return [item.message_body.data["number"] for item in items if item.message_body.variant == "data"]  # type: ignore[misc]


def connection(agent: MessagingAgent) -> sqlite3.Connection:
    """The connection that a queue uses."""
    assert agent.database.connection is not None
    return agent.database.connection


@pytest.fixture
def database(agent: MessagingAgent) -> Iterator[sqlite3.Connection]:
    """A connection of somebody else to the queue."""
    database = sqlite3.connect(ACTIVE_QUEUE_FILE, timeout=0, isolation_level=None)
    yield database
    database.close()


def fill(database: sqlite3.Connection, length: int) -> None:
    """Make the queue this long, at once."""
    database.execute("DELETE FROM QUEUE")
    database.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
        """ INSERT INTO QUEUE SELECT i, i, '{"variant":"data","data":{"number":' || i || '}}' FROM n""",
        (length,),
    )
    queue_file.count_as_archived(database)


def test_where_it_is() -> None:
    assert f"{DATA_DIR}/active-message-queue.sqlite3" == ACTIVE_QUEUE_FILE


def test_a_message_is_in_queue_and_archive(agent: MessagingAgent) -> None:
    before = time.time()
    agent.add_message(body(1))
    [item] = agent.get_n_latest_messages(10, [])
    assert before <= item.timestamp <= time.time() and item.message_body == body(1)
    assert archived() == [1]
    assert agent.get_oldest_timestamp() == item.timestamp


def test_messages_outlive_their_agent() -> None:
    for number in (1, 2):
        agent = MessagingAgent()
        agent.add_message(body(number))
        agent.teardown()
    agent = MessagingAgent()
    assert numbers(agent) == [1, 2]
    agent.teardown()


ADD = """
from ivy.types.messages import DataMessageBody
from ivy.utils.messaging_agent import MessagingAgent
agent = MessagingAgent()
number = 0
while True:
    agent.add_message(DataMessageBody(data={"number": number}))
    print(number, flush=True)
    number += 1
"""


@pytest.mark.slow
def test_a_message_survives_kill_9(node: Node, agent: MessagingAgent) -> None:
    for _ in range(3):
        process = node.start("-c", ADD)
        assert process.stdout
        for _ in range(50):
            process.stdout.readline()
        process.kill()
        returned = 50 + len(process.stdout.read().splitlines())
        process.wait()
        found = numbers(agent)
        assert found in (list(range(returned)), list(range(returned + 1)))  # killed after adding, before returning
        assert set(range(returned)) <= set(archived())
        agent.remove_messages([item.identifier for item in agent.get_n_latest_messages(len(found), [])])
        Path(agent.get_message_archive_file()).unlink()


def test_commits_are_synced(agent: MessagingAgent) -> None:
    """NORMAL would be faster, and forget the last messages in a power cut."""
    [[synchronous]] = agent.database.execute("PRAGMA synchronous")
    [[journal_mode]] = agent.database.execute("PRAGMA journal_mode")
    assert (synchronous, journal_mode) == (2, "wal")


def test_the_newest_come_first_and_the_oldest_of_them_first(agent: MessagingAgent) -> None:
    for number in range(10):
        agent.add_message(body(number))
    assert numbers(agent, 3) == [7, 8, 9]
    assert numbers(agent, 0) == []
    assert numbers(agent, 100) == list(range(10))


@pytest.mark.parametrize("kind", [list, set])
def test_excluded_messages_are_left_out(agent: MessagingAgent, kind: Callable[[list[int]], Any]) -> None:
    for number in range(6):
        agent.add_message(body(number))
    on_their_way = [item.identifier for item in agent.get_n_latest_messages(2, [])]
    assert numbers(agent, 2, kind(on_their_way)) == [2, 3]
    assert numbers(agent, 2, kind([*on_their_way, 12345])) == [2, 3]


@pytest.mark.parametrize("kind", [list, set])
def test_only_what_is_removed_leaves_the_queue(agent: MessagingAgent, kind: Callable[[list[int]], Any]) -> None:
    for number in range(6):
        agent.add_message(body(number))
    items = agent.get_n_latest_messages(6, [])
    agent.remove_messages(kind([items[0].identifier, items[4].identifier, 12345]))
    agent.remove_messages(kind([]))
    assert numbers(agent) == [1, 2, 3, 5]
    assert archived() == list(range(6))


def test_many_identifiers_at_once(agent: MessagingAgent, database: sqlite3.Connection) -> None:
    """More than SQLite has variables."""
    fill(database, 50_000)
    assert numbers(agent, 1, list(range(2, 50_001))) == [1]
    agent.remove_messages(range(1, 50_000))  # type: ignore[arg-type]
    assert numbers(agent) == [50_000]


def test_newest_is_what_was_added_last_whatever_the_clock_says(
    agent: MessagingAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, now in enumerate([2e9, 1e9, 0.0, 1.5e9]):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        agent.add_message(body(number))
    assert numbers(agent, 2) == [2, 3]
    agent.remove_messages([agent.get_n_latest_messages(1, [])[0].identifier])
    agent.add_message(body(4))
    assert numbers(agent) == [0, 1, 2, 4]
    assert agent.get_oldest_timestamp() == 2e9  # what waits longest, not what looks oldest


def steps(agent: MessagingAgent, work: Callable[[], object]) -> int:
    """How many steps SQLite's machine needs for something."""
    count = 0

    def step() -> int:
        nonlocal count
        count += 1
        return 0

    connection(agent).set_progress_handler(step, 1)
    work()
    connection(agent).set_progress_handler(None, 0)
    return count


def test_cost_does_not_grow_with_length(agent: MessagingAgent, database: sqlite3.Connection) -> None:
    def costs(length: int) -> list[int]:
        fill(database, length)
        newest = list(range(length - 49, length + 1))
        return [
            steps(agent, lambda: agent.get_n_latest_messages(30, [])),
            steps(agent, lambda: agent.get_n_latest_messages(30, newest)),
            steps(agent, lambda: agent.add_message(body(0))),
            steps(agent, lambda: agent.remove_messages(newest)),
            steps(agent, lambda: agent.remove_messages([1])),
            steps(agent, agent.get_oldest_timestamp),
        ]

    for few, many in zip(costs(100), costs(100_000), strict=True):
        assert many <= 1.1 * few


def test_statements_scan_no_table_and_sort_nothing(agent: MessagingAgent) -> None:
    statements: list[str] = []
    connection(agent).set_trace_callback(statements.append)
    agent.add_message(body(1))
    agent.get_n_latest_messages(5, [7, 8])
    agent.remove_messages([1])
    agent.get_oldest_timestamp()
    connection(agent).set_trace_callback(None)
    assert len(statements) >= 4
    for statement in statements:
        plan = [row[3] for row in queue_file.execute(f"EXPLAIN QUERY PLAN {statement}")]
        assert not [
            line
            for line in plan
            # DISTINCT: the few days of what the archive is not synced for.
            if ("TEMP B-TREE" in line and not line.endswith("DISTINCT"))
            or (line == "SCAN QUEUE" and "LIMIT" not in statement)
        ]


def test_the_length_is_exact_while_it_is_short(agent: MessagingAgent, database: sqlite3.Connection) -> None:
    assert agent.get_queue_length() == 0 and agent.get_oldest_timestamp() is None
    fill(database, 9_999)
    agent.remove_messages(list(range(100, 200)))
    assert agent.get_queue_length() == 9_899


def test_the_length_of_a_long_queue_is_not_counted(agent: MessagingAgent, database: sqlite3.Connection) -> None:
    fill(database, 100_000)
    assert agent.get_queue_length() == 100_000
    agent.remove_messages([50_000])  # not at an end: only counting all would tell
    assert agent.get_queue_length() == 100_000


WRITE = """
import sys, threading
from ivy.types.messages import DataMessageBody
from ivy.utils.messaging_agent import MessagingAgent
agent = MessagingAgent()
def write(start):
    for number in range(start, start + 200):
        agent.add_message(DataMessageBody(data={"number": number}))
print("ready", flush=True)
input()
threads = [threading.Thread(target=write, args=[int(sys.argv[1]) + 200 * number]) for number in range(2)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


@pytest.mark.slow
def test_many_writers_lose_nothing_and_never_find_it_locked(node: Node, agent: MessagingAgent) -> None:
    processes = [node.start("-c", WRITE, str(400 * number)) for number in range(4)]
    for process in processes:
        assert process.stdout and process.stdout.readline() == "ready\n"
    all_go(processes)
    assert sorted(numbers(agent)) == list(range(1600)) == sorted(archived())


@pytest.mark.slow
def test_many_processes_may_open_a_new_queue_at_once(node: Node) -> None:
    code = "input(); from ivy.utils.messaging_agent import MessagingAgent; MessagingAgent()"
    processes = [node.start("-c", code) for _ in range(8)]
    all_go(processes)


HOLD = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("BEGIN IMMEDIATE")
database.execute("INSERT INTO QUEUE (timestamp, message_body) VALUES (0, 'not committed')")
print("held", flush=True)
input()
"""


def test_a_process_stopped_in_a_transaction_makes_others_wait_not_fail(
    node: Node, agent: MessagingAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder = node.start("-c", HOLD, ACTIVE_QUEUE_FILE)
    assert holder.stdout and holder.stdout.readline() == "held\n"
    holder.send_signal(signal.SIGSTOP)
    agent.database.execute("PRAGMA busy_timeout = 10")
    heartbeats: list[None] = []
    monkeypatch.setattr(notify, "heartbeat", lambda: heartbeats.append(None))
    writer = threading.Thread(target=agent.add_message, args=[body(1)])
    writer.start()
    wait_until(lambda: len(heartbeats) >= 3)  # the watchdog must not kill the one that waits
    assert writer.is_alive()
    holder.kill()  # as the watchdog does
    writer.join(80)
    assert numbers(agent) == [1] == archived()


def test_patience_ends(
    agent: MessagingAgent, database: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert queue_database.SECONDS_TO_WAIT == 2
    monkeypatch.setattr(queue_database, "SECONDS_TO_WAIT", -1)
    agent.database.execute("PRAGMA busy_timeout = 1")
    database.execute("BEGIN IMMEDIATE")
    agent.add_message(body(1))
    assert numbers(agent) == [1] and archived() == [] and agent.get_spare_length() == 2  # with a report
    database.execute("ROLLBACK")
    agent.add_message(body(2))
    assert numbers(agent) == archived() == [1, 2] and agent.get_spare_length() == 0


@pytest.mark.parametrize(
    "value",
    [
        *("'no JSON'", "''", "'{}'", "'null'", "'[1]'", """'{"variant":"data"}'""", "x'7b'", "7"),
        """'{"variant":"data","data":{"logging":1}}'""",
        """'{"variant":"data","data":{"number":3}},"identifier":1'""",  # another's number
    ],
)
def test_a_row_that_is_no_message_is_removed_and_reported(
    agent: MessagingAgent, database: sqlite3.Connection, value: str, capfd: pytest.CaptureFixture[str]
) -> None:
    agent.add_message(body(1))
    database.execute(f"INSERT INTO QUEUE (timestamp, message_body) VALUES (1, {value})")
    agent.add_message(body(2))
    listener = Listener()
    found = [item.message_body for item in agent.get_n_latest_messages(10)]
    assert [message.data["number"] for message in found if message.variant == "data"] == [1, 2]
    assert select.select([listener], [], [], 0)[0], "what waits behind it is to be looked for"
    listener.close()
    assert "removed from the queue, being no message" in capfd.readouterr().err
    assert agent.get_queue_length() == 2


def test_a_rotten_byte_costs_a_character(agent: MessagingAgent, database: sqlite3.Connection) -> None:
    rotten = b'{"variant":"data","data":{"number":1,"text":"a\xffb"}}'
    database.execute("INSERT INTO QUEUE (timestamp, message_body) VALUES (1, CAST(? AS TEXT))", (rotten,))
    [item] = agent.get_n_latest_messages(1, [])
    assert item.message_body == DataMessageBody(data={"number": 1, "text": "a\N{REPLACEMENT CHARACTER}b"})


def test_a_queue_of_the_predecessor_is_read() -> None:
    queue_file.make_predecessors()
    queue_file.plant([(None, 1.5, json.dumps({"variant": "data", "data": {"number": 7}}))])
    agent = MessagingAgent()
    agent.add_message(body(8))
    assert numbers(agent) == [7, 8]
    agent.teardown()


def test_without_an_archive_the_message_is_queued_and_the_loss_reported(
    agent: MessagingAgent, capfd: pytest.CaptureFixture[str]
) -> None:
    ARCHIVE_DIR.write_text("a file where the directory should be")  # not even root can write there
    agent.add_message(body(1))
    assert numbers(agent) == [1]
    assert "the archive takes no messages" in capfd.readouterr().err


@pytest.mark.parametrize(("state", "is_marked"), [(True, False), (None, False), (False, True)])
def test_a_message_of_an_unsynchronised_clock_is_marked(
    agent: MessagingAgent, monkeypatch: pytest.MonkeyPatch, state: bool | None, is_marked: bool
) -> None:
    monkeypatch.setattr(clock, "is_synchronised", lambda: state)
    message = body(1)
    agent.add_message(message)
    [[text]] = queue_file.execute("SELECT message_body FROM QUEUE")
    mark = ',"clock_synchronised":false' if is_marked else ""
    assert text == '{"variant":"data","data":{"number":1}' + mark + "}"
    [item] = agent.get_n_latest_messages(1)
    [archive] = MessagingAgent.load_message_archive(datetime.datetime.now(datetime.UTC).date())
    assert item.message_body == archive.message_body
    assert item.message_body.clock_synchronised is not is_marked
    assert message.clock_synchronised  # it is the caller's


def test_who_takes_long_to_tell_of_the_clock_makes_no_message_later(
    agent: MessagingAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    def take_long() -> bool:
        monkeypatch.setattr(time, "time", lambda: 1_800_000_005.0)
        return False

    monkeypatch.setattr(time, "time", lambda: 1_800_000_000.0)
    monkeypatch.setattr(clock, "is_synchronised", take_long)
    agent.add_message(body(1))
    [item] = agent.get_n_latest_messages(1)
    assert item.timestamp == 1_800_000_000.0


def test_where_sqlite_could_be_killed_for_want_of_room_the_queue_is_not_opened(
    agent: MessagingAgent, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With blocks of 1 KiB, and between 8 and 32 KiB free: SIGBUS."""
    asked = []

    def disk(path: str) -> mounts.Disk:
        asked.append(path)
        return mounts.Disk(100, 40_000 if path == str(DATA_DIR) else 10**9, 0, None, False)

    monkeypatch.setattr(mounts, "disk", disk)
    agent.database.close()
    agent.add_message(body(1))
    assert "No space left on device" in capsys.readouterr().err
    assert asked[0] == str(DATA_DIR) and not Path(f"{ACTIVE_QUEUE_FILE}-shm").exists()
    monkeypatch.undo()
    monkeypatch.setattr(queue_database, "SECONDS_BETWEEN_TRIES", 0)
    agent.add_message(body(2))
    found = [item.message_body for item in agent.get_n_latest_messages(10)]
    assert [message.data["number"] for message in found if message.variant == "data"] == [1, 2]


@pytest.mark.parametrize("memory_page", [4096, 16_384, 65_536])
def test_there_is_room_for_what_sqlite_shares_on_any_processor(memory_page: int) -> None:
    """As much of it as one page holds, at least; and for the pages of the log that follow."""
    room = schema.room_to_open(memory_page)
    assert room >= 40_000 and room - memory_page >= 16_384


@pytest.mark.usefixtures("own_stop_handlers")
def test_sigterm_waits_until_a_message_stands_in_both_places(
    agent: MessagingAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[list[int]] = []
    signals.handle(lambda *_: found.extend([numbers(agent), archived()]))
    other = threading.Timer(1000, lambda: None)  # that of a driver, say: signals are delivered to any thread
    other.start()
    try:
        # Rung between queue and archive, the doorbell is the worst moment.
        monkeypatch.setattr(Doorbell, "ring", lambda _: os.kill(os.getpid(), signal.SIGTERM))
        agent.add_message(body(1))
    finally:
        other.cancel()
    assert found == [[1], [1]]


def test_the_backend_is_woken_before_the_archive_is_written(
    agent: MessagingAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[list[int]] = []
    monkeypatch.setattr(Doorbell, "ring", lambda _: found.extend([numbers(agent), archived()]))
    agent.add_message(body(1))
    assert found == [[1], []] and archived() == [1]


def test_a_message_wakes_the_backend(agent: MessagingAgent) -> None:
    listener = Listener()
    assert not select.select([listener], [], [], 0)[0]
    agent.add_message(body(1))
    assert select.select([listener], [], [], 0)[0]
    listener.clear()
    assert not select.select([listener], [], [], 0)[0]
    listener.close()


def test_rings_never_block_where_nobody_listens() -> None:
    listener, doorbell = Listener(), Doorbell()
    for _ in range(2000):  # more than the socket holds
        doorbell.ring()
    listener.close()
    doorbell.ring()  # and where nobody is any more
    doorbell.close()


def test_a_second_listener_takes_over(agent: MessagingAgent) -> None:
    """As when a backend was killed and left the name of its socket behind."""
    Listener().close()
    listener = Listener()
    agent.add_message(body(1))
    assert select.select([listener], [], [], 0)[0]
    listener.close()


def test_the_queue_is_not_for_others(agent: MessagingAgent) -> None:
    agent.add_message(body(1))
    for name in os.listdir(DATA_DIR):
        assert (DATA_DIR / name).stat().st_mode & 0o007 == 0, name


def test_who_finds_damage_while_another_opens_the_queue_does_not_wait_for_ever(
    agent: MessagingAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was stopped there, by Ctrl-Z, say."""
    heartbeats = 0

    def heartbeat() -> None:
        nonlocal heartbeats
        heartbeats += 1
        assert heartbeats < 100, "waits for ever"

    monkeypatch.setattr(queue_database, "SECONDS_TO_WAIT", 0.2)
    monkeypatch.setattr("ivy.utils.notify.heartbeat", heartbeat)

    def find_damage(_: sqlite3.Connection) -> None:
        raise errors.damage("rotten")

    with file_lock(schema.lock_path(ACTIVE_QUEUE_FILE), 1), pytest.raises(sqlite3.DatabaseError, match="rotten"):
        agent.database.run(find_damage)
