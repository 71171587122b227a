"""The demo where no node can boot: the three services in the foreground, against a Mosquitto on this machine."""

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

SERVICES = ("system-checks", "dummy-procedure", "tenta")
SECONDS = 15
VENV = Path(".venv-demo")
SETTINGS = "listener {port} 127.0.0.1\nallow_anonymous true\n"


def run(say: Callable[[str], None]) -> int:
    """Run the services for a while, and print what arrives; returns the exit status."""
    if shutil.which("mosquitto") is None or shutil.which("mosquitto_sub") is None:
        print(
            "It needs Mosquitto; ask an administrator to: apt-get install mosquitto mosquitto-clients",
            file=sys.stderr,
        )
        return 1
    python = _make_venv(say)
    if python is None:
        return 1
    with tempfile.TemporaryDirectory(prefix="ivy-demo-") as directory:
        arrived = _show(say, python, Path(directory))
    say(f"Done: {arrived} publications arrived. What was not shown: supervision, the package, a node of its own.")
    return 0 if arrived else 1


def _make_venv(say: Callable[[str], None]) -> str | None:
    """A Python that has ivy's libraries: the system's, or that of a virtual environment made here."""
    libraries = "import filelock, paho.mqtt.client, psutil, pydantic, sdnotify"
    for python in (sys.executable, str(VENV / "bin" / "python")):
        if shutil.which(python) and subprocess.run([python, "-c", libraries], capture_output=True).returncode == 0:
            return python
    say(f"Making a virtual environment in {VENV}")
    # Not systemd-python, which needs a compiler: by hand, nothing is written to the journal.
    wanted = [
        line for line in Path("packaging/requirements-test.txt").read_text().splitlines() if line[:1].isalpha()
    ]
    needed = [line for line in wanted if line.split("==")[0] in libraries.replace("paho", "paho-mqtt")]
    try:
        subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
        subprocess.run([VENV / "bin" / "pip", "install", "--quiet", *needed], check=True)
    except subprocess.CalledProcessError as error:
        print(f"{error}\nIt needs python3-venv and the network.", file=sys.stderr)
        return None
    return str(VENV / "bin" / "python")


def _show(say: Callable[[str], None], python: str, directory: Path) -> int:
    port = _free_port()
    (directory / "mosquitto.conf").write_text(SETTINGS.format(port=port))
    release = _make_release(directory, port)
    processes = [
        subprocess.Popen(["mosquitto", "-c", str(directory / "mosquitto.conf")], stderr=subprocess.DEVNULL)
    ]
    seen = directory / "seen"
    try:
        _wait_for_port(port)
        with seen.open("w") as output:
            listen = ["mosquitto_sub", "-p", str(port), "-t", "#", "-v"]
            processes.append(subprocess.Popen(listen, stdout=output))
        say(f"For {SECONDS} s: {', '.join(SERVICES)}, and what arrives at the broker")
        environment = {**os.environ, "IVY_ROOT_DIR": str(directory / "root")}
        for service in SERVICES:
            command = [python, "-m", "ivy", "run", service]
            processes.append(subprocess.Popen(command, cwd=release, env=environment))
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
    config["general"]["system_identifier"] = "demo"
    config["dummy_procedure"]["seconds_between_datapoints"] = 1
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
