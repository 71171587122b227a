"""The demo: one node, one broker, ivy installed with apt; telemetry, a crash, an outage. Judges what it shows.

Not a test: the tests look closer. Where nodes cannot boot, `foreground.py` shows what can be shown there.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import foreground
from testbed.bed import Bed, Node, why_not
from testbed.broker import OPERATOR, Broker, sensor_of
from testbed.cli import PASSWORD
from testbed.run import BedError, popen
from testbed.waiting import wait_for

T = TypeVar("T")

BED = "demo"
NODE = "n1"
SENSOR = sensor_of(NODE)
OUTAGE_SAMPLES = 8
STARTED = time.monotonic()
CONFIGURE = """\
import json, sys
path = "/etc/ivy/config.json"
config = json.load(open(path))
config["general"]["system_identifier"] = sys.argv[2]
config["system_checks"]["seconds_between_checks"] = 1
config["logging_verbosity"]["message_sending"] = "INFO"
config["backend"] = {"provider": "tenta", "mqtt_connection": {"host": sys.argv[1], "port": 1883,
    "client_id": sys.argv[2], "username": sys.argv[2], "password": sys.argv[3]}}
json.dump(config, open(path, "w"), indent=4)
"""


def main() -> int:
    """Run the demo; returns the exit status: 0 if everything was as it should be."""
    parser = argparse.ArgumentParser(prog="packaging/demo", description="Show ivy's main job on this machine.")
    parser.add_argument("--keep", action="store_true", help="leave the node up at the end, to look around")
    keep = parser.parse_args().keep
    try:
        reason = why_not()
        if reason is not None:
            say(f"No node can boot here: {reason}")
            print("The services run in the foreground instead: no supervision, no package.")
            return foreground.run(say)
        run_on_a_node(keep)
        return 0
    except BedError as error:
        print(f"\npackaging/demo failed: {error}", file=sys.stderr)
        print("Look around: IVY_TESTBED=demo packaging/testbed/testbed list", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def run_on_a_node(keep: bool) -> None:
    """The demo itself."""
    bed = Bed(BED)
    bed.down()  # what an earlier one may have left
    say("Building the package in a clean Debian 13 (the first time, that Debian is made: a minute or two)")
    run_visibly(["packaging/build-deb"])
    package = max(Path("dist").glob("ivy_*_all.deb"), key=lambda path: path.stat().st_mtime)
    bed.up()
    try:
        say("Booting a node: Debian 13 with systemd, in a container")
        node = bed.node(NODE)
        node.boot()
        users = {OPERATOR: PASSWORD, SENSOR: PASSWORD}
        with (
            Broker(bed.address, users=users, directory=bed.directory / "broker") as broker,
            Operator(broker) as seen,
        ):
            proved = show(node, package, broker, seen)
    finally:
        if not keep:
            bed.down()
    say("Proved")
    for line in proved:
        print(f"  ✓ {line}")
    print(f"\nDone in {time.monotonic() - STARTED:.0f} s." + (f"\n{LOOK_AROUND}" if keep else ""))


LOOK_AROUND = """\
The node is still up:
  export IVY_TESTBED=demo
  packaging/testbed/testbed exec n1 ivy status
  packaging/testbed/testbed exec n1 systemctl status 'ivy-*'
  packaging/testbed/testbed exec n1 ivy messages
  packaging/testbed/testbed logs n1 -u ivy-tenta
  packaging/testbed/testbed shell n1
  packaging/testbed/testbed broker          # the broker again, until Ctrl-C
  packaging/testbed/testbed down            # all gone"""


class Operator:
    """Who subscribes to everything at the broker and reads it as it comes."""

    def __init__(self, broker: Broker) -> None:
        address = ["-h", broker.address, "-p", str(broker.port), "-u", OPERATOR, "-P", PASSWORD]
        session = ["-i", OPERATOR, "--disable-clean-session", "-q", "1"]
        self._file = broker.directory / "seen"
        with self._file.open("w") as output:
            command = ["mosquitto_sub", *address, *session, "-t", "#", "-v"]
            self._process = popen(["setpriv", "--pdeathsig=KILL", *command], stdout=output)

    def __enter__(self) -> "Operator":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def lines(self) -> list[str]:
        """Everything so far, `topic payload` each."""
        return self._file.read_text().splitlines()

    def timestamps(self) -> list[float]:
        """The sampling times of all measurements so far."""
        payloads = [line.split(" ", 1)[1] for line in self.lines() if line.startswith("measurements/")]
        elements = [element for payload in payloads for element in json.loads(payload)]
        return [element["timestamp"] for element in elements]


def show(node: Node, package: Path, broker: Broker, seen: Operator) -> list[str]:
    """All scenes; returns what each has proved."""
    return [
        install(node, package),
        configure(node, broker),
        telemetry(seen),
        crash(node, seen),
        outage(node, broker, seen),
    ]


def install(node: Node, package: Path) -> str:
    """`apt install`, and the node samples."""
    say(f"On the node: apt install ./{package.name}")
    node.copy_in(package, f"/root/{package.name}")
    began = time.monotonic()
    node.run(["apt-get", "install", "--yes", f"/root/{package.name}"], timeout=300)
    took = time.monotonic() - began
    wait_until("the services to run", 20, lambda: node.run(["ivy", "status"], check=False).returncode == 0)
    print(node.run(["ivy", "status"]).stdout)
    return f"installed on a bare Debian 13 by apt in {took:.0f} s; it samples at once"


def configure(node: Node, broker: Broker) -> str:
    """A backend in the config, and what systemd shows then."""
    say("On the node: a Tenta backend goes into /etc/ivy/config.json; then ivy config validate, ivy restart")
    node.run(["/usr/bin/python3", "-c", CONFIGURE, broker.address, SENSOR, PASSWORD])
    print(node.run(["ivy", "config", "validate"]).stdout, end="")
    print(node.run(["ivy", "restart"]).stdout, end="")
    wait_until("the backend to connect", 20, lambda: node.run(["ivy", "status"], check=False).returncode == 0)
    say("On the node: systemctl status 'ivy-*'")
    shown = node.run(["systemctl", "status", "--no-pager", "--lines=0", "ivy-*"], check=False).stdout
    wanted = ("●", "Active:", "Status:", "Memory:")
    print("\n".join(line for line in shown.splitlines() if line.strip().startswith(wanted)))
    return "each procedure and the backend is a systemd service with a status line of its own"


def telemetry(seen: Operator) -> str:
    """Telemetry as it arrives."""
    say("At the broker: telemetry as it arrives")
    printed = 0
    until = time.monotonic() + 6
    while time.monotonic() < until or not seen.timestamps():
        lines = seen.lines()
        for line in lines[printed:]:
            print(f"  {line[:150]}")
        printed = len(lines)
        time.sleep(0.2)
        if time.monotonic() > until + 20:
            raise BedError("no telemetry arrived", "Look at packaging/testbed/testbed logs n1 -u ivy-tenta")
    return f"{len(seen.timestamps())} samples arrived while you watched, stamped with the time of their sampling"


def crash(node: Node, seen: Operator) -> str:
    """A service is killed."""
    say("On the node: kill -9 of a procedure")
    old = main_pid(node)
    node.run(["systemctl", "kill", "--signal=KILL", "--kill-whom=main", "ivy-system-checks"])
    report = wait_until(
        "the crash report at the broker",
        30,
        lambda: next((line for line in seen.lines() if "ended unexpectedly" in line), None),
    )
    new = wait_until("the restart", 30, lambda: (pid := main_pid(node)) not in (old, "0") and pid)
    print(f"  systemd started it again: process {old} -> {new}\n  the operator was told: {report[:150]}")
    return "a killed service was restarted by systemd, and its crash reported to the operator"


def outage(node: Node, broker: Broker, seen: Operator) -> str:
    """The broker goes away and comes back."""
    say("The broker is stopped; the node samples on")
    broker.stop()
    before = archived(node)
    wait_until("samples in the queue", 60, lambda: len(archived(node)) >= len(before) + OUTAGE_SAMPLES)
    print(node.run(["ivy", "status"], check=False).stdout)
    say("The broker is back")
    broker.start()
    taken = set(archived(node))
    wait_until("all samples at the broker", 90, lambda: taken <= set(seen.timestamps()))
    arrived = seen.timestamps()
    lost, twice = len(taken - set(arrived)), len(arrived) - len(set(arrived))
    print(f"  {len(taken)} samples in the node's archive, {lost} missing at the broker, {twice} there twice")
    return f"an outage of the broker lost nothing: all {len(taken)} samples arrived"


def main_pid(node: Node) -> str:
    """The procedure's process."""
    return node.run(["systemctl", "show", "--value", "--property=MainPID", "ivy-system-checks"]).stdout.strip()


def archived(node: Node) -> list[float]:
    """The sampling times of all measurements today, from the archive."""
    text = node.run(["ivy", "messages", "--json"]).stdout
    messages = [json.loads(line) for line in text.splitlines()]
    return [m["timestamp"] for m in messages if m["message_body"]["variant"] == "data"]


def wait_until(what: str, timeout: float, condition: Callable[[], T | None]) -> T:
    """Wait for a condition; the error says what to do."""
    try:
        return wait_for(condition, timeout, what, interval=0.2)
    except BedError as error:
        hint = "Run packaging/demo --keep, then: IVY_TESTBED=demo packaging/testbed/testbed logs n1"
        raise BedError(error.message, hint) from None


def run_visibly(command: list[str]) -> None:
    """Run a program that shows its own progress; for a build, without the tests, which are not the demo's job."""
    if subprocess.run(command, env={**os.environ, "DEB_BUILD_OPTIONS": "nocheck"}).returncode != 0:
        raise BedError(f"{' '.join(command)} failed, see above")


def say(text: str) -> None:
    """Announce a scene."""
    print(f"\n\033[1m[{time.monotonic() - STARTED:3.0f} s] {text}\033[0m", flush=True)


if __name__ == "__main__":
    sys.exit(main())
