"""A real web server for the nodes: plain files of a directory, such as an APT repository. Ends with its starter."""

from pathlib import Path

from testbed.server import Server, write_private


class WebServer(Server):
    """Serves all files below `root`; its own are in `directory`."""

    program = "lighttpd"
    log_name = "lighttpd.log"

    def __init__(self, address: str, port: int = 8000, *, root: Path, directory: Path) -> None:
        super().__init__(address, port, directory)
        self.root = root

    @property
    def url(self) -> str:
        return f"http://{self.address}:{self.port}"

    def _configure(self) -> list[str]:
        settings = [
            f'server.bind = "{self.address}"',
            f"server.port = {self.port}",
            f'server.document-root = "{self.root}"',
            f'server.errorlog = "{self.log}"',
        ]
        write_private(self._file("lighttpd.conf"), "\n".join([*settings, ""]))
        return ["lighttpd", "-D", "-f", str(self._file("lighttpd.conf"))]
