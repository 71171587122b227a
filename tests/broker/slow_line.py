"""A TCP proxy that delays: a long way between a node and its broker (this kernel cannot delay by itself).

Delays only; it loses and reorders nothing, and its bandwidth is this machine's.
"""

import contextlib
import queue
import socket
import threading
import time
from typing import Self

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
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()  # no other thread begins from here on
        for end in self._open:
            _shut(end, socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join()
        for end in [*self._open, self._listener]:
            end.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:  # shut down
                return
            far = socket.create_connection(("127.0.0.1", self._target))
            self._open += [near, far]
            for end in (near, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._pass_on(near, far)
            self._pass_on(far, near)

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        under_way: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
        for work, end in ((self._take_in, source), (_let_out, sink)):
            thread = threading.Thread(target=work, args=(end, under_way))
            self._threads.append(thread)
            thread.start()

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
            return _shut(sink, socket.SHUT_WR)
        with contextlib.suppress(OSError):  # nobody listens any more
            sink.sendall(chunk)


def _shut(end: socket.socket, how: int) -> None:
    with contextlib.suppress(OSError):  # it is broken already
        end.shutdown(how)
