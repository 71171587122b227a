"""The test of a release that tries to harm the node; run there by the updater. Fails, and says what it could do."""

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.version_change

RELEASE = Path(__file__).resolve().parents[2]
WRITTEN = (
    "/var/lib/ivy/canary",
    "/var/lib/ivy/updates.json",
    "/var/lib/ivy/data/canary",
    "/var/lib/ivy/data/state.json",
    "/var/lib/ivy/source.git/canary",
    "/run/ivy/canary",
    "/run/canary",
    "/etc/canary",
    f"{RELEASE}/ivy/canary",
    f"{RELEASE}/config/config.json",
)
ENOUGH = 300  # processes: more than TasksMax= allows


def _write(path: str) -> None:
    with open(path, "a") as file:
        file.write("x")


def _kill() -> None:
    """Whoever can be seen but this process itself."""
    others = [int(process.name) for process in Path("/proc").glob("[0-9]*") if int(process.name) != os.getpid()]
    if not others:
        raise ProcessLookupError("nobody to be seen")
    for process in others:
        os.kill(process, 9)


def _fork() -> None:
    for _ in range(ENOUGH):
        if os.fork() == 0:
            os.setsid()  # nobody's child any more
            time.sleep(1000)
            os._exit(0)


def test_harm() -> None:
    attempts: dict[str, Callable[[], object]] = {f"write {path}": lambda p=path: _write(p) for path in WRITTEN}  # type: ignore[misc]
    attempts["read secrets"] = lambda: Path("/etc/shadow").read_text()
    attempts["reach the broker"] = lambda: socket.create_connection(("BROKER_ADDRESS", 1883), 2)
    attempts["become root"] = lambda: os.setuid(0)
    attempts["kill the first process"] = lambda: os.kill(1, 9)
    attempts["kill the others"] = _kill
    attempts["start too many processes"] = _fork
    done = []
    for name, attempt in attempts.items():
        try:
            attempt()
            done.append(name)
        except OSError:
            continue
    pytest.fail(f"harm done: {done}")
