"""A program that nodes talk to, listening at an address of this machine: started, stopped, killed, stalled.

It ends with the process that started it. What it speaks is its subclass's affair.
"""

import os
import signal
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from testbed.run import BedError, popen, tail
from testbed.waiting import wait_for

START_TIMEOUT = 10
STOP_TIMEOUT = 10


class Daemon:
    """`directory` is made if need be; what is in it survives stop, kill and restart."""

    name = "the daemon"
    """What errors call it."""

    def __init__(self, address: str, port: int, directory: Path) -> None:
        self.address = address
        self.port = port
        self.directory = directory
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
        self.directory.mkdir(parents=True, exist_ok=True)
        self._process = self._spawn(["setpriv", "--pdeathsig=KILL", *self._command()])
        wait_for(self._accepts, START_TIMEOUT, f"{self.name} to listen on {self.address}:{self.port}")

    def stop(self) -> None:
        """A clean end."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """It forgets what it did not save yet."""
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

    def _command(self) -> list[str]:
        """Prepare the start, and say what to start."""
        raise NotImplementedError

    def _environment(self) -> Mapping[str, str]:
        """What the program finds beside the usual."""
        return {}

    def _logs(self) -> list[Path]:
        """Where it says why it ended."""
        return [self._file("stderr.log")]

    def _file(self, name: str) -> Path:
        return self.directory / name

    def _spawn(self, command: list[str]) -> subprocess.Popen[str]:
        """What it says before it opens a log of its own goes to a file."""
        with self._file("stderr.log").open("a") as said:
            options = {"stdin": subprocess.DEVNULL, "stdout": said, "stderr": subprocess.STDOUT}
            return popen(command, env=self._environment(), **options)

    def _running_process(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            raise BedError(f"{self.name} on {self.address}:{self.port} does not run", "start() it first.")
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
            said = "\n".join(tail(log.read_text(errors="replace"), 10) for log in self._logs() if log.exists())
            raise BedError(f"{self.name} ended at once:\n{said}", f"Its files: {self.directory}")
        try:
            socket.create_connection((self.address, self.port), timeout=1).close()
        except OSError:
            return False
        return True
