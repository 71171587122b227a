"""What becomes of an offer that the disk does not take, with either platform."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from ivy import overview
from ivy.backend import tenta_backend, thingsboard_backend
from ivy.backend.flow_control import Pace
from ivy.backend.inbox import Inbox
from ivy.types.messages import DataMessageBody
from ivy.utils.logger import Logger
from ivy.utils.messaging_agent import MessagingAgent
from ivy.utils.state_interface import StateInterface
from tests.support.helpers import make_config

CONFIG = make_config()  # of revision 3
ATTRIBUTES = "v1/devices/me/attributes"


class Platform:
    """What a platform sends to an inbox."""

    def __init__(self, name: str, agent: MessagingAgent, logger: Logger) -> None:
        self._is_tenta = name == "tenta"
        make_dialect = tenta_backend.make_dialect if self._is_tenta else thingsboard_backend.make_dialect
        self.inbox = Inbox(make_dialect(CONFIG), CONFIG, logger, agent, Pace())

    def offer(self, revision: int, **more: Any) -> None:
        """A config."""
        general = {"config_revision": revision, "software_version": "1.0.0"}
        config = {"general": general, **more}
        if self._is_tenta:
            self._send({"revision": revision, "configuration": config})
        else:
            self._send({"configuration": config})

    def say_something_else(self) -> None:
        """What is no config: nonsense; from ThingsBoard also its limits, another attribute, and a call."""
        self._send("nonsense")
        if not self._is_tenta:
            self._send({"interval": 1})
            self.inbox.take("v1/devices/me/rpc/response/1", b'{"rateLimits":{"messages":"20:1"}}')
            assert len(self.inbox.take("v1/devices/me/rpc/request/1", b'{"method":"ping"}')) == 1

    def _send(self, content: Any) -> None:
        topic = f"configurations/{CONFIG.general.system_identifier}" if self._is_tenta else ATTRIBUTES
        self.inbox.take(topic, json.dumps(content).encode())


@pytest.fixture(params=["tenta", "thingsboard"])
def platform(request: pytest.FixtureRequest, agent: MessagingAgent, make_logger: type[Logger]) -> Platform:
    """Each platform in turn."""
    return Platform(request.param, agent, make_logger(CONFIG))


@pytest.fixture
def lock(data_dir: Path) -> Path:
    """What stands in the way of the state, until it is removed."""
    lock = data_dir / "state.lock"
    lock.mkdir()
    return lock


def _status(agent: MessagingAgent, logger: Logger) -> dict[str, Any]:
    [answer] = Platform("thingsboard", agent, logger).inbox.take(
        "v1/devices/me/rpc/request/1", b'{"method":"status"}'
    )
    status: dict[str, Any] = json.loads(answer.payload)["result"]
    return status


def test_the_call_status_tells_what_the_command_tells(
    agent: MessagingAgent, make_logger: type[Logger], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")  # no systemd to ask: the answer comes all the same
    agent.add_message(DataMessageBody(data={"a": 1}))
    found, told = _status(agent, make_logger(CONFIG)), overview.look(CONFIG, agent).as_json()
    of_before = {"ivy_version", "config_revision", "queued", "oldest_timestamp", "uptime_seconds", "procedures"}
    assert found.keys() == told.keys() | of_before
    assert (found["queued"], found["queue"]["length"], found["config_revision"]) == (1, 1, 3)
    assert [problem.split(":")[0] for problem in found["problems"] if "systemctl" in problem] == ["services"]


def test_the_call_status_is_answered_when_the_queue_cannot_be_read(
    agent: MessagingAgent, make_logger: type[Logger], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_work: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(agent.database, "run", fail)
    found = _status(agent, make_logger(CONFIG))
    assert found["queued"] is None and any("disk I/O error" in problem for problem in found["problems"])


def _revisions() -> list[int]:
    return [config.general.config_revision for config in StateInterface.load().pending_configs]


def test_an_offer_that_could_not_be_stored_outlives_whatever_else_arrives(platform: Platform, lock: Path) -> None:
    platform.offer(4)
    platform.inbox.try_again()
    platform.say_something_else()
    lock.rmdir()
    platform.say_something_else()
    assert _revisions() == []
    platform.inbox.try_again()
    assert _revisions() == [4]


def test_of_offers_that_could_not_be_stored_the_newest_stays(platform: Platform, lock: Path) -> None:
    for revision in (4, 6, 5):
        platform.offer(revision)
    platform.offer(7, too_large="x" * 70_000)
    lock.rmdir()
    platform.inbox.try_again()
    assert _revisions() == [6]


def test_the_next_offer_brings_the_one_that_could_not_be_stored(platform: Platform, lock: Path) -> None:
    platform.offer(5)
    lock.rmdir()
    platform.offer(4)  # of a broker that had retained it
    platform.inbox.try_again()
    assert _revisions() == [5]
