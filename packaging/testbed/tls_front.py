"""TLS in front of a server that has none, as GitHub has it: what comes is passed on, and what is answered back.

Its certificate is made anew for each directory; who is to trust it, gets it by `TlsFront.certificate`.
"""

import asyncio
import contextlib
import ssl
import sys
from collections.abc import Iterable
from pathlib import Path

from testbed.run import run
from testbed.server import Server

LARGEST_CHUNK = 65_536
DAYS = 3650


class TlsFront(Server):
    """Speaks for `hosts` on a port of its own, and to `target`, a port of the same address."""

    program = "python3"
    log_name = "tls.log"

    def __init__(
        self, address: str, target: int, *, directory: Path, hosts: Iterable[str], port: int = 443
    ) -> None:
        super().__init__(address, port, directory)
        self._target = target
        self._hosts = tuple(hosts)

    @property
    def certificate(self) -> Path:
        """Signed by itself."""
        return self._file("certificate.pem")

    def _configure(self) -> list[str]:
        key = self._file("key.pem")
        if not self.certificate.exists():
            names = ",".join(f"DNS:{host}" for host in self._hosts)
            new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", str(DAYS)]
            about = ["-subj", "/CN=testbed", "-addext", f"subjectAltName={names}"]
            run(["openssl", "req", "-x509", *new, *about, "-keyout", key, "-out", self.certificate])
        ports = [str(self.port), str(self._target)]
        return [sys.executable, __file__, self.address, *ports, str(self.certificate), str(key)]

    def _environment(self) -> dict[str, str]:
        return {"PYTHONPATH": str(Path(__file__).parents[1])}


async def serve(address: str, port: int, target: int, certificate: str, key: str) -> None:
    """Never returns."""

    async def accept(near: asyncio.StreamReader, to_near: asyncio.StreamWriter) -> None:
        try:
            far, to_far = await asyncio.open_connection(address, target)
        except OSError:
            to_near.close()
            return
        try:
            await asyncio.gather(_pass_on(near, to_far), _pass_on(far, to_near))
        finally:
            to_near.close()
            to_far.close()

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    server = await asyncio.start_server(accept, address, port, ssl=context)
    await server.serve_forever()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(LARGEST_CHUNK):
            writer.write(data)
            await writer.drain()
    writer.close()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:6]))
