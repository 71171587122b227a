"""Several agents in one process, and processes that come and go: nobody's locks are lost, and so no message."""

import datetime
import signal
import subprocess

from ivy.types.messages import DataMessageBody
from ivy.utils.messaging_agent import MessagingAgent
from tests.support.helpers import Node

TWO_AGENTS = """
import sys
from ivy.types.messages import DataMessageBody
from ivy.utils.messaging_agent import MessagingAgent
first, second = MessagingAgent(), MessagingAgent()  # as in a service that has logged something
print("open", flush=True)
for number, _ in enumerate(sys.stdin):
    first.add_message(DataMessageBody(data={"number": number}))
    print("added", flush=True)
"""

FORKS = """
import os
from ivy.types.messages import DataMessageBody
from ivy.utils.messaging_agent import MessagingAgent
agent = MessagingAgent()
agent.add_message(DataMessageBody(data={"number": -1}))
os.fork(), os.fork()  # four processes
for number in range(200):
    agent.add_message(DataMessageBody(data={"number": number}))
"""


def test_what_one_process_closes_stays_open_for_the_others(node: Node) -> None:
    process = node.start("-c", TWO_AGENTS)
    assert process.stdin and process.stdout and process.stdout.readline() == "open\n"
    add(process)
    MessagingAgent().teardown()  # as `ivy status` does; the last one out removes the write-ahead log
    for _ in range(10):
        add(process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    agent = MessagingAgent()
    bodies = [item.message_body for item in agent.get_n_latest_messages(100, [])]
    agent.teardown()
    assert [body.data["number"] for body in bodies if isinstance(body, DataMessageBody)] == list(range(11))


def add(process: "subprocess.Popen[str]") -> None:
    """Let the process add a message, and wait until it has."""
    assert process.stdin and process.stdout
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "added\n"


def test_processes_that_were_forked_write_in_turn(node: Node) -> None:
    """As those of `multiprocessing`, which have the agent of their parent."""
    process = node.start("-c", FORKS)
    output, errors = process.communicate(timeout=120)  # which ends when all of them have
    assert (process.returncode, output, errors) == (0, "", "")
    agent = MessagingAgent()
    items = agent.get_n_latest_messages(1000, [])
    agent.teardown()
    assert len({round(item.timestamp * 1000) for item in items}) == len(items) == 801
    assert len(MessagingAgent.load_message_archive(datetime.datetime.now(datetime.UTC).date())) == 801
