"""What the names of the README stand for: a certificate authority, and what it vouches for."""

import ssl
from collections.abc import Iterable
from pathlib import Path

from testbed.run import Argv, run

NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


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

    def tls(self) -> ssl.SSLContext:
        """For a server in this process that has those names."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.server_certificate, self.server_key)
        return context
