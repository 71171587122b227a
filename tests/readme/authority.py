"""What the names of the README stand for: a certificate authority, and a website by HTTPS."""

import ssl
import threading
from collections.abc import Iterable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from testbed.run import Argv, run

NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
HTTPS = 443


class Authority:
    """Its own certificate, and one for some names by it; all in `directory`, which is made."""

    def __init__(self, directory: Path, names: Iterable[str], address: str) -> None:
        directory.mkdir(parents=True)
        self.certificate, self.server_certificate = directory / "authority.pem", directory / "server.pem"
        self.server_key = directory / "server.key"
        authority_key, request, extension = (directory / name for name in ("authority.key", "request", "extension"))
        extension.write_text(f"subjectAltName={','.join(f'DNS:{name}' for name in names)},IP:{address}\n")
        own: Argv = ["-subj", "/CN=authority", "-keyout", authority_key, "-out", self.certificate]
        run(["openssl", "req", "-x509", *NEW_KEY, *own])
        run(["openssl", "req", *NEW_KEY, "-subj", "/CN=server", "-keyout", self.server_key, "-out", request])
        signing: Argv = ["-CA", self.certificate, "-CAkey", authority_key, "-CAcreateserial", "-extfile", extension]
        run(["openssl", "x509", "-req", "-in", request, *signing, "-out", self.server_certificate])


class Website:
    """Serves a directory, from the start until it is closed."""

    def __init__(self, address: str, root: Path, authority: Authority) -> None:
        self._server = ThreadingHTTPServer((address, HTTPS), partial(_SilentHandler, directory=str(root)))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(authority.server_certificate, authority.server_key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        """Serve no longer."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _SilentHandler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # the connection stays: how Python ends one, apt takes for an accident

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads it."""
