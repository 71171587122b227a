"""The listener of the stand-ins: tests that wait for it must not wait for ever."""

import socket
import threading

from tests.support.listener import Listener


def test_closing_ends_connections_that_nobody_has_read_from_yet() -> None:
    listener = Listener(_read_all)
    with socket.create_connection(("127.0.0.1", listener.port)) as silent:
        closing = threading.Thread(target=listener.close, daemon=True)
        closing.start()
        closing.join(40)
        assert not closing.is_alive()
        silent.settimeout(10)
        assert _ends(silent)


def _read_all(connection: socket.socket) -> None:
    while connection.recv(1024):
        continue


def _ends(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:  # it was not even accepted
        return True
