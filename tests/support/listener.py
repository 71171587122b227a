"""Accepts connections, and ends every one of them when told to: also one that has only just been accepted."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable

_LEAST_BUFFER = 2048
_SMALL_SEGMENT = 536


class Listener:
    """A listening socket, with a thread for each connection."""

    def __init__(
        self,
        serve: Callable[[socket.socket], None],
        address: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        is_narrow: bool = False,
    ) -> None:
        """Start listening.

        Args:
            serve: Serves one connection, which is closed when this returns or raises an OSError (it is broken).
            address: Of this machine.
            port: Where to listen; 0 chooses.
            tls: How to encrypt. The handshake comes with the first thing read.
            is_narrow: Whether what is not read stays with the sender, but for some kilobytes.
        """
        self._serve = serve
        self._socket = socket.create_server((address, port))
        if is_narrow:  # before there is a connection: what was promised to its other end would be dropped
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _LEAST_BUFFER)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, _SMALL_SEGMENT)
        self.port = int(self._socket.getsockname()[1])
        if tls is not None:
            self._socket = tls.wrap_socket(self._socket, server_side=True, do_handshake_on_connect=False)
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._closing = False
        self._threads: list[threading.Thread] = []
        self._acceptor = threading.Thread(target=self._accept)
        self._acceptor.start()

    def close(self) -> None:
        """Listen no more, break all connections, and wait until nobody serves one any more."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._acceptor.join()  # no other thread begins from here on
        self._closing = True
        self.cut()
        for thread in self._threads:
            thread.join()
        self._socket.close()

    def cut(self) -> None:
        """Break all connections."""
        with self._lock:
            for connection in self._open:
                break_off(connection)

    def watch(self, connection: socket.socket) -> None:
        """Break this connection together with the others."""
        with self._lock:
            self._open.append(connection)
            if self._closing:
                break_off(connection)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:  # shut down
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.watch(connection)
            thread = threading.Thread(target=self._serve_one, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve_one(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            self._serve(connection)


def break_off(connection: socket.socket) -> None:
    """Shut down both directions, whatever state they are in."""
    with contextlib.suppress(OSError):  # it is closed already
        connection.shutdown(socket.SHUT_RDWR)
