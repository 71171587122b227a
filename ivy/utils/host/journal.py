"""Where log lines go: the journal with fields, where this process is a service, else the terminal.

Knows no config and no messages; `ivy.utils.logger` decides what is worth a line.
"""

import contextlib
import os
import sys
from typing import Literal

_PRIORITIES = {"DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3, "EXCEPTION": 3}


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
    with contextlib.suppress(ImportError):
        _write(level, readable(f"{subject}\n{details}".strip()), origin)


def _write(level: str, text: str, origin: str) -> None:
    # The part of the library that sends: the rest of it brings Python's logging, half a megabyte for each service.
    # Not at the top: by hand, and in tests, there may be no such library.
    from systemd import _journal

    try:
        _journal.sendv(
            f"MESSAGE={text}",
            f"PRIORITY={_PRIORITIES[level]}",
            f"SYSLOG_IDENTIFIER={f'ivy-{origin}' if origin != 'ivy' else origin}",
            f"IVY_LEVEL={level}",
            f"IVY_ORIGIN={origin}",
        )
    except OSError:
        print(text, file=sys.stderr)  # journald is being restarted: this stream it takes up again


def readable(text: str) -> str:
    """Replace what neither the journal nor JSON can carry: lone surrogates and NUL."""
    return text.encode(errors="replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")
