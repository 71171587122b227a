"""ThingsBoard's provisioning, as strict as that: keys of device profiles, names that are taken, malformed requests.

What it says was read in its source: `status` is SUCCESS, NOT_FOUND (key, secret, or provisioning is disabled) or
FAILURE (the name is taken, or not there where it should be). What is malformed closes the connection.
"""

import json
import secrets
from typing import Any

USER = "provision"
REQUESTS, ANSWERS = "/provision/request", "/provision/response"
_KNOWN = {"deviceName", "provisionDeviceKey", "provisionDeviceSecret", "credentialsType", "token"}


class Malformed(Exception):
    """A request that the connection is closed for."""


class Provisioning:
    """One device profile that lets new devices register."""

    def __init__(self, key: str, secret: str) -> None:
        self.devices: dict[str, str] = {}
        """The access tokens of all devices, by their names."""
        self.requests: list[str] = []
        """The names for which somebody asked, in good form."""
        self.says: bytes | None = None
        """What it answers instead, having done what was asked; empty for nothing."""
        self.status_key = "status"
        """How older servers call it: `provisionDeviceStatus`."""
        self._key, self._secret = key, secret

    def answer(self, payload: bytes) -> bytes | None:
        """Register a device, or say why not.

        Raises:
            Malformed: It is no request.
        """
        name, asked = _read(payload)
        self.requests.append(name)
        answer = json.dumps(self._register(name, asked)).encode()
        return answer if self.says is None else self.says or None

    def _register(self, name: str, asked: dict[str, Any]) -> dict[str, Any]:
        if (asked["provisionDeviceKey"], asked["provisionDeviceSecret"]) != (self._key, self._secret):
            return {"errorMsg": "Provision data was not found!", self.status_key: "NOT_FOUND"}
        if name in self.devices:
            return {"errorMsg": "Failed to provision device!", self.status_key: "FAILURE"}
        token = asked.get("token") or secrets.token_hex(10)
        if token in self.devices.values():  # of another device
            return {"errorMsg": "Failed to provision device!", self.status_key: "FAILURE"}
        self.devices[name] = token
        return {"credentialsType": "ACCESS_TOKEN", "credentialsValue": token, self.status_key: "SUCCESS"}


def _read(payload: bytes) -> tuple[str, dict[str, Any]]:
    try:
        asked = json.loads(payload)
    except ValueError as error:
        raise Malformed(f"a request that is not JSON: {error}") from None
    if not isinstance(asked, dict) or not all(isinstance(value, str) for value in asked.values()):
        raise Malformed(f"a request that is not an object of texts: {asked!r:.200}")
    if unknown := asked.keys() - _KNOWN:
        raise Malformed(f"a request with {unknown}")
    for key in ("deviceName", "provisionDeviceKey", "provisionDeviceSecret"):
        if not asked.get(key):
            raise Malformed(f"a request without {key}")
    if asked.get("credentialsType", "ACCESS_TOKEN") != "ACCESS_TOKEN":
        raise Malformed(f"credentials of another type: {asked['credentialsType']}")
    return asked["deviceName"], asked
