"""What the contract's tests need of a platform, the same for each. Tenta is a real Mosquitto, as in production."""

import json
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

from testbed.broker import Broker
from testbed.waiting import wait_for

from tests.support.backend_node import PASSWORD, SENSOR
from tests.support.recorder import Arrival, Recorder
from tests.support.thingsboard_daemon import ThingsBoardDaemon
from tests.support.thingsboard_server import BAD_CREDENTIALS, GRANTED, ThingsBoardServer
from tests.support.update_packages import UpdatePackages
from tests.support.validators import tenta, thingsboard

Element = dict[str, Any]


class _Server(Protocol):
    """Where a node sends to."""

    provider: str
    address: str
    port: int

    def samples(self, first: int = 0) -> list[tuple[float, Element]]:
        """Unix time and values of all samples so far, in the order of their arrival.

        Args:
            first: The publication to begin with; -5 leaves out all but the last five.
        """

    def check(self) -> None:
        """Judge everything that arrived."""

    def start(self) -> None:
        """Listen, if that was ended."""

    def stop(self) -> None:
        """End in good order."""

    def pause(self) -> None:
        """Answer nothing."""

    def resume(self) -> None:
        """Go on."""

    def close(self) -> None:
        """End for good."""


class Platform(_Server, Protocol):
    """A platform that one node talks to."""

    def delays(self, key: str) -> list[float]:
        """Seconds from its sampling to its arrival, of each sample so far that has such a value."""

    def logs(self) -> list[str]:
        """The texts of all log messages so far."""

    def decisions(self) -> list[tuple[bool, int]]:
        """All that was said about configs: whether accepted, and the revision."""

    def offer(self, configuration: Any, revision: Any) -> None:
        """Offer a config, now and at each connect."""

    def send(self, payload: bytes) -> None:
        """Send bytes where offers come from."""

    def restart(self) -> None:
        """Break the connection, and be there again."""


class MortalPlatform(_Server, Protocol):
    """A platform whose server is a process of its own, to be ended and stalled in any way."""

    def kill(self) -> None:
        """End at once."""


class TentaPlatform:
    """Tenta."""

    provider = "tenta"

    def __init__(self, directory: Path, port: int, address: str = "127.0.0.1", sensor: str = SENSOR) -> None:
        self._broker = Broker(address, port, {sensor: PASSWORD, "operator": PASSWORD}, directory=directory)
        self._broker.start()
        self.address, self.port = address, port
        self._sensor = sensor
        self.recorder = Recorder(address, port, "operator", PASSWORD)
        self.start, self.stop, self.kill = self._broker.start, self._broker.stop, self._broker.kill
        self.restart, self.pause, self.resume = self._broker.restart, self._broker.pause, self._broker.resume

    def samples(self, first: int = 0) -> list[tuple[float, Element]]:
        elements = self.recorder.elements("measurements", first)
        return [(element["timestamp"], element["value"]) for element in elements]

    def delays(self, key: str) -> list[float]:
        found = [a for a in list(self.recorder.arrivals) if key.encode() in a.payload]
        elements = [(arrival.time, element) for arrival in found for element in json.loads(arrival.payload)]
        return [arrived - element["timestamp"] for arrived, element in elements if key in element["value"]]

    def logs(self) -> list[str]:
        return [element["message"] for element in self.recorder.elements("logs")]

    def decisions(self) -> list[tuple[bool, int]]:
        return [(e["success"], e["revision"]) for e in self.recorder.elements("acknowledgments")]

    def offer(self, configuration: Any, revision: Any) -> None:
        payload = json.dumps({"revision": revision, "configuration": configuration})
        self.recorder.publish(f"configurations/{self._sensor}", payload, retain=True)

    def send(self, payload: bytes) -> None:
        self.recorder.publish(f"configurations/{self._sensor}", payload)

    def check(self) -> None:
        for arrival in list(self.recorder.arrivals):
            if not arrival.topic.startswith("configurations/"):
                tenta.check(arrival.topic, arrival.payload, arrival.qos, self._sensor)

    def close(self) -> None:
        self.recorder.close()
        self._broker.stop()


class _ThingsBoardForms:
    """Reads and judges what arrived at a ThingsBoard."""

    provider = "thingsboard"

    def _arrived(self) -> tuple[list[Arrival], list[str]]:
        """All publications, and why connections were closed."""
        raise NotImplementedError

    def _lost(self) -> list[str]:
        """Why samples were dropped after they were acknowledged."""
        raise NotImplementedError

    def _telemetry(self, first: int = 0) -> list[Element]:
        return [
            element
            for arrival in self._arrived()[0][first:]
            if arrival.topic == thingsboard.TELEMETRY
            for element in json.loads(arrival.payload)
            if "ts" in element
        ]

    def samples(self, first: int = 0) -> list[tuple[float, Element]]:
        kinds = {"logging", "configuration", "sw_state", "fw_state"}
        return [(e["ts"] / 1000, e["values"]) for e in self._telemetry(first) if not kinds & e["values"].keys()]

    def delays(self, key: str) -> list[float]:
        found = [a for a in self._arrived()[0][:] if key.encode() in a.payload]
        elements = [(arrival.time, element) for arrival in found for element in json.loads(arrival.payload)]
        return [arrived - element["ts"] / 1000 for arrived, element in elements if key in element["values"]]

    def logs(self) -> list[str]:
        logs = [element["values"]["logging"] for element in self._telemetry() if "logging" in element["values"]]
        return [f"{log['subject']}\n{log['body']}" for log in logs]

    def decisions(self) -> list[tuple[bool, int]]:
        told = [e["values"]["configuration"] for e in self._telemetry() if "configuration" in e["values"]]
        return [
            (one["status"] == "accepted", one["config"]["general"]["config_revision"])
            for one in told
            if one["status"] in ("accepted", "rejected")
        ]

    def check(self) -> None:
        arrivals, closings = self._arrived()
        for arrival in arrivals[:]:
            thingsboard.check(arrival.topic, arrival.payload, arrival.qos)
        refused = [reason for reason in closings if "login" not in reason]
        if refused:
            raise ValueError(f"connections were closed: {refused}")
        if lost := self._lost():
            raise ValueError(f"acknowledged and lost: {lost}")


class ThingsBoardPlatform(_ThingsBoardForms):
    """ThingsBoard, by an access token."""

    def __init__(self, address: str = "127.0.0.1", token: str = SENSOR) -> None:
        self.server = ThingsBoardServer(
            lambda _id, name, _password: GRANTED if name == token else BAD_CREDENTIALS, address=address
        )
        self.address, self.port = address, self.server.port
        self.start, self.stop, self.restart = self.server.start, self.server.stop, self.server.restart
        self.pause, self.resume, self.close = self.server.pause, self.server.resume, self.server.stop

    def packages(self, kind: str = "sw") -> UpdatePackages:
        """Its update packages of a kind."""
        return UpdatePackages(self.server, kind)

    def ask(self, method: str, params: Any = None) -> Element:
        """Call a procedure of the device. Returns what it answers."""
        number = self.server.call(method, params)
        answer: Element = wait_for(lambda: self.server.answers.get(number), 30, f"the answer to {method}")
        return answer

    def check(self) -> None:
        super().check()
        if faults := [fault for kind in ("sw", "fw") for fault in self.packages(kind).faults()]:
            raise ValueError(f"update packages: {faults}")

    def _arrived(self) -> tuple[list[Arrival], list[str]]:
        return self.server.arrivals, self.server.closings

    def _lost(self) -> list[str]:
        return self.server.lost

    def offer(self, configuration: Any, revision: Any) -> None:
        if isinstance(configuration, dict) and isinstance(configuration.get("general"), dict):
            general = {**configuration["general"], "config_revision": revision}
            configuration = {**configuration, "general": general}
        self.server.set_attribute("configuration", configuration)

    def send(self, payload: bytes) -> None:
        self.server.send(thingsboard.ATTRIBUTES, payload)


def new_platform(provider: str, directory: Path, address: str) -> Platform:
    """A platform of each kind; `directory` is for its files, if it has any."""
    if provider == ThingsBoardPlatform.provider:
        return ThingsBoardPlatform(address)
    return TentaPlatform(directory / "broker", 1883, address)


class MortalThingsBoard(_ThingsBoardForms):
    """ThingsBoard as a process of its own, which offers nothing."""

    def __init__(self, directory: Path, port: int, address: str, token: str) -> None:
        self.address, self.port = address, port
        self._daemon = ThingsBoardDaemon(address, port, token, directory)
        self._daemon.start()
        self.start, self.stop, self.kill = self._daemon.start, self._daemon.stop, self._daemon.kill
        self.pause, self.resume, self.close = self._daemon.pause, self._daemon.resume, self._daemon.stop

    def _arrived(self) -> tuple[list[Arrival], list[str]]:
        self._daemon.update()
        return self._daemon.arrivals, self._daemon.closings

    def _lost(self) -> list[str]:
        return self._daemon.lost


_Platform = TypeVar("_Platform", TentaPlatform, ThingsBoardPlatform, Platform)


@contextmanager
def judged(platform: _Platform) -> Generator[_Platform, None, None]:
    """A platform for a test; at its end, everything that has arrived must have been in the platform's form."""
    with closing(platform):
        yield platform
        platform.check()
