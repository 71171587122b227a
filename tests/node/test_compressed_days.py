"""Older days of the archive are compressed by the service, in its sandbox, and are still there for who asks."""

import json

import pytest
from testbed.bed import Node

from tests.support.installed import read_config, write_config

MESSAGES = "/var/lib/ivy/data/messages"
LINE = '1767225600.5,"{""variant"":""data"",""data"":{""old"":1}}"'


@pytest.mark.thorough
def test_older_days_are_compressed(node: Node) -> None:
    old = [f"{MESSAGES}/2026-01-0{day}.csv" for day in (1, 2, 3)]
    for path in old:
        node.run(["sh", "-c", f"printf 'timestamp,message_body\\n%s\\n' '{LINE}' > {path}; chown ivy:ivy {path}"])
    config = read_config(node)
    write_config(node, {**config, "archive": {"compress_after_days": 2}})
    node.run(["ivy", "restart"])
    node.wait_for(lambda: node.path(f"{old[0]}.gz").exists(), 30, "the first day to be compressed")
    node.wait_for(lambda: not node.path(old[0]).exists(), 10, "the plain one to be gone")
    assert node.run(["stat", "-c", "%U:%G %a", f"{old[0]}.gz"]).stdout == "ivy:ivy 660\n"
    assert node.run(["zcat", f"{old[0]}.gz"]).stdout == f"timestamp,message_body\n{LINE}\n"
    shown = node.run(["ivy", "messages", "--date", "2026-01-01", "--json"]).stdout
    assert json.loads(shown)["message_body"]["data"] == {"old": 1}
    assert node.path(old[2]).exists()
