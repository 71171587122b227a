"""ThingsBoard's repository of update packages, and its update dashboard: assigns, and judges what a device reports.

As its OTA service does: an assignment sets the state to INITIATED, and changes shared attributes in one message; a
device that is away asks for them. The dashboard shows the latest value of each key, by time.
"""

import json
import time
from typing import Any

from tests.support.thingsboard_server import ThingsBoardServer

_PARTS = ("title", "version", "tag", "size", "checksum", "checksum_algorithm", "url")
_FOLLOWED_BY: dict[str, set[str]] = {
    "DOWNLOADING": {"DOWNLOADED", "FAILED"},
    "DOWNLOADED": {"VERIFIED", "FAILED"},
    "VERIFIED": {"UPDATING", "FAILED"},
    "UPDATING": {"UPDATED", "FAILED"},
    # An end. What runs already is UPDATED at once, and what cannot be had FAILED.
    "UPDATED": {"DOWNLOADING", "UPDATED", "FAILED"},
    "FAILED": {"DOWNLOADING", "UPDATED", "FAILED"},
}
_OF_THE_SERVER = ("QUEUED", "INITIATED")


class UpdatePackages:
    """Those of one device."""

    def __init__(self, server: ThingsBoardServer, kind: str = "sw") -> None:
        self.server = server
        self._kind = kind

    def assign(self, version: Any, title: Any = "ivy", **more: Any) -> None:
        """Assign a package, in place of the one that was."""
        for state in _OF_THE_SERVER:
            self._keep(f"{self._kind}_state", state)
        size = {"tag": f"{title} {version}", "size": 1, "checksum": "0" * 64, "checksum_algorithm": "SHA256"}
        values = {"title": title, "version": version, **size, **more}
        attributes = {f"{self._kind}_{part}": value for part, value in values.items() if value is not None}
        self.server.shared.update(attributes)
        self.server.send("v1/devices/me/attributes", json.dumps(attributes).encode())

    def unassign(self) -> None:
        """Assign none."""
        gone = [f"{self._kind}_{part}" for part in _PARTS]
        for key in gone:
            self.server.shared.pop(key, None)
        self.server.send("v1/devices/me/attributes", json.dumps({"deleted": gone}).encode())

    def states(self) -> list[str]:
        """What the device reported, in the order of its times."""
        return [state for _, state in self._states()]

    def latest(self, key: str) -> Any:
        """What the dashboard shows: the latest value of a key, which is given without the kind in front."""
        full = f"current_{self._kind}_{key.removeprefix('current_')}" if "current" in key else f"{self._kind}_{key}"
        found = {moment: value for (moment, name), value in list(self.server.stored.items()) if name == full}
        return found[max(found)] if found else None

    def faults(self) -> list[str]:
        """What the dashboard could make nothing of."""
        states = self._states()
        found = [f"{state} is no state of a device" for _, state in states if state not in _FOLLOWED_BY]
        for (_, state), (_, following) in zip([(0, "FAILED"), *states], states, strict=False):
            if following not in _FOLLOWED_BY.get(state, ()):
                found.append(f"{following} follows {state}: {self.states()}")
        for moment, state in states:
            has_error = bool(self.server.stored.get((moment, f"{self._kind}_error")))
            if has_error != (state == "FAILED"):
                found.append(f"{state} {'with' if has_error else 'without'} {self._kind}_error")
            if state == "UPDATED" and (moment, f"current_{self._kind}_version") not in self.server.stored:
                found.append(f"UPDATED without current_{self._kind}_version")
        return found

    def _states(self) -> list[tuple[int, str]]:
        key = f"{self._kind}_state"
        found = [(moment, value) for (moment, name), value in list(self.server.stored.items()) if name == key]
        return sorted((moment, state) for moment, state in found if state not in _OF_THE_SERVER)

    def _keep(self, key: str, value: Any) -> None:
        self.server.stored[round(time.time() * 1000), key] = value
