"""The one door to other programs: argument lists, no shell, a time limit, and one error that says it all."""

import subprocess
import time
from collections.abc import Sequence
from typing import IO

from ivy.utils import notify

_LONGEST_COMPLAINT = 2000


class CommandError(RuntimeError):
    """A program failed; the text says which, how, and the end of what it printed."""

    def __init__(self, text: str, status: int | None = None, output: str = "") -> None:
        super().__init__(text)
        self.status = status  # if it came so far
        self.output = output  # the end of it


def run(arguments: Sequence[str], *, timeout: float, input: str = "", output: IO[bytes] | None = None) -> str:
    """Run a program to its end, with heartbeats meanwhile.

    Args:
        arguments: The program and its arguments; never a shell string.
        timeout: Seconds after which it is killed.
        input: What it can read from its standard input.
        output: Where its standard output goes; then nothing is returned.

    Returns: What it printed on its standard output.

    Raises:
        CommandError: It could not be started, took too long, or exited with another status than 0.
    """
    return _text(_run(arguments, timeout, input.encode(errors="replace"), output))


def run_binary(arguments: Sequence[str], *, timeout: float, input: bytes) -> bytes:
    """Run a program that prints no text, such as a picture; otherwise as `run`."""
    return _run(arguments, timeout, input, None)


def _run(arguments: Sequence[str], timeout: float, input: bytes, output_to: IO[bytes] | None) -> bytes:
    name = " ".join(arguments)
    pipe = subprocess.PIPE
    try:
        process = subprocess.Popen(arguments, stdin=pipe, stdout=output_to or pipe, stderr=pipe)
    except OSError as error:
        raise CommandError(f"`{name}` cannot be run: {error}") from error
    with process:
        try:
            output, errors = _communicate(process, input, time.monotonic() + timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise CommandError(f"`{name}` did not end within {timeout:.0f} s") from None
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        said = _text(errors or output or b"").strip()[-_LONGEST_COMPLAINT:]
        raise CommandError(f"`{name}` exited with {process.returncode}: {said}", process.returncode, said)
    return output or b""


def _text(output: bytes) -> str:
    return output.decode(errors="replace").replace("\r\n", "\n").replace("\r", "\n")


def _communicate(process: "subprocess.Popen[bytes]", input: bytes, deadline: float) -> tuple[bytes, bytes]:
    given: bytes | None = input  # once: it is kept when the time is up
    while True:
        notify.heartbeat()  # also if it ends soon: many of them in a row take long on a slow machine
        rest = deadline - time.monotonic()
        try:
            return process.communicate(given, timeout=max(0.0, min(rest, notify.SECONDS_BETWEEN_HEARTBEATS)))
        except subprocess.TimeoutExpired:
            if rest <= notify.SECONDS_BETWEEN_HEARTBEATS:
                raise
        given = None
