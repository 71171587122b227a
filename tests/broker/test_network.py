"""A network that comes up is noticed, so that nobody waits for the next try for longer than that."""

import subprocess

from tests.broker.node import PROJECT

_WATCH = """
import select, subprocess
from ivy.backend.network_news import NetworkNews
news = NetworkNews()
assert not news.are_good()
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
assert select.select([news.socket], [], [], 10)[0] and news.are_good()
assert not news.are_good()
subprocess.run(["ip", "link", "set", "lo", "down"], check=True)
select.select([news.socket], [], [], 10)
assert not news.are_good()
print("well")
"""


def test_an_address_that_comes_is_good_news_and_one_that_goes_is_not() -> None:
    alone = ["unshare", "--user", "--map-root-user", "--net"]
    command = [*alone, "/usr/bin/python3", "-c", _WATCH]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=30)
    assert done.stdout == "well\n", done.stderr
