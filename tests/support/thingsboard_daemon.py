"""The stand-in for ThingsBoard as a process of its own, so that it can be killed and stalled as a real server.

What arrives, and why connections were closed, stands in a file before this side answers: a publication that was
acknowledged is known, however the process ends.
"""

import base64
import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from testbed.server import Server

from tests.support.recorder import Arrival
from tests.support.thingsboard_server import BAD_CREDENTIALS, GRANTED, ThingsBoardServer

PROJECT = Path(__file__).resolve().parents[2]


class ThingsBoardDaemon(Server):
    """Knows one device, by its access token."""

    program = "the stand-in for ThingsBoard"
    log_name = "stand-in.log"

    def __init__(self, address: str, port: int, token: str, directory: Path) -> None:
        super().__init__(address, port, directory)
        self.arrivals: list[Arrival] = []
        self.closings: list[str] = []
        self.lost: list[str] = []
        self._token = token
        self._read = 0

    def update(self) -> None:
        """Take over what was written down since the last time. A line that a kill has torn is none."""
        with self._file("arrivals").open("rb") as file:
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._read += len(line)
                self._take(json.loads(line))

    def _take(self, record: dict[str, Any]) -> None:
        if "closing" in record:
            self.closings.append(record["closing"])
        elif "lost" in record:
            self.lost.append(record["lost"])
        else:
            self.arrivals.append(Arrival(**{**record, "payload": base64.b64decode(record["payload"])}))

    def _configure(self) -> list[str]:
        self._mend()
        arguments = [self.address, str(self.port), self._token, str(self._file("arrivals"))]
        return [sys.executable, "-m", __name__, *arguments]

    def _environment(self) -> Mapping[str, str]:
        return {"PYTHONPATH": f"{PROJECT}:{PROJECT / 'packaging'}", "PYTHONDONTWRITEBYTECODE": "1"}

    def _mend(self) -> None:
        """Cut off the line that a kill has torn."""
        with self._file("arrivals").open("a+b") as file:
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)


class _WritingServer(ThingsBoardServer):
    """Writes down instead of remembering."""

    def __init__(self, address: str, port: int, token: str, path: str) -> None:
        self._diary = os.open(path, os.O_WRONLY | os.O_APPEND)
        super().__init__(
            lambda _id, name, _password: GRANTED if name == token else BAD_CREDENTIALS, port, address=address
        )

    def keep(self, arrival: Arrival) -> None:
        self._write({**vars(arrival), "payload": base64.b64encode(arrival.payload).decode()})

    def keep_closing(self, reason: str) -> None:
        self._write({"closing": reason})

    def keep_loss(self, reason: str) -> None:
        self._write({"lost": reason})

    def _write(self, record: dict[str, Any]) -> None:
        os.write(self._diary, json.dumps(record).encode() + b"\n")


def main() -> None:
    """Serve until killed; SIGTERM breaks the connections just as well."""
    address, port, token, path = sys.argv[1:]
    _WritingServer(address, int(port), token, path)
    signal.pause()


if __name__ == "__main__":
    main()
