"""The test of a release that tries to harm the node; run there by the updater. Fails, and says what it could do."""

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.version_change

RELEASE = Path(__file__).resolve().parents[2]
# Not below /var/lib/ivy/data: there is a directory of its own.
WRITTEN = (
    "/var/lib/ivy/canary",
    "/var/lib/ivy/updates.json",
    "/var/lib/ivy/backend/state.json",
    "/var/lib/ivy/backend/canary",
    "/run/ivy-backend/canary",
    "/var/lib/ivy/source.git/canary",
    "/run/ivy/canary",
    "/run/canary",
    "/etc/canary",
    f"{RELEASE}/ivy/canary",
    f"{RELEASE}/config/config.json",
)
READ = (
    "/etc/shadow",
    "/etc/ivy/node.key",
    "/var/lib/ivy/updates.json",
    "/var/lib/ivy/backend/state.json",
    "/var/lib/ivy/data/active-message-queue.sqlite3",
    "/var/lib/ivy/current/config/config.json",
    "/var/lib/ivy/current/config/secrets.json",
    f"{RELEASE}/config/secrets.json",
)
ENOUGH = 300  # processes: more than TasksMax= allows


def _write(path: str) -> None:
    with open(path, "a") as file:
        file.write("x")


def _read_password() -> None:
    text = (RELEASE / "config" / "config.json").read_text()
    if '"password"' not in text or "a-password-for-tests" not in text:
        raise PermissionError("there is none to be seen")


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
    for path in READ:
        attempts[f"read {path}"] = lambda p=path: Path(p).read_bytes()  # type: ignore[misc]
    attempts["read a password"] = _read_password
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
