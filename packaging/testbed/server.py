"""A real server program for the nodes to talk to: started, stopped, killed, stalled; it ends with its starter.

What it serves, and how it is set up, is its subclass's business.
"""

import os
import signal
import socket
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from testbed.run import PATIENCE, BedError, popen, tail
from testbed.waiting import wait_for

START_TIMEOUT = 10
STOP_TIMEOUT = 10


class Server(ABC):
    """`directory` is made if need be; what the program writes there survives stop, kill and restart."""

    program: str
    log_name: str  # of the program's own log, in `directory`

    def __init__(self, address: str, port: int, directory: Path) -> None:
        self.address = address
        self.port = port
        self.directory = directory
        self.log = directory / self.log_name
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @abstractmethod
    def _configure(self) -> list[str]:
        """Write what the program needs into `directory`, which exists; returns the command that starts it."""

    def _environment(self) -> Mapping[str, str]:
        """What the program finds beside the usual."""
        return {}

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Returns when it accepts connections."""
        if self.running:
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        command = ["setpriv", "--pdeathsig=KILL", *self._configure()]
        self._process = self._spawn(command)
        wait_for(self._accepts, START_TIMEOUT, f"{self.program} to listen on {self.address}:{self.port}")

    def _spawn(self, command: list[str]) -> subprocess.Popen[str]:
        """What it says before it opens its log goes to a file of its own."""
        with self._file("stderr.log").open("a") as said:
            options = {"stdin": subprocess.DEVNULL, "stdout": said, "stderr": subprocess.STDOUT}
            return popen(command, env=self._environment(), **options)

    def stop(self) -> None:
        """A clean end."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """It dies unwarned."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        self.stop()
        self.start()

    def pause(self) -> None:
        """It stalls: connections stay open, nothing is answered. Returns when its last thread stands still."""
        process = self._running_process()
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        self._running_process().send_signal(signal.SIGCONT)

    def _running_process(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            raise BedError(f"{self.program} on {self.address}:{self.port} does not run", "start() it first.")
        return self._process

    def _end(self, by: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(by)
        process.send_signal(signal.SIGCONT)  # a paused one would not hear SIGTERM
        process.wait(PATIENCE * STOP_TIMEOUT)

    def _accepts(self) -> bool:
        if not self.running:
            logs = [log for log in (self._file("stderr.log"), self.log) if log.exists()]
            said = "\n".join(tail(log.read_text(errors="replace"), 10) for log in logs)
            raise BedError(f"{self.program} ended at once:\n{said}", f"Its files: {self.directory}")
        try:
            socket.create_connection((self.address, self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def _file(self, name: str) -> Path:
        return self.directory / name


def write_private(path: Path, text: str) -> None:
    """Write a new file that only root can read."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
