"""What is done on a real node on which ivy is installed, or will be."""

import json
from pathlib import Path
from typing import Any

from testbed.bed import Machine, Node
from testbed.broker import Broker

from tests.support.backend_node import PASSWORD, SENSOR

BACKEND_READY_SECONDS = 30
STEPS_USERS = "ivy-updater,ivy-fetch,ivy-install,ivy-test"
"""Whoever handles what strangers wrote, as pgrep(1) takes them."""

RUN_DIRECTORIES = ("/run/ivy", "/run/ivy-backend", "/run/ivy-busy", "/run/ivy-samples", "/run/ivy-updater")

# Their form is that of real ones; the table's, that of any version.
_FILL = """
import sqlite3, sys, time
queue = sqlite3.connect("/var/lib/ivy/data/active-message-queue.sqlite3", timeout=30)
body = '{"variant":"data","data":{"backlog":%d}}'
rows = ((time.time(), body % number) for number in range(int(sys.argv[1])))
with queue:
    queue.executemany("INSERT INTO QUEUE (timestamp, message_body) VALUES (?, ?)", rows)
"""


def install(node: Node, package: Path) -> None:
    """What a user does, on a node that is not disturbed by this machine's other work."""
    be_calm(node)
    inside = f"/root/{package.name}"
    node.copy_in(package, inside)
    node.run(["apt-get", "install", "--yes", inside], timeout=300)


def be_calm(node: Node) -> None:
    """Hide this machine's load, which a container shares and under which the random walk pauses."""
    node.path("/etc").joinpath("calm-loadavg").write_text("0.10 0.10 0.10 1/100 100\n")
    drop_in = node.path("/etc/systemd/system") / "ivy-system-checks.service.d" / "91-calm.conf"
    drop_in.parent.mkdir(exist_ok=True)
    drop_in.write_text("[Service]\nBindReadOnlyPaths=/etc/calm-loadavg:/proc/loadavg\n")


def keep_answer(node: Node) -> None:
    """Let `ivy/fits.sh` find its answer in copies of this node, as a node does that has booted before.

    After dpkg the answer is another one; and a directory that is seen through two layers has another inode once the
    upper one is frozen.
    """
    updates = "/var/lib/dpkg/updates"
    node.run(["sh", "-ec", f"rmdir {updates} && mkdir {updates}"])
    node.run(["ivy", "--version"])


def read_config(node: Node) -> dict[str, Any]:
    config: dict[str, Any] = json.loads(node.path("/etc/ivy/config.json").read_text())
    return config


def write_config(node: Node, config: dict[str, Any]) -> None:
    """As an admin's editor would: in place, through the link in /etc."""
    node.path("/etc/ivy/config.json").write_text(json.dumps(config, indent=4))


def use_tenta(node: Node, broker: Broker, **settings: Any) -> None:
    """Configure Tenta and restart, as an admin would; returns when the backend is connected."""
    use_backend(node, "tenta", broker.address, broker.port, **settings)


def use_backend(node: Node, provider: str, host: str, port: int, **settings: Any) -> None:
    """The same for any platform."""
    config = read_config(node)
    config["general"]["system_identifier"] = SENSOR
    config["backend"] = {
        "provider": provider,
        "mqtt_connection": {
            "host": host,
            "port": port,
            "client_id": SENSOR,
            "username": SENSOR,
            "password": PASSWORD,
            **settings.pop("connection", {}),
        },
        **settings.pop("backend", {}),
    }
    config.update(settings)
    write_config(node, config)
    node.run(["ivy", "restart"])
    wait_until_connected(node, provider)


def wait_until_connected(node: Node, provider: str = "tenta") -> None:
    def connected() -> bool:
        return unit_property(node, f"ivy-{provider}", "StatusText").startswith("connected to")

    node.wait_for(connected, BACKEND_READY_SECONDS, "the backend to connect")


def unit_property(node: Node | Machine, unit: str, name: str) -> str:
    """A property of a unit, as `systemctl show` tells it."""
    return node.run(["systemctl", "show", "--value", f"--property={name}", f"{unit}.service"]).stdout.strip()


def say_busy(node: Node, unit: str, seconds: int) -> None:
    """Let a procedure not want to be disturbed for so long, as `notify.undisturbed` does in its process."""
    # By then it has taken back what was said before it was started.
    node.wait_for(lambda: unit_property(node, unit, "ActiveState") == "active", 30, f"{unit} to run")
    until = f"read -r now _ </proc/uptime; touch -c -d @$((${{now%.*}} + {seconds})) /run/ivy-busy/{unit}"
    node.run(["sh", "-c", until])


def fill_queue(node: Node, count: int) -> None:
    """Queue samples, known by the key `backlog`: straight into the table, as adding them takes minutes."""
    node.run(["/usr/bin/python3", "-c", _FILL, str(count)], timeout=120)


def queue_length(node: Node) -> int:
    """Messages in the node's queue, by its own account."""
    status = json.loads(node.run(["ivy", "status", "--json"], check=False).stdout)
    return int(status["queue"]["length"])


def be_synchronised(node: Node, *, is_it: bool = True) -> None:
    """Let a time server have come, as systemd-timesyncd says it, or let none have come."""
    note = node.path("/run/systemd/timesync/synchronized")
    note.parent.mkdir(exist_ok=True)
    if is_it:
        note.touch()
    else:
        note.unlink(missing_ok=True)
