"""A package index for pip, with wheels made here. Served by static files, as PEP 503 allows."""

import hashlib
import zipfile
from pathlib import Path

from testbed.bed import Node

from tests.support.file_server import FileServer

PORT = 8081


class PackageIndex:
    """Listens while it is open."""

    def __init__(self, address: str, directory: Path) -> None:
        self.url = f"http://{address}:{PORT}/simple/"
        self._address = address
        self._directory = directory
        (directory / "simple").mkdir(parents=True)
        self.close = FileServer(address, PORT, directory).close

    def let_use(self, node: Node) -> None:
        """Let pip in a node look here, and nowhere else."""
        settings = f"[global]\nindex-url = {self.url}\ntrusted-host = {self._address}\nretries = 0\n"
        node.path("/etc/pip.conf").write_text(settings)

    def add(self, name: str, files: dict[str, str | int]) -> str:
        """Add a package. Returns the line of a lock file that asks for it.

        Args:
            name: Of the package.
            files: Its files: text, or so many zeros.
        """
        project = self._directory / "simple" / name
        project.mkdir()
        wheel = project / f"{name}-1.0-py3-none-any.whl"
        _write_wheel(wheel, name, files)
        (project / "index.html").write_text(f'<a href="{wheel.name}">{wheel.name}</a>\n')
        return f"{name}==1.0 --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"


def _write_wheel(wheel: Path, name: str, files: dict[str, str | int]) -> None:
    about = f"{name}-1.0.dist-info"
    metadata = {
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: by hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    content = {**files, **metadata}
    record = "".join(f"{path},,\n" for path in (*content, f"{about}/RECORD"))
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, text in content.items():
            archive.writestr(path, bytes(text) if isinstance(text, int) else text)
        archive.writestr(f"{about}/RECORD", record)
