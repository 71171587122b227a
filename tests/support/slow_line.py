"""A TCP proxy that delays: a long way between a node and its broker (this kernel cannot delay by itself).

Delays only; it loses and reorders nothing, and its bandwidth is this machine's.
"""

import contextlib
import queue
import socket
import threading
import time
from typing import Self

from tests.support.listener import Listener

_LARGEST_CHUNK = 65_536


class SlowLine:
    """Listens on loopback and passes everything on, half a round trip later in each direction."""

    def __init__(self, port: int, round_trip: float) -> None:
        """Start listening.

        Args:
            port: Where the broker listens, on loopback.
            round_trip: Seconds.
        """
        self._target = port
        self._delay = round_trip / 2
        self._listener = Listener(self._serve)
        self.port = self._listener.port

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _serve(self, near: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", self._target)) as far:
            far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._listener.watch(far)
            threads = [*self._pass_on(near, far), *self._pass_on(far, near)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> list[threading.Thread]:
        under_way: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
        steps = ((self._take_in, source), (_let_out, sink))
        return [threading.Thread(target=work, args=(end, under_way)) for work, end in steps]

    def _take_in(self, source: socket.socket, under_way: "queue.SimpleQueue[tuple[float, bytes]]") -> None:
        chunk = b"?"
        while chunk:
            try:
                chunk = source.recv(_LARGEST_CHUNK)
            except OSError:  # broken is as good as ended
                chunk = b""
            under_way.put((time.monotonic() + self._delay, chunk))


def _let_out(sink: socket.socket, under_way: "queue.SimpleQueue[tuple[float, bytes]]") -> None:
    while True:
        due, chunk = under_way.get()
        time.sleep(max(0.0, due - time.monotonic()))
        if not chunk:
            with contextlib.suppress(OSError):  # it is broken already
                sink.shutdown(socket.SHUT_WR)
            return
        with contextlib.suppress(OSError):  # nobody listens any more
            sink.sendall(chunk)
