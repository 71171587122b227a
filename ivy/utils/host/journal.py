"""Where log lines go: the journal with fields, where this process is a service, else the terminal.

Knows no config and no messages; `ivy.utils.logger` decides what is worth a line.

A journal that hangs stops no service: whoever logs waits for a second at most, and until the journal takes
something again not at all. What it did not take is counted, and stands in it afterwards.
"""

import contextlib
import io
import os
import select
import socket
import stat
import struct
import sys
from typing import Any, Literal

SOCKET = "/run/systemd/journal/socket"
"""Where the journal takes entries, see https://systemd.io/JOURNAL_NATIVE_PROTOCOL/."""

PATIENCE = 1.0
"""Seconds that a journal which takes nothing may cost, once."""

_PRIORITIES = {"DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3, "EXCEPTION": 3}
# What the kernel takes for a time: two longs, or, where Debian's times have more bits than a long (armhf), what it
# then takes under another number, see asm-generic/socket.h.
_OF_64_BITS = 67
_TIME = "qq" if socket.SO_SNDTIMEO == _OF_64_BITS else "ll"
_LARGEST_DATAGRAM = 64_000  # bytes; that much fits into the buffer of a socket everywhere


def is_attached() -> bool:
    """Whether the standard error of this process is the journal (see `$JOURNAL_STREAM` in systemd.exec(5))."""
    try:
        status = os.fstat(2)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def send(
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "EXCEPTION"],
    subject: str,
    details: str = "",
    origin: str = "ivy",
) -> None:
    """Write an entry to the journal. Never raises: there is no other place left to report it.

    Args:
        level: Becomes the journal's `PRIORITY` and the field `IVY_LEVEL`.
        subject: The line.
        details: More, on the lines below.
        origin: The part of ivy that speaks; becomes `SYSLOG_IDENTIFIER` and the field `IVY_ORIGIN`.
    """
    text = readable(f"{subject}\n{details}".strip())
    if not is_attached():
        print(f"{origin} - {level} - {text}", file=sys.stderr)
    else:
        _write(level, text, origin)


def record(level: Literal["WARNING", "ERROR"], subject: str, details: str = "", origin: str = "ivy") -> None:
    """Write an entry to the journal from a terminal too, for what somebody looks for later; else as `send`."""
    if os.path.exists(SOCKET):
        _write(level, readable(f"{subject}\n{details}".strip()), origin)


def guard_streams() -> None:
    """Let what this process prints wait for the journal no longer than an entry does. To be called by each service.

    Its standard output and error are sockets, and what reads them is the journal, too.
    """
    if not is_attached():
        return
    for name, number in (("stdout", 1), ("stderr", 2)):
        if stat.S_ISSOCK(os.fstat(number).st_mode):
            stream = io.BufferedWriter(_Stream(number))
            text = io.TextIOWrapper(stream, errors="backslashreplace", line_buffering=True)
            setattr(sys, name, text)


class _Stream(io.FileIO):
    """One of the standard streams. What the journal does not take in time is gone, and raises nothing."""

    def __init__(self, number: int) -> None:
        super().__init__(number, "w", closefd=False)
        self._dropped = _Dropped()
        # For those, too, who write there without asking us: children, and what says where a service hung.
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(number)) as stream:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack(_TIME, int(PATIENCE), 0))

    def write(self, text: Any, /) -> int:
        try:
            if notice := self._dropped.notice():
                if not select.select([], [self.fileno()], [], 0)[1]:
                    raise BlockingIOError
                os.write(self.fileno(), f"\n{notice}\n".encode())
                self._dropped.count = 0
            if os.write(self.fileno(), text) < len(text):  # the time ran out in the middle
                raise BlockingIOError
        except OSError:
            self._dropped.count += 1
        return len(text)


class _Dropped:
    """What one of its sockets did not take since it last took something. Until then, nobody waits for it any more.

    The journal has several, and one may be full for hours while another has room.
    """

    def __init__(self) -> None:
        self.count = 0

    def notice(self) -> str:
        """What to say of them before anything else; nothing if there are none."""
        return f"{self.count} lines are missing here, as the journal took none" if self.count else ""


_dropped = _Dropped()


def _write(level: str, text: str, origin: str) -> None:
    fields = {
        "MESSAGE": text,
        "PRIORITY": str(_PRIORITIES[level]),
        "SYSLOG_IDENTIFIER": f"ivy-{origin}" if origin != "ivy" else origin,
        "IVY_LEVEL": level,
        "IVY_ORIGIN": origin,
    }
    try:
        if notice := _dropped.notice():
            _deliver(fields | {"MESSAGE": notice, "PRIORITY": "4", "IVY_LEVEL": "WARNING"}, patience=0.0)
            _dropped.count = 0
        _deliver(fields, PATIENCE)
    except (TimeoutError, BlockingIOError):
        _dropped.count += 1
    except OSError:
        print(text, file=sys.stderr)  # journald is being restarted: this stream it takes up again


def _deliver(fields: dict[str, str], patience: float) -> None:
    """Send an entry. Not by systemd's library, which waits for ever.

    Raises:
        TimeoutError, BlockingIOError: The journal took nothing in time.
        OSError: There is none.
    """
    entry = b"".join(_field(name, value.encode()) for name, value in fields.items())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:  # one for each: nothing to take up again
        sender.settimeout(patience)
        sender.connect(SOCKET)
        if len(entry) > _LARGEST_DATAGRAM:
            _deliver_as_file(sender, entry)
        else:
            sender.send(entry)


def _field(name: str, value: bytes) -> bytes:
    """A field as the journal reads it: with its length before it, where there may be ends of lines in it."""
    return name.encode() + b"\n" + struct.pack("<Q", len(value)) + value + b"\n"


def _deliver_as_file(sender: socket.socket, entry: bytes) -> None:
    """What is too large for a datagram is handed over in memory, sealed, so that nobody changes it any more."""
    import fcntl  # not at the top: hardly ever wanted

    descriptor = os.memfd_create("journal-entry", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with os.fdopen(descriptor, "wb") as file:
        file.write(entry)
        file.flush()
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
        socket.send_fds(sender, [b""], [descriptor])


def readable(text: object) -> str:
    """A text, or what `str` says, without what neither the journal nor JSON can carry: lone surrogates and NUL."""
    return in_words(text).encode(errors="replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")


def in_words(thing: object) -> str:
    """What `str` says of it, such as of an error; there are libraries whose errors have no words."""
    try:
        return str(thing)
    except Exception:
        return "without words"
