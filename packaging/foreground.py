"""The demo where no node can boot: two services in the foreground, against a Mosquitto on this machine."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from testbed import run as command
from testbed.broker import sensor_of
from testbed.run import BedError

SERVICES = ("system-checks", "tenta")
SECONDS = 15
VENV = Path(".venv-demo").absolute()
SETTINGS = "listener {port} 127.0.0.1\nallow_anonymous true\n"
# Not systemd-python, which needs a compiler: by hand, nothing is written to the journal.
LIBRARIES = {"filelock", "paho-mqtt", "psutil", "pydantic", "sdnotify"}
PACKAGES = ["mosquitto", "mosquitto-clients", "python3-venv"]
HINT = f"As root: apt-get update && apt-get install {' '.join(PACKAGES)}"


def run(say: Callable[[str], None]) -> int:
    """Run the services for a while, and print what arrives; returns the exit status.

    Raises:
        BedError: Something is missing; the text says what to do.
    """
    if os.geteuid() == 0:
        say(f"Installing {', '.join(PACKAGES)}")
        apt_get = ["apt-get", "--quiet", "--yes"]
        command.run([*apt_get, "update"], timeout=300)
        command.run([*apt_get, "install", *PACKAGES], timeout=300, env={"DEBIAN_FRONTEND": "noninteractive"})
    elif not all(shutil.which(program, path=command.PATH) for program in ("mosquitto", "mosquitto_sub")):
        raise BedError("Mosquitto is not installed", HINT)
    python = _make_venv(say)
    with tempfile.TemporaryDirectory(prefix="ivy-demo-") as directory:
        arrived = _show(say, python, Path(directory))
    say(f"Done: {arrived} publications arrived. Not shown: supervision, the package, a node of its own.")
    return 0 if arrived else 1


def _make_venv(say: Callable[[str], None]) -> str:
    """A Python that has ivy's libraries."""
    if not VENV.exists():
        say(f"Making a virtual environment in {VENV}")
        lines = Path("packaging/requirements-test.txt").read_text().splitlines()
        needed = [line for line in lines if line.split("==")[0] in LIBRARIES]
        beside = VENV.with_suffix(".new")
        command.run([sys.executable, "-m", "venv", "--clear", beside], hint=HINT)
        command.run([beside / "bin" / "pip", "install", *needed], timeout=300, hint="Is there a network?")
        beside.rename(VENV)
    return str(VENV / "bin" / "python")


def _show(say: Callable[[str], None], python: str, directory: Path) -> int:
    port = _free_port()
    (directory / "mosquitto.conf").write_text(SETTINGS.format(port=port))
    release = _make_release(directory, port)
    processes = [command.popen(["mosquitto", "-c", str(directory / "mosquitto.conf")], stderr=subprocess.DEVNULL)]
    seen = directory / "seen"
    try:
        _wait_for_port(port)
        with seen.open("w") as output:
            listen = ["mosquitto_sub", "-p", str(port), "-t", "#", "-v"]
            processes.append(command.popen(listen, stdout=output))
        say(f"For {SECONDS} s: {', '.join(SERVICES)}, and what arrives at the broker")
        environment = {"IVY_ROOT_DIR": str(directory / "root")}
        for service in SERVICES:
            processes.append(command.popen([python, "-m", "ivy", "run", service], cwd=release, env=environment))
        return _print_arrivals(seen)
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            process.wait()


def _make_release(directory: Path, port: int) -> Path:
    release = directory / "release"
    shutil.copytree("ivy", release / "ivy", ignore=shutil.ignore_patterns("__pycache__"))
    config = json.loads(Path("config/config.template.json").read_text())
    config["general"]["system_identifier"] = sensor_of("demo")
    config["system_checks"]["seconds_between_checks"] = 1
    broker = {"host": "127.0.0.1", "port": port, "client_id": "demo", "username": "demo", "password": "demo"}
    config["backend"] = {"provider": "tenta", "mqtt_connection": broker}
    (release / "config").mkdir()
    (release / "config" / "config.json").write_text(json.dumps(config))
    (directory / "root").mkdir()
    return release


def _print_arrivals(seen: Path) -> int:
    printed = 0
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        lines = seen.read_text().splitlines()
        for line in lines[printed:]:
            print(f"  at the broker: {line[:130]}")
        printed = len(lines)
        time.sleep(0.2)
    return printed


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for_port(port: int) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise TimeoutError(f"mosquitto does not listen on port {port}")
