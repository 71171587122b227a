"""A config on trial, as a backend finds it on the disk."""

import json
from typing import Any

from ivy.utils.updates.releases import Releases
from ivy.version import Version
from tests.support.backend_node import Node


def try_out(node: Node, **changed: Any) -> Releases:
    """Let the node's config be on trial; the accepted one is another in one part of its connection."""
    releases, version = Releases(node.data.parent), Version("1.0.0")
    releases.config_file(version).parent.mkdir(parents=True)
    releases.activate(version)
    connection = {**node.config["backend"]["mqtt_connection"], **changed}
    accepted = {**node.config, "backend": {**node.config["backend"], "mqtt_connection": connection}}
    releases.write_config(version, json.dumps(accepted))
    releases.begin_probation()
    releases.write_config(version, json.dumps(node.config))
    return releases
