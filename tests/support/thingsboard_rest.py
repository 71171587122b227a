"""A stand-in for ThingsBoard's REST interface, as far as offering configs needs it: login, devices, attributes."""

import json
import secrets
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.support.background_server import BackgroundServer

USER, PASSWORD = "operator@example.org", "a-password-of-an-operator"
_ATTRIBUTES = "/api/plugins/telemetry/DEVICE/"


class ThingsBoardRest(BackgroundServer):
    """One tenant's devices. Serves from the start until it is closed."""

    def __init__(self) -> None:
        self.profiles: dict[str, str] = {}
        """The device profile of each device, by its name."""
        self.shared: dict[str, dict[str, Any]] = {}
        """The shared attributes of each device, by its name."""
        self.token = secrets.token_hex(8)
        super().__init__(ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"platform": self})))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def add(self, name: str, profile: str, **shared: Any) -> None:
        """Add a device."""
        self.profiles[name], self.shared[name] = profile, shared


class _Handler(BaseHTTPRequestHandler):
    platform: ThingsBoardRest

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads it."""

    def do_GET(self) -> None:
        path = urlsplit(self.path)
        if self.headers["X-Authorization"] != f"Bearer {self.platform.token}":
            return self._answer(401, {"message": "Authentication failed", "errorCode": 10})
        if path.path == "/api/tenant/devices":
            [name] = parse_qs(path.query)["deviceName"]
            if name not in self.platform.profiles:
                return self._answer(404, {"message": "Requested item wasn't found!", "errorCode": 32})
            identity = {"entityType": "DEVICE", "id": name.encode().hex()}
            return self._answer(200, {"id": identity, "name": name, "type": self.platform.profiles[name]})
        if (device := self._device("/values/attributes/SHARED_SCOPE")) is not None:
            shared = self.platform.shared[device].items()
            return self._answer(200, [{"lastUpdateTs": 1, "key": key, "value": value} for key, value in shared])
        return self._answer(404, {})

    def do_POST(self) -> None:
        content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/api/auth/login":
            if content != {"username": USER, "password": PASSWORD}:
                return self._answer(401, {"message": "Invalid username or password", "errorCode": 10})
            return self._answer(200, {"token": self.platform.token, "refreshToken": "r"})
        if self.headers["X-Authorization"] != f"Bearer {self.platform.token}":
            return self._answer(401, {})
        if (name := self._device("/attributes/SHARED_SCOPE")) is not None and isinstance(content, dict):
            self.platform.shared[name].update(content)
            return self._answer(200, None)
        return self._answer(400, {})

    def _device(self, ending: str) -> str | None:
        path = urlsplit(self.path).path
        if not path.startswith(_ATTRIBUTES) or not path.endswith(ending):
            return None
        name = bytes.fromhex(path.removeprefix(_ATTRIBUTES).removesuffix(ending)).decode()
        return name if name in self.platform.profiles else None

    def _answer(self, status: int, content: Any) -> None:
        body = b"" if content is None else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
