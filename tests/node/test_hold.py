"""`ivy hold` on a node: what waits, what is refused, what samples; across a boot, and when its time is up."""

import json
from typing import Any

from testbed.bed import Node

from tests.support.installed import unit_property
from tests.support.update_site import DECISION_SECONDS, UpdateSite

MAST = "the mast is being painted"
SAMPLER = "ivy-dummy-procedure"
KEPT = "ivy-system-checks"


def status(node: Node) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(node.run(["ivy", "status", "--json"], check=False).stdout)
    return found


def state(node: Node, unit: str) -> str:
    return unit_property(node, unit, "ActiveState")


def test_what_is_offered_waits_for_the_end_of_a_hold(site: UpdateSite) -> None:
    node = site.node
    site.accepts(archive={"max_days": 100})
    node.run(["ivy", "hold", MAST])
    process = unit_property(node, SAMPLER, "MainPID")
    revision = site.offer(archive={"max_days": 101})
    told = site.wait_for_log(f"Config revision {revision} for", "is waiting: this node is held until ")
    assert told.rstrip().endswith(MAST)
    assert status(node)["hold"]["reason"] == MAST
    for command in (["config", "apply", "/etc/ivy/config.json"], ["restart"], ["rollback"]):
        refused = node.run(["ivy", *command], check=False)
        assert refused.returncode == 1 and MAST in refused.stderr
    assert unit_property(node, SAMPLER, "MainPID") == process

    node.run(["ivy", "hold", "--stop", MAST])
    assert (state(node, SAMPLER), state(node, KEPT)) == ("inactive", "active")
    node.run(["ivy", "hold", MAST])
    site.wait_for_samples()
    node.run(["ivy", "hold", "--stop", MAST])

    node.reboot()
    node.wait_for(lambda: status(node)["backend"]["connected"], 60, "the link after the boot")
    node.wait_for(lambda: MAST in unit_property(node, "ivy-updater", "StatusText"), 30, "the pass to wait")
    assert (state(node, SAMPLER), state(node, KEPT)) == ("inactive", "active")
    node.wait_for(lambda: status(node)["problems"] == [], 30, "no problem")
    found = status(node)
    assert found["hold"]["stop"]
    assert [unit["state"] for unit in found["units"] if unit["name"] == f"{SAMPLER}.service"] == [
        "stopped by the hold"
    ]
    assert revision not in [number for _, number in site.platform.decisions()]

    # Its time is up soon.
    node.run(["ivy", "hold", "--for", "20", "--stop", "the mast is nearly done"])
    assert site.decision(revision, DECISION_SECONDS + 60), site.reason(revision)
    site.wait_for_log("The time is up for which this node was held: the mast is nearly done")
    site.wait_for_samples()
    assert status(node)["hold"] is None and not node.path("/var/lib/ivy/hold.json").exists()
    site.check_each_was_decided_once()
