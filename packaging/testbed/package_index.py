"""An index of Python packages for the nodes, which their pip asks instead of PyPI: the wheels of a directory.

What is put into the directory is there at once. It ends with the Python that started it.
"""

import hashlib
import re
import threading
import zipfile
from collections.abc import Mapping
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from testbed.node import Node
from testbed.run import BedError

PORT = 8081
SIMPLE = "/simple/"
TAG = "py3-none-any"


class PackageIndex:
    """Listens from the start until it is closed. Pages are those of PEP 503."""

    def __init__(self, address: str, directory: Path, port: int = PORT) -> None:
        if not directory.is_dir():
            raise BedError(f"there is no directory {directory}", "It is to hold the wheels.")
        self.address, self.directory = address, directory
        self._server = ThreadingHTTPServer((address, port), partial(_Handler, directory=str(directory)))
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """For pip's `--index-url`."""
        return f"http://{self.address}:{self._server.server_port}{SIMPLE}"

    def close(self) -> None:
        """Listen no longer."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def settings(self) -> str:
        """What in /etc/pip.conf lets pip look here, and nowhere else."""
        return f"[global]\nindex-url = {self.url}\ntrusted-host = {self.address}\nretries = 0\n"

    def let_use(self, node: Node) -> None:
        """Let pip in a node look here."""
        node.path("/etc/pip.conf").write_text(self.settings)

    def add(self, name: str, files: Mapping[str, str | int], tag: str = TAG) -> str:
        """Make a wheel, see `write_wheel`. Returns the line of a lock file that asks for it."""
        wheel = write_wheel(self.directory, name, files, tag=tag)
        return f"{name}==1.0 --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"


def write_wheel(
    directory: Path,
    name: str,
    files: Mapping[str, str | int],
    *,
    version: str = "1.0",
    tag: str = TAG,
    needs: tuple[str, ...] = (),
) -> Path:
    """Make a small wheel: for tests, and for who has to say that something is there.

    Args:
        directory: Where it is written.
        name: Of the library.
        files: Its files: text, or so many zeros.
        version: Its version.
        tag: Python, ABI and platform.
        needs: What it depends on, as in `Requires-Dist:`.
    """
    stem = f"{re.sub('[-_.]+', '_', name)}-{version}"
    about = f"{stem}.dist-info"
    requires = "".join(f"Requires-Dist: {need}\n" for need in needs)
    metadata = {
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requires}",
        f"{about}/WHEEL": f"Wheel-Version: 1.0\nGenerator: by hand\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    content = {**files, **metadata}
    record = "".join(f"{path},,\n" for path in (*content, f"{about}/RECORD"))
    wheel = directory / f"{stem}-{tag}.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, text in content.items():
            archive.writestr(path, bytes(text) if isinstance(text, int) else text)
        archive.writestr(f"{about}/RECORD", record)
    return wheel


class _Handler(SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        if not self.path.startswith(SIMPLE):
            return super().do_GET()
        wanted = _normalised(self.path.removeprefix(SIMPLE).strip("/"))
        wheels = sorted(Path(self.directory).glob("*.whl"))
        wheels = [wheel for wheel in wheels if _normalised(wheel.name.split("-")[0]) == wanted]
        if not wheels:
            return self.send_error(404)
        page = "".join(f'<a href="/{quote(wheel.name)}">{wheel.name}</a>\n' for wheel in wheels).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads it."""


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
