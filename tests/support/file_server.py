"""A small web server in this process: files of a directory, with the types that pip and APT expect."""

import ssl
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class FileServer:
    """Serves a directory, from the start until it is closed."""

    def __init__(self, address: str, port: int, root: Path, tls: ssl.SSLContext | None = None) -> None:
        self._server = ThreadingHTTPServer((address, port), partial(_QuietHandler, directory=str(root)))
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        """Serve no longer."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _QuietHandler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # the connection stays: how Python ends one by TLS, apt takes for an accident

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads it."""
