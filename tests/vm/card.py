"""What a card's machine is told, and asked."""

import json
from typing import Any

from testbed.bed import Machine
from testbed.broker import Broker
from testbed.waiting import wait_for

from tests.support.backend_node import PASSWORD
from tests.support.recorder import Recorder

FIRST = "81bf7042-e20f-4a97-ac44-c15853e3618f"
REPOSITORY = "university/ivy"
DELIVERY_SECONDS = 60
# The random walk pauses under load, as there is where a machine is emulated and has just booted.
CALM = {"procedures": {"dummy_procedure": {"max_silent_seconds": 3600}}}


def tenta(broker: Broker, sensor: str) -> dict[str, Any]:
    """The sections of a config that let it send to a broker as a sensor of Tenta."""
    login = {"client_id": sensor, "username": sensor, "password": PASSWORD}
    connection = {"host": broker.address, "port": broker.port, **login}
    return {
        "general": {"system_identifier": sensor},
        "backend": {"provider": "tenta", "mqtt_connection": connection},
        "updater": {"repository": REPOSITORY, "provider": "github", "provider_host": "github.com"},
        **CALM,
    }


def offer(machine: Machine, broker: Broker, sensor: str) -> None:
    """Give it such a config, by hand."""
    config: dict[str, Any] = json.loads(machine.run(["cat", "/etc/ivy/config.json"]).stdout)
    sections = tenta(broker, sensor)
    config |= sections | {"general": config["general"] | sections["general"]}
    machine.run(["sh", "-c", "umask 077; cat >/root/config.json"], input=json.dumps(config))
    machine.run(["ivy", "config", "apply", "/root/config.json"], timeout=300)


def write(machine: Machine, path: str, text: str) -> None:
    """Write a file of its."""
    machine.run(["sh", "-c", f"cat >{path}"], input=text)


def wait_for_new_samples(recorder: Recorder, what: str) -> None:
    """Of after now, by the time of their arrival; a backlog, or a sample of now."""
    before = len(recorder.elements("measurements"))
    wait_for(lambda: len(recorder.elements("measurements")) > before, DELIVERY_SECONDS, what, interval=0.5)


def identity(machine: Machine) -> dict[str, set[str]]:
    """What makes it this card and no other."""
    asked = {
        "host name": "hostname",
        "machine-id": "cat /etc/machine-id",
        "host keys": "cut -d ' ' -f 2 /etc/ssh/ssh_host_*_key.pub",
        "random seed": "sha256sum </var/lib/systemd/random-seed",
    }
    return {
        name: set(machine.run(["sh", "-c", script]).stdout.split("\n")) - {""} for name, script in asked.items()
    }
