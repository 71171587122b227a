"""What kind of message a row is, SQLite knows by itself; whoever wrote the file, and whoever goes on with it."""

import json

import pytest

from ivy.types.config import QueueConfig
from ivy.types.messages import DataMessageBody, LogMessageBody
from ivy.utils.messaging_agent import MessagingAgent
from ivy.utils.storage import aside, bounds, schema
from tests.support import queue_file
from tests.support.queue_file import QUEUE, rot

PLENTY = 10**12
LOG = LogMessageBody(level="INFO", subject="a log", body="")

# Those of 1.0.
IS_LOG = 'substr(message_body, 1, 17) IN (\'{"variant":"log",\', \'{"variant": "log"\')'
LOGS_OF_1_0 = f"CREATE INDEX IF NOT EXISTS QUEUE_LOGS ON QUEUE (internal_id) WHERE {IS_LOG}"


def variants() -> list[str | None]:
    """Of all rows, the oldest first."""
    return [row[0] for row in queue_file.execute("SELECT variant FROM QUEUE ORDER BY internal_id")]


def indexes() -> set[str]:
    """The names of the queue's indexes."""
    return {row[0] for row in queue_file.execute("SELECT name FROM pragma_index_list('QUEUE')")}


def test_each_message_has_its_variant(agent: MessagingAgent) -> None:
    agent.add_message(DataMessageBody(data={"number": 1}))
    agent.add_message(LOG)
    spaced = ['{ "variant" : "config"}', '{"level": "INFO", "variant": "log"}']
    queue_file.plant((None, 1.5, body) for body in spaced)
    assert variants() == ["data", "log", "config", "log"]
    [[stored]] = queue_file.execute("SELECT hidden FROM pragma_table_xinfo('QUEUE') WHERE name = 'variant'")
    assert stored == 2  # that is: made when it is read


@pytest.mark.parametrize("who_made_it", ["ivy", "the predecessor"])
def test_the_statements_of_the_predecessor_work(who_made_it: str) -> None:
    if who_made_it == "the predecessor":
        queue_file.make_predecessors()
    agent = MessagingAgent()
    agent.add_message(DataMessageBody(data={"number": 1}))
    queue_file.make_predecessors()
    body = DataMessageBody(data={"number": 2}).model_dump_json()
    queue_file.execute("INSERT INTO QUEUE (timestamp, message_body) VALUES (?, ?);", (4e9, body))
    newest_first = (
        "SELECT internal_id, timestamp, message_body FROM QUEUE WHERE internal_id NOT IN ({}) ORDER BY {};"
    )
    [(two, _, text), (one, _, _)] = queue_file.execute(newest_first.format("", "timestamp DESC LIMIT ?"), (9,))
    assert (one, two, text) == (1, 2, body)
    queue_file.execute("DELETE FROM QUEUE WHERE internal_id IN (?,?);", (one, 99))
    assert queue_file.execute("SELECT COUNT(internal_id) FROM QUEUE;") == [(1,)]
    assert [item.identifier for item in agent.get_n_latest_messages(9)] == [two]
    agent.teardown()


def test_the_statements_of_1_0_work(agent: MessagingAgent) -> None:
    agent.add_message(LOG)
    queue_file.execute(LOGS_OF_1_0)
    queue_file.execute("INSERT INTO QUEUE VALUES (?, ?, ?)", (7, 1.5, LOG.model_dump_json()))
    query = f"SELECT internal_id FROM QUEUE WHERE {IS_LOG} ORDER BY internal_id"
    assert queue_file.execute(query) == [(1,), (7,)]
    assert "QUEUE_LOGS" in queue_file.execute(f"EXPLAIN QUERY PLAN {query}")[0][3]
    queue_file.execute(f"DELETE FROM QUEUE WHERE internal_id IN ({query} LIMIT 1)")
    assert variants() == ["log"]
    assert queue_file.execute("PRAGMA integrity_check") == [("ok",)]


@pytest.fixture
def of_1_0() -> None:
    """A queue of 1.0."""
    queue_file.execute("PRAGMA auto_vacuum = INCREMENTAL")
    queue_file.execute(
        "CREATE TABLE QUEUE (internal_id INTEGER PRIMARY KEY,"
        " timestamp DOUBLE NOT NULL, message_body TEXT NOT NULL)"
    )
    queue_file.execute(LOGS_OF_1_0)


def test_a_queue_of_1_0_is_converted_and_keeps_what_1_0_needs(of_1_0: None) -> None:
    queue_file.plant([(None, 1.5, LOG.model_dump_json()), (None, 2.5, '{"variant":"data","data":{"number":1}}')])
    for _ in range(2):
        agent = MessagingAgent()
        bounds.enforce(QueueConfig(), agent.database, PLENTY)
        agent.teardown()
        assert variants() == ["log", "data"]
        assert indexes() == {"QUEUE_LOGS", "QUEUE_VARIANTS"}


def test_a_long_queue_of_1_0_is_read_only_when_something_must_be_dropped(
    of_1_0: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To read a gigabyte takes longer than a sample may wait."""
    monkeypatch.setattr(bounds, "LONG", 1_000_000)
    text = "x" * 1000
    queue_file.plant((None, 1.5, json.dumps({"variant": kind, "text": text})) for kind in ("log", "data") * 1000)
    agent = MessagingAgent()
    assert bounds.enforce(QueueConfig(), agent.database, PLENTY) == {}
    assert indexes() == {"QUEUE_LOGS"}
    assert bounds.enforce(QueueConfig(max_megabytes=2), agent.database, PLENTY).keys() == {"log"}
    assert "QUEUE_VARIANTS" in indexes()
    agent.teardown()


ROTTEN: list[str | bytes] = [
    '{"variant":"log',
    "",
    "7",
    "null",
    '{"variant":7}',
    b'{"variant":"log"} ',
    b"\xff\xfe",
    b"",
    b"{\x17a\x131",
]


@pytest.mark.parametrize("table", ["QUEUE", "MARKS", "ONCE", "DROPPED", "POISON"])
def test_a_table_that_somebody_dropped_is_made_again(agent: MessagingAgent, table: str) -> None:
    agent.add_message(DataMessageBody(data={"number": 1}))
    queue_file.execute(f"DROP TABLE {table}")
    agent.add_message(DataMessageBody(data={"number": 2}))
    assert agent.get_spare_length() == 0
    agent.set_aside({item.identifier: "no" for item in agent.get_n_latest_messages(9)}, 0.0)
    assert agent.get_untold_losses() == {}
    assert agent.get_queue_length() == 0


def test_what_is_not_valid_json_stops_nothing(agent: MessagingAgent) -> None:
    agent.add_message(LOG)
    bounds.enforce(QueueConfig(), agent.database, PLENTY)  # makes the index
    queue_file.plant((None, 1.5, body) for body in ROTTEN)
    queue_file.execute("INSERT INTO QUEUE (timestamp, message_body) VALUES (1.5, CAST(x'7bff' AS TEXT))")
    agent.add_message(LOG)
    kept = QueueConfig.model_construct(max_megabytes=0)  # the newest only
    assert bounds.enforce(kept, agent.database, PLENTY) == {"log": 2, "data": len(ROTTEN)}
    assert len(variants()) == 1


@pytest.fixture
def written(agent: MessagingAgent) -> MessagingAgent:
    """A queue whose file nobody has open: a sample, a log, a sample."""
    for body in (DataMessageBody(data={"first": 1}), LOG, DataMessageBody(data={"last": 1})):
        agent.add_message(body)
    bounds.enforce(QueueConfig(), agent.database, PLENTY)  # makes the index
    queue_file.checkpoint()
    agent.database.close()
    return agent


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"log"', b'"lo\xff"'),
        (b'"a log"', b'"a"log"'),
        (b'"data","data":{"first"', b'"dat\xff","data":{"first"'),
        (b'{"variant":"data","data":{"first"', b'{"varianu":"data","data":{"first"'),
    ],
)
def test_a_byte_that_rots_costs_a_message_at_most(written: MessagingAgent, old: bytes, new: bytes) -> None:
    rot(old, new)
    written.add_message(LOG)
    assert len(written.get_n_latest_messages(9)) == 3  # what cannot be read is removed
    assert bounds.enforce(QueueConfig.model_construct(max_megabytes=0), written.database, PLENTY)
    assert variants() == ["log"]
    assert aside.damaged_files(str(QUEUE)) == []


def _numbers(agent: MessagingAgent, n: int, *held_back: str) -> list[int]:
    return [item.identifier for item in agent.get_latest_messages_within(1e9, n, {2}, held_back)]


def test_variants_can_be_held_back(agent: MessagingAgent) -> None:
    for number in range(3):
        agent.add_message(DataMessageBody(data={"number": number}))
        agent.add_message(LOG)
    config = {"general": {"config_revision": 1, "software_version": "1.0.0"}}
    queue_file.plant([(None, 1.5, json.dumps({"variant": "config", "status": "accepted", "config": config}))])
    assert _numbers(agent, 9) == [1, 3, 4, 5, 6, 7]
    assert _numbers(agent, 9, "data") == [4, 6, 7]
    assert _numbers(agent, 2, "data") == [6, 7], "the newest of all that are wanted"
    assert _numbers(agent, 9, "log") == [1, 3, 5, 7]
    assert _numbers(agent, 9, "log", "config") == [1, 3, 5]
    assert _numbers(agent, 9, "data", "log") == [7]
    assert _numbers(agent, 9, "data", "log", "config") == []


def test_who_holds_back_data_reads_none_of_it(agent: MessagingAgent) -> None:
    """However long the queue is: what is wanted is found by the index, in its order."""
    agent.add_message(LOG)
    agent.database.run(schema.make_index)
    asked: list[str] = []
    connection = agent.database.run(lambda connection: connection)
    connection.set_trace_callback(asked.append)
    agent.get_latest_messages_within(1e9, 9, set(), ("data",))
    connection.set_trace_callback(None)
    statements = [text for text in asked if "QUEUE" in text]
    assert len(statements) == 2
    for statement in statements:
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}")]
        assert "SEARCH QUEUE USING INDEX QUEUE_VARIANTS (variant=?)" in plan
        assert not any("TEMP B-TREE" in step for step in plan)
