"""A backend as a process of its own, as its unit runs it, on a data directory of the test's.

Not for several services at once, and without systemd: see `tests/node` for those.
"""

import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self, TypeAlias

from testbed.run import PATIENCE
from testbed.waiting import wait_for

from tests.support import queue_file
from tests.support.helpers import CONFIG

Process: TypeAlias = subprocess.Popen[str]

PROJECT = Path(__file__).resolve().parents[2]
SENSOR = "81bf7042-e20f-4a97-ac44-c15853e3618f"
PASSWORD = "a-password-for-tests"

_CONNECTION_KEYS = ("host", "client_id", "username", "password", "tls", "protocol")

_WRITER = """
import json, sys
from ivy.types.messages import MessageQueueItem
from ivy.utils.host import clock
from ivy.utils.messaging_agent import MessagingAgent
clock.is_synchronised = lambda: True  # whatever this machine's clock is
agent = MessagingAgent()
for line in sys.stdin:
    for body in json.loads(line):
        item = MessageQueueItem(identifier=0, timestamp=0, message_body=body)
        agent.add_message(item.message_body)
    print(flush=True)
"""

_HURRIED = """
import functools, json, os
from ivy.backend import forwarder
from ivy.backend.delays import Delays
delays = Delays(**json.loads(os.environ["HURRY"]))
forwarder.run = functools.partial(forwarder.run, delays=delays)
from ivy.cli.main import main
main()
"""


def environment(release: Path, data: Path) -> dict[str, str]:
    """What ivy's processes need, and what its units set."""
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(release),
        "IVY_ROOT_DIR": str(data.parent),
        "IVY_DATA_DIR": str(data),
        "PYDANTIC_SKIP_VALIDATING_CORE_SCHEMAS": "1",
        "PYDANTIC_DISABLE_PLUGINS": "__all__",
        "MALLOC_ARENA_MAX": "1",
        "PYTHONTZPATH": "/usr/share/zoneinfo",
        "PYTHONUNBUFFERED": "1",
    }


def data_message(**data: float | int | str) -> dict[str, Any]:
    """The body of a data message."""
    return {"variant": "data", "data": data}


def config_message(status: str, revision: int) -> dict[str, Any]:
    """The body of a config message."""
    config = {"general": {"config_revision": revision, "software_version": "1.0.0"}}
    return {"variant": "config", "status": status, "config": config}


class StatusLine:
    """What systemd would show: keeps the texts that a service sent with `STATUS=`."""

    def __init__(self, path: Path) -> None:
        self.texts: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        while datagram := self._socket.recv(4096):
            for line in datagram.decode().splitlines():
                if line.startswith("STATUS="):
                    self.texts.append(line.removeprefix("STATUS="))

    def close(self) -> None:
        """Stop reading."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()


class Node:
    """One release, one data directory, one backend process. Closing it leaves no process behind."""

    def __init__(self, directory: Path, port: int, **backend: Any) -> None:
        """Lay out a node.

        Args:
            directory: Where everything goes.
            port: The port of the broker on 127.0.0.1.
            backend: More for the config's section `backend`; `tls`, `password` and so on for its `mqtt_connection`.
        """
        self.data = directory / "data"
        self._release = directory / "release"
        self.programs = directory / "programs"
        self._log = directory / "log"
        self._processes: list[Process] = []
        self._writer: Process | None = None
        self.data.mkdir(parents=True)
        (self._release / "config").mkdir(parents=True)
        (self._release / "ivy").symlink_to(PROJECT / "ivy")
        self.config = _config(port, backend)
        self.write_config(self.config)
        self.status = StatusLine(directory / "notify")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
            process.communicate()
        self.status.close()

    def write_config(self, config: dict[str, Any]) -> None:
        """Replace the config."""
        self.config_file.write_text(json.dumps(config))

    @property
    def config_file(self) -> Path:
        """The file with the config."""
        return self._release / "config" / "config.json"

    def start(self, service: str | None = None, hurry: Mapping[str, float] = MappingProxyType({})) -> Process:
        """Start a service.

        Args:
            service: Its name; the config's backend if none is given.
            hurry: What of the backend's `Delays` is another than usual.
        """
        entry = ["-c", _HURRIED] if hurry else ["-m", "ivy"]
        extra = {"HURRY": json.dumps(dict(hurry)), "NOTIFY_SOCKET": str(self._log.with_name("notify"))}
        with self._log.open("a") as log:
            name = service or self.config["backend"]["provider"]
            process = self.spawn([*entry, "run", name], extra, stdout=log, stderr=log)
        return process

    def fake(self, program: str, action: str) -> None:
        """Let the node's processes find another program of that name; `action` is a line of shell."""
        self.programs.mkdir(exist_ok=True)
        (self.programs / program).write_text(f"#!/bin/sh\n{action}\n")
        (self.programs / program).chmod(0o755)

    def spawn(
        self, arguments: list[str], extra: Mapping[str, str] = MappingProxyType({}), **options: Any
    ) -> Process:
        """Start a Python process that finds ivy and its data as a service does. It ends with this node."""
        inherited = environment(self._release, self.data)
        process: Process = subprocess.Popen(
            [sys.executable, *arguments],
            env={**inherited, "PATH": f"{self.programs}:{inherited['PATH']}", **extra},
            cwd=self._release,
            text=True,
            **options,
        )
        self._processes.append(process)
        return process

    @property
    def log(self) -> str:
        """What the backend has printed."""
        return self._log.read_text() if self._log.exists() else ""

    @property
    def link(self) -> dict[str, Any]:
        """What `link.json` says; nothing if there is none yet."""
        try:
            report: dict[str, Any] = json.loads((self.data / "run-backend" / "link.json").read_text())
        except FileNotFoundError:
            return {}
        return report

    def wait_until_connected(self) -> None:
        """Wait until the backend says that it is connected."""
        wait_for(lambda: self.link.get("connected"), 10, "the backend to connect")

    def pending(self) -> list[dict[str, Any]]:
        """The config offers that wait."""
        try:
            state = json.loads((self.data / "backend" / "state.json").read_text())
        except FileNotFoundError:
            return []
        offers: list[dict[str, Any]] = state["pending_configs"]
        return offers

    def archive(self) -> str:
        """The archive of all messages, as it stands on the disk."""
        return "".join(path.read_text() for path in sorted((self.data / "messages").glob("*.csv")))

    def add(self, *bodies: dict[str, Any]) -> None:
        """Add messages as a procedure does, from another process; returns when they are in the queue."""
        if self._writer is None:
            self._writer = self.spawn(["-c", _WRITER], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        if self._writer.stdin is None or self._writer.stdout is None:
            raise AssertionError("the writer has no pipes")
        self._writer.stdin.write(json.dumps(bodies) + "\n")
        self._writer.stdin.flush()
        if not self._writer.stdout.readline():
            raise AssertionError("the writer ended")

    def fill(self, bodies: Iterable[dict[str, Any]]) -> None:
        """Put many messages into the queue at once, behind the back of ivy, but in its form."""
        self.add()  # makes the database
        with self._database() as database:
            rows = [(time.time(), json.dumps(body)) for body in bodies]
            database.executemany("INSERT INTO QUEUE (timestamp, message_body) VALUES (?, ?)", rows)
            queue_file.count_as_archived(database)

    def queue_length(self) -> int:
        """How many messages are in the queue."""
        with self._database() as database:
            [[length]] = database.execute("SELECT COUNT(*) FROM QUEUE")
        return int(length)

    def execute(self, statement: str) -> list[Any]:
        """Run a statement on the queue, behind the back of ivy."""
        with self._database() as database:
            return database.execute(statement).fetchall()

    @contextlib.contextmanager
    def holding_the_queue(self) -> Generator[None, None, None]:
        """Keep everybody else from writing to it."""
        with self._database() as database:
            database.execute("BEGIN IMMEDIATE")
            yield

    def stop_all(self) -> None:
        """Let the services end, each in its own time."""
        for process in self._processes:
            if process.stdin is None:
                stop(process, 20)

    def queue_bytes(self) -> int:
        """Bytes of the queue's file."""
        return (self.data / "active-message-queue.sqlite3").stat().st_size

    def wait_until_empty(self, timeout: float = 10) -> None:
        """Wait until the queue is empty."""
        wait_for(lambda: self.queue_length() == 0, timeout, "the queue to be empty")

    @contextlib.contextmanager
    def _database(self) -> Generator[sqlite3.Connection, None, None]:
        database = sqlite3.connect(self.data / "active-message-queue.sqlite3", timeout=30)
        try:
            with database:
                yield database
        finally:
            database.close()


def stop(process: Process, timeout: float) -> int:
    """Send SIGTERM, and return the exit status; `timeout` is as for `ended`."""
    process.send_signal(signal.SIGTERM)
    return ended(process, timeout)


def ended(process: Process, timeout: float = 20) -> int:
    """Wait for the end of a process, and return its status.

    Args:
        process: It must be about to end.
        timeout: How long a machine may take that has nothing else to do, in seconds.
    """
    return process.wait(PATIENCE * timeout)


def wake_ups(pid: int) -> int:
    """How often the threads of a process have waited for something so far: its voluntary context switches."""
    tasks = Path("/proc", str(pid), "task").glob("*/status")
    return sum(int(task.read_text().rpartition("\nvoluntary_ctxt_switches:")[2].split()[0]) for task in tasks)


def _config(port: int, backend: dict[str, Any]) -> dict[str, Any]:
    connection: dict[str, Any] = {
        "host": "127.0.0.1",
        "port": port,
        "client_id": SENSOR,
        "username": SENSOR,
        "password": PASSWORD,
        **{key: backend.pop(key) for key in _CONNECTION_KEYS if key in backend},
    }
    return {
        **CONFIG,
        "general": {"config_revision": 2, "software_version": "1.0.0", "system_identifier": SENSOR},
        "logging_verbosity": {"file_archive": "DEBUG", "console_prints": "DEBUG", "message_sending": "ERROR"},
        # What a backlog may take, rather than what a platform should be spared.
        "backend": {
            "provider": "tenta",
            "mqtt_connection": connection,
            "max_messages_per_second": 1_000_000,
            **backend,
        },
        "system_checks": {"seconds_between_checks": 3600},
    }


MakeNode = Callable[..., Node]
"""Makes nodes: arguments as for `Node`, without the directory."""


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
