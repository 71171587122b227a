"""`ivy bundle` on a node: what somebody far away gets, of one that has shown its password in journal and units."""

import json
import tarfile

from testbed.bed import Node
from testbed.broker import Broker

from ivy.cli import bundle
from tests.support.backend_node import PASSWORD
from tests.support.installed import use_tenta


def test_all_is_in_it_but_the_secret(node: Node, broker: Broker) -> None:
    use_tenta(node, broker)
    shown = ["systemd-run", "--quiet", "--remain-after-exit", "--unit=ivy-shown", "echo", f"it is {PASSWORD}"]
    node.run(shown, check=False)  # as one of ours it would have to say that it is ready
    node.run(["ivy", "bundle", "/root/bundle.tar.gz"], timeout=300)
    assert node.run(["stat", "--format=%U %a", "/root/bundle.tar.gz"]).stdout == "root 600\n"
    found = {}
    with tarfile.open(node.path("/root/bundle.tar.gz")) as archive:
        for entry in archive:
            file = archive.extractfile(entry)
            assert file is not None
            found[entry.name.partition("/")[2]] = file.read().decode()
    assert found.keys() == {*bundle.PARTS, "problems.txt"}
    assert [name for name, text in found.items() if PASSWORD in text] == []
    assert "it is ***" in found["journal.txt"] and "it is ***" in found["units-properties.txt"]
    for name in ("status", "doctor", "releases", "queue"):
        assert json.loads(found[f"{name}.json"]) and found[f"{name}.txt"]
    assert "ivy-system-checks.service" in found["units.txt"]
    assert json.loads(found["config.json"])["backend"]["mqtt_connection"]["password"] == "***"
    empty = {name for name, text in found.items() if not text.strip()}
    named = {line.partition(": ")[0] for line in found["problems.txt"].splitlines()}
    assert empty <= named, "what is empty must be named"
    print(found["problems.txt"])
