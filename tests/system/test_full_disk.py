"""A small disk of its own, filled to the last byte while messages are added."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.emulation import needs_own_processor

PROJECT = Path(__file__).parents[2]

# As root of a namespace of its own, so that the disk is gone with the process.
WORK = """
import datetime, json, os, subprocess, sys
from ivy.types.messages import DataMessageBody
from ivy.utils.host import clock, mounts
from ivy.utils.storage import ballast, database
from ivy.utils import messaging_agent
from ivy.utils.messaging_agent import MessagingAgent

data, fill_first = os.environ["IVY_DATA_DIR"], sys.argv[1] == "first"
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", data], check=True)
os.mkdir(f"{data}/run")
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", f"{data}/run"], check=True)
clock.is_synchronised = lambda: True
ballast.SIZE = 4_000_000
database.SECONDS_BETWEEN_TRIES = messaging_agent.SECONDS_BETWEEN_TRIES = 0  # else it is found out seconds later

def fill():
    with open(f"{data}/filler", "ab", buffering=0) as filler:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    filler.write(bytes(size))
            except OSError:
                pass

def add(numbers):
    for number in numbers:
        agent.add_message(DataMessageBody(data={"number": number, "text": "x" * 1000}))

def seen(items):
    return [item.message_body.data["number"] for item in items if item.message_body.variant == "data"]

if fill_first:
    fill()
agent = MessagingAgent()
ballast.keep(mounts.disk().free_bytes)
had_reserve = os.path.exists(ballast.BALLAST_FILE)
add(range(20))
fill()
add(range(20, 1500))
late = MessagingAgent()  # as when a service is started now
late.add_message(DataMessageBody(data={"number": -1}))
has_reserve = os.path.exists(ballast.BALLAST_FILE)
os.unlink(f"{data}/filler")
add([1500])
late.add_message(DataMessageBody(data={"number": -2}))
print(json.dumps({
    "queued": seen(agent.get_n_latest_messages(10_000)),
    "archived": seen(agent.load_message_archive(datetime.datetime.now(datetime.UTC).date())),
    "reserve": [had_reserve, has_reserve],
    "check": agent.database.execute("PRAGMA integrity_check")[0][0],
}))
"""


def run(tmp_path: Path, *arguments: str) -> tuple[dict[str, Any], str]:
    """Do the work; returns what it found, and what it said."""
    (tmp_path / "data").mkdir()
    places = {"IVY_ROOT_DIR": str(tmp_path), "IVY_DATA_DIR": str(tmp_path / "data")}
    process = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "--", sys.executable, "-c", WORK, *arguments],
        env={**os.environ, "PYTHONPATH": str(PROJECT), "PYTHONDONTWRITEBYTECODE": "1", **places},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert process.returncode == 0, process.stderr
    found: dict[str, Any] = json.loads(process.stdout)
    return found, process.stderr


@needs_own_processor
@pytest.mark.parametrize("when", ["first", "later"])
def test_nothing_is_lost_while_the_disk_is_full(tmp_path: Path, when: str) -> None:
    found, said = run(tmp_path, when)
    assert found["check"] == "ok"
    assert found["reserve"] == [when == "later", False]
    for place in ("queued", "archived"):
        assert sorted(found[place]) == list(range(-2, 1501)), place
    own = [number for number in found["queued"] if number >= 0]
    assert own == sorted(own)  # the order is that of the sampling
    # It is told once, by whoever finds it first; and so is its end.
    assert said.count("the queue takes no messages") == said.count("the queue took no messages") == 1
