"""What a card's machine is told, and asked."""

import json
from typing import Any

from testbed.bed import Machine
from testbed.broker import Broker
from testbed.waiting import wait_for

from tests.support.backend_node import PASSWORD
from tests.support.recorder import Recorder

FIRST = "81bf7042-e20f-4a97-ac44-c15853e3618f"
SECOND = "2f0c7f6e-5a0e-4dd5-8f3e-0d1b5a3c9a51"
DELIVERY_SECONDS = 60


def offer(machine: Machine, broker: Broker, sensor: str) -> None:
    """Let it send to a broker as a sensor of Tenta, by hand."""
    config: dict[str, Any] = json.loads(machine.run(["cat", "/etc/ivy/config.json"]).stdout)
    config["general"]["system_identifier"] = sensor
    config["backend"] = {
        "provider": "tenta",
        "mqtt_connection": {
            "host": broker.address,
            "port": broker.port,
            "client_id": sensor,
            "username": sensor,
            "password": PASSWORD,
        },
    }
    # It rests under load, and a machine that is emulated has just booted.
    config["procedures"] = {"dummy_procedure": {"max_silent_seconds": 3600}}
    machine.run(["sh", "-c", "umask 077; cat >/root/config.json"], input=json.dumps(config))
    machine.run(["ivy", "config", "apply", "/root/config.json"], timeout=300)


def wait_for_new_samples(recorder: Recorder, what: str) -> None:
    """Of after now, by the time of their arrival; a backlog, or a sample of now."""
    before = len(recorder.elements("measurements"))
    wait_for(lambda: len(recorder.elements("measurements")) > before, DELIVERY_SECONDS, what, interval=0.5)


def identity(machine: Machine) -> dict[str, str]:
    """What makes it this card and no other."""
    asked = {
        "machine-id": "cat /etc/machine-id",
        "host key": "cat /etc/ssh/ssh_host_ed25519_key.pub",
        "random seed": "sha256sum /var/lib/systemd/random-seed",
    }
    return {name: machine.run(["sh", "-c", script]).stdout.strip() for name, script in asked.items()}
