"""A journal that hangs stops no sampling, and says afterwards what it lacks."""

import itertools
import re

import pytest
from testbed.bed import Node

from tests.support.sampling import release_file

TALKATIVE = """
from ivy.types.messages import DataMessageBody
from ivy.utils import notify
from ivy.utils.messaging_agent import MessagingAgent

def run(config, logger):
    agent = MessagingAgent()
    number = 0
    while True:
        agent.add_message(DataMessageBody(data={"talkative": number}))
        logger.info(f"line {number}")
        print("printed", number, "x" * 2000)
        notify.status(f"number {number}")
        number += 1
        notify.sleep(0.01)
"""
UNIT = """
[Unit]
PartOf=ivy.target

[Service]
ExecStart=/usr/bin/ivy run talkative
PrivateNetwork=yes
"""
JOURNAL = "systemd-journald"
MISSING = r"(\d+) lines are missing here, as the journal took none"
SAMPLES = 1500
"""More than the sockets hold lines."""

LONGEST_GAP = 5.0
"""Seconds. It may wait for one, for an entry and for what is printed, on a machine that is busy."""


def _times(node: Node) -> list[float]:
    """When it sampled, as the archive has it."""
    found = []
    for path in sorted(node.path("/var/lib/ivy/data/messages").glob("*.csv")):
        lines = path.read_text(errors="replace").splitlines()
        found += [float(line.partition(",")[0]) for line in lines if '""talkative""' in line]
    return found


@pytest.mark.thorough
def test_a_journal_that_hangs_stops_no_sampling(node: Node) -> None:
    node.path(release_file(node, "ivy/procedures/talkative.py")).write_text(TALKATIVE)
    node.path(release_file(node, "units/ivy-talkative.service")).write_text(UNIT)
    node.run(["systemctl", "daemon-reload"])
    node.run(["systemctl", "start", "ivy-talkative"])
    node.wait_for(lambda: len(_times(node)) > 50, 20, "the first samples")
    before = len(_times(node))
    node.run(["systemctl", "kill", "--signal=STOP", JOURNAL])
    try:
        node.wait_for(lambda: len(_times(node)) > before + SAMPLES, 120, "samples without a journal")
    finally:
        node.run(["systemctl", "kill", "--signal=CONT", JOURNAL])
    times = _times(node)
    gap = max(later - earlier for earlier, later in itertools.pairwise(times))
    print(f"the longest time between two samples: {gap:.2f} s")
    assert gap < LONGEST_GAP
    node.wait_for(lambda: re.search(MISSING, node.journal("--unit=ivy-talkative")), 20, "the notice")
    assert node.run(["systemctl", "show", "--value", "-p", "NRestarts", "ivy-talkative"]).stdout == "0\n"
