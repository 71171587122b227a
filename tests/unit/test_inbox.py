"""What becomes of an offer that the disk does not take, with either platform."""

import json
from pathlib import Path
from typing import Any

import pytest

from ivy.backend import tenta_backend, thingsboard_backend
from ivy.backend.flow_control import Pace
from ivy.backend.inbox import Inbox
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
