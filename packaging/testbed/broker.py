"""A real mosquitto for the nodes to talk to, set up like a Tenta deployment: passwords, rights, persistence.

It ends with the process that started it. Subscribing and looking at messages is not its job.
"""

import os
import signal
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from testbed.run import BedError, popen, run, tail
from testbed.waiting import wait_for

START_TIMEOUT = 10
STOP_TIMEOUT = 10
OPERATOR = "operator"  # the user who sees and may write everything; its password is given like any other's

# %u is the user's name: a node reads and writes its own topics only.
ACCESS = f"""\
user {OPERATOR}
topic readwrite #

pattern write measurements/%u
pattern write logs/%u
pattern write acknowledgments/%u
pattern read configurations/%u
"""


@dataclass(frozen=True)
class Tls:
    certificate: Path
    key: Path


class Broker:
    """`directory` is made if need be; the log and the database in it survive stop, kill and restart."""

    def __init__(
        self,
        address: str,
        port: int = 1883,
        users: Mapping[str, str] | None = None,
        *,
        directory: Path,
        tls: Tls | None = None,
        access: str = ACCESS,
    ) -> None:
        self.address = address
        self.port = port
        self.directory = directory
        self.log = directory / "mosquitto.log"
        self._users = dict(users or {})
        self._tls = tls
        self._access = access
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Returns when it accepts connections."""
        if self.running:
            return
        self._configure()
        mosquitto = ["mosquitto", "--config-file", str(self._file("mosquitto.conf"))]
        command = ["setpriv", "--pdeathsig=KILL", *mosquitto]
        self._process = self._spawn(command)
        wait_for(self._accepts, START_TIMEOUT, f"mosquitto to listen on {self.address}:{self.port}")

    def _spawn(self, command: list[str]) -> subprocess.Popen[str]:
        """What it says before it opens its log goes to a file of its own."""
        with self._file("stderr.log").open("w") as said:
            return popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT)

    def stop(self) -> None:
        """A clean end: it saves its database and says goodbye."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """It forgets what it did not save yet, which `autosave_on_changes` keeps small."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        self.stop()
        self.start()

    def pause(self) -> None:
        """It stalls: connections stay open, nothing is answered."""
        self._running_process().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._running_process().send_signal(signal.SIGCONT)

    def _running_process(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            raise BedError(f"the broker on {self.address}:{self.port} does not run", "start() it first.")
        return self._process

    def _end(self, by: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(by)
        process.send_signal(signal.SIGCONT)  # a paused one would not hear SIGTERM
        process.wait(STOP_TIMEOUT)

    def _accepts(self) -> bool:
        if not self.running:
            logs = [log for log in (self._file("stderr.log"), self.log) if log.exists()]
            said = "\n".join(tail(log.read_text(errors="replace"), 10) for log in logs)
            raise BedError(f"mosquitto ended at once:\n{said}", f"Its files: {self.directory}")
        try:
            socket.create_connection((self.address, self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def _file(self, name: str) -> Path:
        return self.directory / name

    def _configure(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        _write_private(self._file("access"), self._access)
        _write_private(self._file("passwords"), "".join(f"{u}:{p}\n" for u, p in self._users.items()))
        if self._users:
            run(["mosquitto_passwd", "-U", self._file("passwords")])
        _write_private(self._file("mosquitto.conf"), "\n".join([*self._settings(), ""]))

    def _settings(self) -> list[str]:
        tls = [f"certfile {self._tls.certificate}", f"keyfile {self._tls.key}"] if self._tls else []
        return [
            "user root",  # it stays who it is, so that it can write here
            f"listener {self.port} {self.address}",
            *tls,
            "set_tcp_nodelay true",
            "allow_anonymous false",
            f"password_file {self._file('passwords')}",
            f"acl_file {self._file('access')}",
            "persistence true",
            f"persistence_location {self.directory}/",
            # Saved after every change: what it acknowledged should be there after a kill.
            "autosave_interval 1",
            "autosave_on_changes true",
            # No bound: a message lost on the broker's side must never look like one lost by a node.
            "max_queued_messages 0",
            "max_inflight_messages 0",
            f"log_dest file {self.log}",
            "log_type all",
            "log_timestamp_format %Y-%m-%dT%H:%M:%S",
        ]


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
