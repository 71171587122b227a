"""What the tests share: a config, a node to run programs on, and waiting for a condition instead of a time."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pydantic

from ivy import constants
from ivy.types.config import Config

DATA_DIR = Path(constants.IVY_DATA_DIR)
ARCHIVE_DIR = DATA_DIR / "messages"
SECONDS_AT_MOST = 80.0
"""For what takes a second: this machine may be slow, and busy with other tests; only what hangs takes longer."""

_TEMPLATE = json.loads(Path(constants.PROJECT_DIR, "config", "config.template.json").read_text())
# With what the procedures of this checkout need, whichever they are; tests may rely on system_checks alone.
CONFIG: dict[str, Any] = {
    **{name: section for name, section in _TEMPLATE.items() if section is not None},
    "general": {"config_revision": 3, "software_version": "1.0.0", "system_identifier": "node-1"},
    "logging_verbosity": {"file_archive": "DEBUG", "console_prints": "DEBUG", "message_sending": "WARNING"},
    "system_checks": {"seconds_between_checks": 1},
}
BACKEND: dict[str, Any] = {
    "provider": "tenta",
    "mqtt_connection": {
        "host": "localhost",
        "port": 1,
        "client_id": "node-1",
        "username": "hidden-user",
        "password": "hidden-password",
    },
}
UPDATER: dict[str, Any] = {
    "repository": "org/name",
    "provider": "github",
    "provider_host": "github.com",
    "access_token": "hidden-token",
}


def make_config(**sections: Any) -> Config:
    """A config, some of whose sections are given."""
    return Config.load_from_string(json.dumps({**CONFIG, **sections}))


def make_release(release: Path) -> None:
    """Make the directories of a release that keeps its secrets beside its config, as those since 1.1.0 do."""
    (release / "config").mkdir(parents=True)
    (release / "units").mkdir()
    (release / "units" / "ivy-owners.service").touch()


def give_libraries(release: Path) -> None:
    """Let the environment of a release have what ivy imports, also where Debian's packages are not installed."""
    [packages] = (release / ".venv" / "lib").glob("*/site-packages")
    (packages / "libraries.pth").write_text(f"{Path(pydantic.__file__).parents[1]}\n")


def wait_until(condition: Callable[[], object], seconds: float = SECONDS_AT_MOST) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "what was waited for did not happen"
        threading.Event().wait(0.005)


def all_go(processes: Sequence[subprocess.Popen[str]]) -> None:
    """Let processes that wait for a line all go on at once, and well to their end."""
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        _, errors = process.communicate(timeout=240)
        assert (process.returncode, errors) == (0, "")


def record_end(unit: str, ending: str, seconds_ago: int = 1, count: int = 1, lasts: int = 0) -> None:
    """Leave what `units/ivy-report-end` does: how a service ended, the last of `count` times in `lasts` seconds."""
    last = int(time.clock_gettime(time.CLOCK_BOOTTIME)) - seconds_ago
    Path(constants.ENDS_DIR).mkdir(parents=True, exist_ok=True)
    Path(constants.ENDS_DIR, unit).write_text(f"{last - lasts} {last} {last} {count} {ending}\n")


class Node:
    """A release with a config, and fake programs that are found before the real ones."""

    def __init__(self, home: Path, bytecode: Path) -> None:
        self.home = home
        self.release = home / "release"
        self.programs = home / "bin"
        self._calls = home / "calls"
        (self.release / "config").mkdir(parents=True)
        self._calls.touch()
        (self.release / "ivy").symlink_to(Path(constants.PROJECT_DIR, "ivy"))
        self.programs.mkdir()
        self.environment = {
            **os.environ,
            "COLUMNS": "80",
            "PATH": f"{self.programs}:{os.environ['PATH']}",
            "PYDANTIC_DISABLE_PLUGINS": "__all__",  # as in the units
            "PYTHONDONTWRITEBYTECODE": "",
            "PYTHONPATH": str(self.release),
            "PYTHONPYCACHEPREFIX": str(bytecode),
            "PYTHONUNBUFFERED": "1",
        }
        self._started: list[subprocess.Popen[str]] = []

    def write_config(self, **sections: Any) -> None:
        """Give the release a config, some of whose sections are given."""
        (self.release / "config" / "config.json").write_text(json.dumps({**CONFIG, **sections}))

    def fake(self, program: str, answers: dict[str, str]) -> None:
        """Put a fake program on the PATH.

        Args:
            program: Its name.
            answers: What it does, as a line of shell, when its arguments match a pattern of `case`.
        """
        cases = "\n".join(f"{pattern}) {action} ;;" for pattern, action in answers.items())
        script = f'#!/bin/sh\necho "{program} $*" >> "{self._calls}"\ncase "$*" in\n{cases}\nesac\n'
        (self.programs / program).write_text(script)
        (self.programs / program).chmod(0o755)

    def calls(self) -> list[str]:
        """How the fake programs were called."""
        return self._calls.read_text().splitlines()

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start Python with arguments; it is killed when the test ends."""
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=self.home,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._started.append(process)
        return process

    def python(self, *arguments: str) -> str:
        """Run Python with arguments, which must succeed. Returns what it printed."""
        process = self.start(*arguments)
        output, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
        return output

    def ivy(self, *arguments: str) -> tuple[int, str, str]:
        """Run the command `ivy`. Returns status, output and error output."""
        process = self.start("-m", "ivy", *arguments)
        output, errors = process.communicate(timeout=240)
        return process.returncode, output, errors

    def close(self) -> None:
        """Kill what is left."""
        for process in self._started:
            process.kill()
            with contextlib.suppress(ValueError):  # its pipes may be closed already
                process.communicate()


class NotifySocket:
    """What systemd would hear from a service."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(path)

    def next(self, seconds: float = SECONDS_AT_MOST) -> str:
        """The next message; empty if none comes in time."""
        self._socket.settimeout(seconds)
        try:
            return self._socket.recv(65536).decode()
        except TimeoutError:
            return ""

    def until(self, start: str) -> list[str]:
        """All messages up to the first that starts like this."""
        heard = [self.next()]
        while not heard[-1].startswith(start):
            assert heard[-1], f"no {start} after {heard[:-1]}"
            heard.append(self.next())
        return heard

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
