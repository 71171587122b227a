"""A shell at a terminal of its own, as a person has it: what it runs can ask, and be interrupted."""

import codecs
import contextlib
import os
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping
from fcntl import ioctl
from typing import NoReturn

from testbed.run import PATIENCE

ROWS, COLUMNS = 50, 200
# --ctty: a password is asked for at the terminal that controls the process, whatever its standard input is.
SHELL = ("setsid", "--ctty", "--wait", "bash", "--norc", "--noprofile", "--noediting")
ENVIRONMENT = {"PS1": "\n[$?] ready> ", "PAGER": "cat", "SYSTEMD_PAGER": "cat", "TERM": "dumb", "LANG": "C.UTF-8"}
PROMPT = re.compile(r"\n\[(\d+)\] ready> $")
INTERRUPT = "\x03"
SHOWN = 4000  # characters, when something went wrong
STEP = 0.5

Start = Callable[..., "subprocess.Popen[str]"]


class Terminal:
    """`start` starts SHELL with the ENVIRONMENT and the standard streams that it is given as keywords."""

    def __init__(self, start: Start) -> None:
        self._ours, theirs = os.openpty()
        ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        self._process = start(stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        self._unread = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._typed = ""
        self.finish()

    def run(self, line: str, timeout: float = 60, status: int = 0) -> str:
        """Type a line and wait for its end. Returns what it printed; fails the test if its status is another."""
        self.type(line)
        return self.finish(timeout, status)

    def type(self, line: str) -> None:
        """Type a line and the Enter key."""
        self._typed = line
        self.press(f"{line}\n")

    def press(self, keys: str) -> None:
        """Type just that."""
        os.write(self._ours, keys.encode())

    def expect(self, pattern: str | re.Pattern[str], timeout: float = 60) -> re.Match[str]:
        """Wait for what must appear after all that was waited for before."""
        deadline = time.monotonic() + PATIENCE * timeout
        while (found := re.search(pattern, self._unread)) is None:
            if time.monotonic() > deadline:
                self._fail(f"{pattern!r} did not appear within {PATIENCE * timeout:g} s")
            self._read()
        self._unread = self._unread[found.end() :]
        return found

    def finish(self, timeout: float = 60, status: int | None = 0) -> str:
        """Wait for the prompt. Returns what was printed before it; fails the test if the status is another."""
        found = self.expect(PROMPT, timeout)
        printed = found.string[: found.start()]
        if status is not None and int(found[1]) != status:
            self._unread = printed
            self._fail(f"exit status {found[1]}, not {status}")
        return printed

    def close(self) -> None:
        """Hang up, which ends what runs there."""
        os.close(self._ours)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        self._process.kill()
        self._process.wait()

    def _read(self) -> None:
        if not select.select([self._ours], [], [], STEP)[0]:
            return
        try:
            new = os.read(self._ours, 65536)
        except OSError:  # EIO: nobody has the other end open any more
            self._fail("the shell has ended")
        self._unread = (self._unread + self._decoder.decode(new)).replace("\r\n", "\n")

    def _fail(self, what: str) -> NoReturn:
        raise AssertionError(f"$ {self._typed}\n{self._unread[-SHOWN:]}\n{what}")


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """What the shell of a terminal needs, and more."""
    return {**ENVIRONMENT, **extra}
