"""What somebody puts where a file of the services should be: replaced or left out, and nobody waits for it."""

import os
import signal
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ivy.types.messages import DataMessageBody
from ivy.utils.messaging_agent import ACTIVE_QUEUE_FILE, MessagingAgent
from ivy.utils.state_interface import STATE_FILE, STATE_FILE_LOCK, StateInterface
from ivy.utils.storage import archive, aside, page_scan, salvage
from tests.support.helpers import Node

SECONDS = 60
SAMPLE = DataMessageBody(data={"a": 1})
KINDS: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "directory": Path.mkdir,
    "link": lambda path: path.symlink_to("/etc/passwd"),
    "link to nowhere": lambda path: path.symlink_to("nowhere"),
    "link to a pipe": lambda path: _make_link_to_pipe(path),
    "link to a device": lambda path: path.symlink_to("/dev/zero"),
}
ANY = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(autouse=True)
def nobody_waits() -> Iterator[None]:
    """End a test that waits for a pipe."""

    def end(*_: object) -> None:
        pytest.fail("somebody waits")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def _make_link_to_pipe(path: Path) -> None:
    os.mkfifo(f"{path}.pipe")
    path.symlink_to(f"{path}.pipe")


def put(kind: str, path: str) -> None:
    """Put something where a file should be."""
    Path(path).unlink(missing_ok=True)
    KINDS[kind](Path(path))


def sampled(agent: MessagingAgent) -> int:
    return len(agent.get_n_latest_messages(100))


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-journal"])
@ANY
def test_in_place_of_the_queue(kind: str, suffix: str) -> None:
    put(kind, ACTIVE_QUEUE_FILE + suffix)
    agent = MessagingAgent()
    agent.add_message(SAMPLE)
    assert sampled(agent) >= 1
    agent.teardown()
    assert len(aside.damaged_files(ACTIVE_QUEUE_FILE)) <= 1


@pytest.mark.parametrize("suffix", ["", "-wal"])
@ANY
def test_in_place_of_a_queue_that_is_being_salvaged(kind: str, suffix: str) -> None:
    Path(f"{ACTIVE_QUEUE_FILE}.salvaging").touch()
    put(kind, f"{ACTIVE_QUEUE_FILE}.salvaging{suffix}")
    agent = MessagingAgent()
    agent.add_message(SAMPLE)
    assert sampled(agent) >= 1
    agent.teardown()


SCHEMES = {
    "a view": "DROP TABLE QUEUE; CREATE VIEW QUEUE AS SELECT 1 AS internal_id, 2 AS timestamp, 3 AS message_body",
    "a view without an end": "DROP TABLE DROPPED; CREATE VIEW dropped AS WITH RECURSIVE c(x) AS"
    " (VALUES (1) UNION ALL SELECT x + 1 FROM c) SELECT x AS variant, x AS count, 0 AS reported FROM c",
    "a trigger without an end": "CREATE TRIGGER t AFTER INSERT ON QUEUE BEGIN INSERT INTO ONCE WITH RECURSIVE"
    " c(x) AS (VALUES (1) UNION ALL SELECT x + 1 FROM c) SELECT x FROM c; END",
    "a trigger that loads code": "CREATE TRIGGER t AFTER INSERT ON QUEUE BEGIN"
    " SELECT load_extension('/var/lib/ivy/data/evil.so'); END",
    "another table": "DROP TABLE QUEUE; CREATE TABLE QUEUE (a, b)",
    "a rule": "DROP TABLE QUEUE; CREATE TABLE QUEUE (internal_id INTEGER PRIMARY KEY, timestamp DOUBLE,"
    " message_body TEXT CHECK (message_body = 'never'))",
    "a virtual table": "DROP TABLE QUEUE;"
    " CREATE VIRTUAL TABLE QUEUE USING fts5(internal_id, timestamp, message_body)",
}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_in_place_of_a_table(scheme: str, agent: MessagingAgent) -> None:
    """Set aside, and salvaged as far as that is possible."""
    agent.add_message(SAMPLE)
    agent.teardown()
    hostile = sqlite3.connect(ACTIVE_QUEUE_FILE)
    hostile.executescript(SCHEMES[scheme])
    hostile.close()
    agent.add_message(SAMPLE)
    agent.add_once("a", [SAMPLE])
    salvage.work(ACTIVE_QUEUE_FILE, agent.store)
    kept = 0 if "DROP TABLE QUEUE" in SCHEMES[scheme] else 1
    report = 1
    assert sampled(agent) >= kept + 2 + report
    assert len(aside.damaged_files(ACTIVE_QUEUE_FILE)) == 1


def test_a_queue_that_is_one_hole_is_salvaged_at_once(agent: MessagingAgent) -> None:
    agent.add_message(SAMPLE)
    agent.teardown()
    os.truncate(ACTIVE_QUEUE_FILE, 100_000_000_000)
    assert len(list(page_scan.rows(ACTIVE_QUEUE_FILE))) == 1


@pytest.mark.parametrize("path", [STATE_FILE, STATE_FILE_LOCK])
@ANY
def test_in_place_of_the_state(kind: str, path: str) -> None:
    put(kind, path)
    with StateInterface.update() as state:
        state.system.last_5_min_load = 3
    assert StateInterface.load().system.last_5_min_load == 3


@ANY
def test_in_place_of_a_day_of_the_archive(kind: str, agent: MessagingAgent, node: Node) -> None:
    today = MessagingAgent.get_message_archive_file()
    Path(today).parent.mkdir()
    put(kind, today)
    assert list(archive.read(today)) == []
    assert node.ivy("messages")[:2] == (0, "")
    agent.add_message(SAMPLE)
    assert len(list(archive.read(today))) == 1
    assert "root:" not in node.ivy("messages")[1]


def test_a_day_that_is_one_hole_takes_no_memory(agent: MessagingAgent) -> None:
    agent.add_message(SAMPLE)
    today = MessagingAgent.get_message_archive_file()
    with open(today, "ab") as file:
        file.truncate(file.tell() + 3 * archive.LONGEST_LINE)
        file.seek(0, os.SEEK_END)
        file.write(b"\n")
    agent.add_message(SAMPLE)
    assert len(list(archive.read(today))) == 2
    os.truncate(today, 100_000_000_000)
    assert list(archive.read(today)) == []
