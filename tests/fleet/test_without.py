"""The end of nodes: after all other tests, as the alphabet has it."""

from tests.fleet.conftest import Provisioned

BROUGHT = ["/etc/apt/preferences.d/ivy-fleet", "/etc/apt/sources.list.d/ivy.sources", "/etc/apt/keyrings/ivy.asc"]


def test_a_retired_node_has_sent_all_and_keeps_nothing(provisioned: Provisioned) -> None:
    fleet, node = provisioned.fleet, provisioned.fleet.nodes["n3"]
    assert node.path(BROUGHT[0]).exists()
    fleet.desk.play("retire").succeeded()
    assert node.path("/usr/bin/ivy").exists(), "nobody has named it"
    fleet.broker.stop()
    refused = fleet.desk.play("retire", ivy_nodes="n3")
    fleet.broker.start()
    assert refused.status != 0 and "messages were not sent" in refused.output
    node.run(["ivy", "start"])
    node.wait_for(lambda: fleet.status("n3")["well"], 120, "what waited to be sent")
    fleet.desk.play("retire", ivy_nodes="n3").succeeded()
    for path in ("/etc/ivy", "/var/lib/ivy", "/usr/bin/ivy", *BROUGHT):
        assert not node.path(path).exists(), path
