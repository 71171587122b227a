"""Several agents in one process, and processes that come and go: nobody's locks are lost, and so no message."""

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
