"""A TCP proxy that delays and is narrow: a long way between a node and its broker (this kernel has no such).

It loses and reorders nothing.
"""

import contextlib
import queue
import socket
import threading
import time
from typing import Self

from tests.support.listener import Listener

_LARGEST_CHUNK = 65_536
_SECONDS_OF_A_CHUNK = 0.1


class SlowLine:
    """Listens on loopback and passes everything on, half a round trip later in each direction."""

    def __init__(self, port: int, round_trip: float = 0, bytes_per_second: float | None = None) -> None:
        """Start listening.

        Args:
            port: Where the broker listens, on loopback.
            round_trip: Seconds.
            bytes_per_second: What it carries in each direction; None: what this machine does.
        """
        self._rate = bytes_per_second
        self._target = port
        self._delay = round_trip / 2
        self.passed = 0
        """Bytes of both directions so far."""
        self._listener = Listener(self._serve, is_narrow=bytes_per_second is not None)
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
                chunk = source.recv(self._largest_chunk())
            except OSError:  # broken is as good as ended
                chunk = b""
            self.passed += len(chunk)
            if self._rate is not None:
                time.sleep(len(chunk) / self._rate)
            under_way.put((time.monotonic() + self._delay, chunk))

    def _largest_chunk(self) -> int:
        return _LARGEST_CHUNK if self._rate is None else max(1, int(self._rate * _SECONDS_OF_A_CHUNK))


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
