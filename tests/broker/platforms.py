"""What the contract's tests need of a platform, the same for each. Tenta is a real Mosquitto, as in production."""

import json
from pathlib import Path
from typing import Any, Protocol

from testbed.broker import Broker

from tests.broker.node import PASSWORD, SENSOR
from tests.broker.thingsboard_server import BAD_CREDENTIALS, GRANTED, ThingsBoardServer
from tests.node.recorder import Recorder
from tests.validators import tenta, thingsboard

Element = dict[str, Any]


class Platform(Protocol):
    """A platform that one node talks to."""

    provider: str
    port: int

    def samples(self) -> list[tuple[float, Element]]:
        """Unix time and values of all samples so far, in the order of their arrival."""

    def logs(self) -> list[str]:
        """The texts of all log messages so far."""

    def verdicts(self) -> list[tuple[bool, int]]:
        """All that was said about configs: whether accepted, and the revision."""

    def offer(self, configuration: Any, revision: Any) -> None:
        """Offer a config, now and at each connect."""

    def send(self, payload: bytes) -> None:
        """Send bytes where offers come from."""

    def check(self) -> None:
        """Judge everything that arrived."""

    def restart(self) -> None:
        """Break the connection, and be there again."""

    def pause(self) -> None:
        """Answer nothing."""

    def resume(self) -> None:
        """Go on."""

    def close(self) -> None:
        """End."""


class TentaPlatform:
    """Tenta."""

    provider = "tenta"

    def __init__(self, directory: Path, port: int) -> None:
        users = {SENSOR: PASSWORD, "operator": PASSWORD}
        self._broker = Broker("127.0.0.1", port, users, directory=directory)
        self._broker.start()
        self.port = port
        self._recorder = Recorder("127.0.0.1", port, "operator", PASSWORD)
        self.restart, self.pause, self.resume = self._broker.restart, self._broker.pause, self._broker.resume

    def samples(self) -> list[tuple[float, Element]]:
        return [(element["timestamp"], element["value"]) for element in self._recorder.elements("measurements")]

    def logs(self) -> list[str]:
        return [element["message"] for element in self._recorder.elements("logs")]

    def verdicts(self) -> list[tuple[bool, int]]:
        return [(e["success"], e["revision"]) for e in self._recorder.elements("acknowledgments")]

    def offer(self, configuration: Any, revision: Any) -> None:
        payload = json.dumps({"revision": revision, "configuration": configuration})
        self._recorder.publish(f"configurations/{SENSOR}", payload, retain=True)

    def send(self, payload: bytes) -> None:
        self._recorder.publish(f"configurations/{SENSOR}", payload)

    def check(self) -> None:
        for arrival in list(self._recorder.arrivals):
            if not arrival.topic.startswith("configurations/"):
                tenta.check(arrival.topic, arrival.payload, arrival.qos, SENSOR)

    def close(self) -> None:
        self._recorder.close()
        self._broker.stop()


class ThingsBoardPlatform:
    """ThingsBoard, by an access token."""

    provider = "thingsboard"

    def __init__(self, address: str = "127.0.0.1", token: str = SENSOR) -> None:
        self.server = ThingsBoardServer(
            lambda _id, name, _password: GRANTED if name == token else BAD_CREDENTIALS, address=address
        )
        self.address, self.port = address, self.server.port
        self.restart, self.pause, self.resume = self.server.restart, self.server.pause, self.server.resume
        self.close = self.server.stop

    def _telemetry(self) -> list[Element]:
        return [
            element
            for arrival in list(self.server.arrivals)
            if arrival.topic == thingsboard.TELEMETRY
            for element in json.loads(arrival.payload)
        ]

    def samples(self) -> list[tuple[float, Element]]:
        kinds = {"logging", "configuration"}
        return [(e["ts"] / 1000, e["values"]) for e in self._telemetry() if not kinds & e["values"].keys()]

    def logs(self) -> list[str]:
        logs = [element["values"]["logging"] for element in self._telemetry() if "logging" in element["values"]]
        return [f"{log['subject']}\n{log['body']}" for log in logs]

    def verdicts(self) -> list[tuple[bool, int]]:
        told = [e["values"]["configuration"] for e in self._telemetry() if "configuration" in e["values"]]
        return [
            (one["status"] == "accepted", one["config"]["general"]["config_revision"])
            for one in told
            if one["status"] in ("accepted", "rejected")
        ]

    def offer(self, configuration: Any, revision: Any) -> None:
        if isinstance(configuration, dict) and isinstance(configuration.get("general"), dict):
            general = {**configuration["general"], "config_revision": revision}
            configuration = {**configuration, "general": general}
        self.server.set_attribute("configuration", configuration)

    def send(self, payload: bytes) -> None:
        self.server.send(thingsboard.ATTRIBUTES, payload)

    def check(self) -> None:
        for arrival in list(self.server.arrivals):
            thingsboard.check(arrival.topic, arrival.payload, arrival.qos)
        refused = [reason for reason in self.server.closings if "login" not in reason]
        if refused:
            raise ValueError(f"connections were closed: {refused}")
