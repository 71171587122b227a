"""A small web server in this process: files of a directory, with the types that pip and APT expect."""

import ssl
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.support.background_server import BackgroundServer


class FileServer(BackgroundServer):
    """Serves a directory, from the start until it is closed."""

    def __init__(self, address: str, port: int, root: Path, tls: ssl.SSLContext | None = None) -> None:
        server = ThreadingHTTPServer((address, port), partial(_QuietHandler, directory=str(root)))
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        super().__init__(server)


class _QuietHandler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # the connection stays: how Python ends one by TLS, apt takes for an accident

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads it."""
