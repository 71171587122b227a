"""Waking the process that forwards messages: a datagram on a Unix socket, so that nobody polls the queue.

Best effort: whoever misses a ring looks into the queue at its next heartbeat.
"""

import contextlib
import os
import socket

from ivy import constants
from ivy.files import make_directory

SOCKET_PATH = os.path.join(constants.BACKEND_RUN_DIR, "forwarder.sock")


class Doorbell:
    """The side that rings. Fork-safe and cheap: no connection is kept."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)

    def ring(self) -> None:
        """Wake the listener, if there is one. Never blocks and never raises."""
        with contextlib.suppress(OSError):
            self._socket.sendto(b"", SOCKET_PATH)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


class Listener:
    """The side that waits, with `select` on `fileno()`. One process at a time: the last to start hears the bell."""

    def __init__(self) -> None:
        make_directory(constants.BACKEND_RUN_DIR)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(SOCKET_PATH)
        self._socket.bind(SOCKET_PATH)
        os.chmod(SOCKET_PATH, 0o660)

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self._socket.fileno()

    def clear(self) -> None:
        """Forget all rings so far."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self._socket.recv(1)

    def close(self) -> None:
        """Close the socket. Its name stays: another listener may have taken it."""
        self._socket.close()
