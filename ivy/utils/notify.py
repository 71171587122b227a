"""What a service tells systemd: READY, WATCHDOG, STATUS, STOPPING. Says nothing where nobody listens (by hand).

Heartbeats come from the work loop only, through `heartbeat` and `sleep`: they prove progress.
"""

import contextlib
import os
import time
from collections.abc import Generator

import sdnotify

from ivy import constants
from ivy.utils.host import busy, signals

_watchdog_seconds = int(os.environ.get("WATCHDOG_USEC", "0")) / 1e6 or constants.WATCHDOG_SECONDS

SECONDS_BETWEEN_HEARTBEATS: float = _watchdog_seconds / 4
"""How long a work loop may rest at most; follows from the unit's `WatchdogSec=`, see sd_watchdog_enabled(3)."""

_PATIENCE = 1.0  # seconds, which a systemd that hangs may cost
_LONGEST_STATUS = 1000  # systemd ignores a datagram of more than 4096 bytes
# Only where somebody listens: elsewhere it opens a socket and drops it, of which Python warns.
_notifier = sdnotify.SystemdNotifier() if os.environ.get("NOTIFY_SOCKET") else None
if _notifier is not None and _notifier.socket is not None:
    _notifier.socket.settimeout(_PATIENCE)
_last_heartbeat = -SECONDS_BETWEEN_HEARTBEATS


def mute() -> None:
    """Say nothing any more, in a child: systemd listens to the main process only, and complains of others."""
    global _notifier
    _notifier = None


def ready() -> None:
    """The service has started."""
    _notify("READY=1")


def stopping() -> None:
    """The service is about to end."""
    _notify("STOPPING=1")


def status(text: str) -> None:
    """Show a line in `systemctl status`: what matters to a person right now."""
    _notify(f"STATUS={text}".replace("\n", " ")[:_LONGEST_STATUS])


def heartbeat() -> None:
    """The work loop has come round. May be called as often as that: it sends no more than is needed."""
    global _last_heartbeat
    now = time.monotonic()
    if now - _last_heartbeat >= SECONDS_BETWEEN_HEARTBEATS / 2:
        _last_heartbeat = now
        _notify("WATCHDOG=1")


def sleep(seconds: float) -> None:
    """Wait, cut into heartbeats, so that a service may rest for longer than the watchdog's patience."""
    deadline = time.monotonic() + seconds
    while (rest := deadline - time.monotonic()) > 0:
        heartbeat()
        time.sleep(min(rest, SECONDS_BETWEEN_HEARTBEATS))
    heartbeat()


@contextlib.contextmanager
def undisturbed(max_seconds: float) -> Generator[None, None, None]:
    """Be left alone across the body of a `with`, in the middle of a calibration for example.

    Updates that would restart this procedure, the operator's request to restart it, and reboots for want of a link
    or a disk wait until the body ends; for `max_seconds` and for two hours at most, whatever is said meanwhile. The
    admin can say `--now`; a crash, the watchdog or the power ask nobody: leave the hardware safe in a `finally`.
    The body has to go on with heartbeats. Has no effect in a backend.

    Args:
        max_seconds: How long it may take: a little more than it should. Beyond that it is disturbed.
    """
    end = busy.add(max_seconds)
    try:
        yield
    finally:
        busy.remove(end)


def _notify(text: str) -> None:
    if _notifier is None:
        return
    signals.teach_patience()
    with signals.deferred():  # sdnotify swallows every exception, even the one by which a signal ends the service
        # It sends Latin-1, and systemd ignores a status that is not UTF-8, such as "21.5 °C".
        _notifier.notify(text.encode(errors="replace").decode("latin-1"))
