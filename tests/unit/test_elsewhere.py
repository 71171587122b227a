"""The data of another node: a card in a reader at a desk, where nothing is written."""

import contextlib
import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from ivy.types.messages import DataMessageBody, LogMessageBody
from ivy.utils.messaging_agent import ACTIVE_QUEUE_FILE, MessagingAgent
from ivy.utils.storage import elsewhere
from tests.support.helpers import ARCHIVE_DIR, DATA_DIR, Node
from tests.unit.archives import LONG_AGO, Ivy, sample, tree

BELOW = ("", "data", "var/lib/ivy/data")
QUEUE = Path(ACTIVE_QUEUE_FILE).name


@pytest.fixture
def card(tmp_path: Path, agent: MessagingAgent) -> Iterator[Path]:
    """The root of a card from a node whose power failed: its newest messages are in the log of the queue only.

    The node that reads it has data of its own, which are not wanted.
    """
    sample(LONG_AGO, temperature=2.5)
    agent.add_message(DataMessageBody(data={"humidity": 40}))
    agent.add_message(LogMessageBody(level="WARNING", subject="s", body="b"))
    data = tmp_path / "card" / "var" / "lib" / "ivy" / "data"
    data.mkdir(parents=True)
    shutil.copytree(ARCHIVE_DIR, data / "messages")
    for suffix in ("", "-wal"):
        shutil.copy(ACTIVE_QUEUE_FILE + suffix, data)
    assert (data / f"{QUEUE}-wal").stat().st_size
    agent.add_message(DataMessageBody(data={"own": 1}))
    shutil.rmtree(ARCHIVE_DIR)
    for path in [*data.rglob("*"), data]:
        path.chmod(0o550 if path.is_dir() else 0o440)
    yield tmp_path / "card"
    for path in [data, *data.rglob("*")]:
        path.chmod(0o770)


@pytest.mark.parametrize("below", ["", "var/lib/ivy", "var/lib/ivy/data"])
def test_messages_of_a_card_are_shown(ivy: Ivy, card: Path, below: str) -> None:
    before = tree(card)
    status, output, errors = ivy("messages", "--since", "2023-11-14", "--json", "--data", str(card / below))
    assert (status, errors) == (0, "")
    bodies = [json.loads(line)["message_body"] for line in output.splitlines()]
    assert [body.get("data") for body in bodies] == [{"temperature": 2.5}, {"humidity": 40}, None]
    assert tree(card) == before


def test_the_queue_of_a_card_is_shown_with_what_is_in_its_log(ivy: Ivy, card: Path) -> None:
    before = tree(card)
    status, output, errors = ivy("queue", "--json", "--data", str(card))
    assert (status, errors) == (0, "")
    found = json.loads(output)
    assert (found["length"], found["waiting"]) == (2, {"data": 1, "log": 1, "config": 0})
    assert found["oldest_timestamp"] is not None and found["bytes"] > 0
    status, output, errors = ivy("queue", "--data", str(card))
    assert (status, errors) == (0, "") and "waiting:  2 messages" in output
    assert tree(card) == before


def test_what_was_sampled_is_drawn(ivy: Ivy, card: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gnuplot = tmp_path / "gnuplot"
    gnuplot.write_text(f"#!/bin/sh\ncat > {tmp_path}/script\nprintf 'a picture'\n")
    gnuplot.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    before = tree(card)
    times = ("--since", "2023-11-14", "--until", "2023-11-15")
    picture = tmp_path / "picture.svg"
    assert ivy("plot", "temp*", *times, "--svg", str(picture), "--data", str(card))[0] == 0
    assert picture.read_bytes() == b"a picture"
    assert "2.5" in (tmp_path / "script").read_text()
    assert ivy("plot", "temp*", *times, "--data", str(card))[0] == 0
    assert tree(card) == before


def test_a_relative_place_is_found(ivy: Ivy, card: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(card.parent)
    assert ivy("queue", "--data", "card")[0] == 0


def test_an_archive_that_was_copied_without_the_queue(ivy: Ivy, card: Path) -> None:
    days = card / "var/lib/ivy/data/messages"
    output = ivy("messages", "--since", "2023-11-14", "--until", "2023-11-15", "--data", str(days))[1]
    assert "temperature=2.5" in output
    status, _, errors = ivy("queue", "--data", str(days))
    assert status == 1 and "does not exist" in errors


def test_where_nothing_is_it_says_so(ivy: Ivy, tmp_path: Path) -> None:
    for command in (["messages"], ["queue"], ["plot", "temperature"]):
        status, output, errors = ivy(*command, "--data", str(tmp_path))
        assert (status, output) == (1, "")
        assert errors == f"ivy: {tmp_path}: there are no data of a node, nor in var/lib/ivy/data below it\n"
    assert ivy("queue", "--data", str(tmp_path / "none"))[0] == 1


@pytest.mark.parametrize("link", ["var/lib/ivy", "var/lib/ivy/data/messages"])
def test_a_card_leads_nowhere_else(ivy: Ivy, tmp_path: Path, link: str) -> None:
    sample(LONG_AGO, secret=1)
    path = tmp_path / link
    path.parent.mkdir(parents=True)
    path.symlink_to(ARCHIVE_DIR if path.name == "messages" else DATA_DIR.parent)
    status, output, errors = ivy("messages", "--since", "2023-11-14", "--data", str(tmp_path))
    assert (status, output) == (1, "") and "there are no data" in errors


def test_a_queue_that_is_a_link_is_not_followed(ivy: Ivy, tmp_path: Path, agent: MessagingAgent) -> None:
    agent.add_message(DataMessageBody(data={"own": 1}))
    (tmp_path / QUEUE).symlink_to(ACTIVE_QUEUE_FILE)
    status, output, _ = ivy("queue", "--data", str(tmp_path))
    assert (status, output) == (1, "")


def test_a_damaged_queue_is_not_taken_for_an_empty_one(ivy: Ivy, tmp_path: Path) -> None:
    (tmp_path / QUEUE).write_bytes(b"no database" * 1000)
    before = tree(tmp_path)
    status, output, errors = ivy("queue", "--data", str(tmp_path))
    assert (status, output) == (1, "") and "not a database" in errors
    assert tree(tmp_path) == before


def test_a_queue_of_1_0_has_another_form(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / QUEUE)) as database, database:
        database.execute(
            "CREATE TABLE QUEUE (internal_id INTEGER PRIMARY KEY AUTOINCREMENT,"
            " timestamp DOUBLE NOT NULL, message_body TEXT NOT NULL)"
        )
        database.execute('INSERT INTO QUEUE VALUES (1, 1.5, \'{"variant":"data","data":{}}\')')
    before = tree(tmp_path)
    with elsewhere.opened_queue(elsewhere.find(str(tmp_path)).queue) as connection:
        assert connection.execute("SELECT variant FROM QUEUE").fetchall() == [("data",)]
    assert tree(tmp_path) == before


def test_a_desk_needs_neither_systemd_nor_its_library(node: Node, card: Path) -> None:
    blocker = "import sys; sys.modules['systemd'] = None; from ivy.cli.main import main; main()"
    node.environment["PATH"] = str(node.programs)  # no systemctl
    for command in (["messages", "--since", "2023-11-14"], ["queue"]):
        process = node.start("-c", blocker, *command, "--data", str(card))
        output, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, "") and output


@pytest.mark.parametrize("may_load", [True, False])
def test_a_card_of_another_user_is_read_as_that_one_if_he_may_load_the_program(
    node: Node, card: Path, may_load: bool
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root could be somebody else")
    for path in [card, *card.rglob("*")]:
        os.chown(path, 65_533, 65_533)
    for parent in (card.parent, *card.parent.parents[:2]):
        parent.chmod(0o755)
    look = f"""
import os
from ivy.cli import status
from ivy.cli.main import main
from ivy.utils.storage import elsewhere
elsewhere.is_open_to_all = lambda path: {may_load}
status.show_queue = lambda _: print(os.getresuid(), os.getresgid())
main()
"""
    process = node.start("-c", look, "queue", "--data", str(card))
    output, errors = process.communicate(timeout=60)
    who = (65_533 if may_load else 0,) * 3
    assert (output, errors) == (f"{who} {who}\n", "")


def test_in_a_home_others_may_not_load_the_program(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir(mode=0o700)
    assert elsewhere.is_open_to_all("/usr/lib")
    assert not elsewhere.is_open_to_all(str(tmp_path / "home"))
