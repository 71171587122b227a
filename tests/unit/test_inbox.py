"""What becomes of an offer that the disk does not take, with either platform."""

import errno
import json
import math
import os
import sqlite3
import time
from typing import Any

import pytest

from ivy import files, overview
from ivy.backend import tenta_backend, thingsboard_backend
from ivy.backend.flow_control import Pace
from ivy.backend.inbox import Inbox
from ivy.types.messages import DataMessageBody
from ivy.utils.logger import Logger
from ivy.utils.messaging_agent import MessagingAgent
from ivy.utils.state_interface import BACKEND_STATE, StateInterface
from tests.support.helpers import BACKEND, make_config

CONFIG = make_config()  # of revision 3
REPORTING = make_config(backend=BACKEND)  # without a backend no report is queued
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


class FullDisk:
    """What stands in the way of the state, until it is removed."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        def fail(*_: object, **__: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        self._patch = patch
        patch.setattr(files, "write_atomically", fail)

    def give_way(self) -> None:
        """Let it take files again."""
        self._patch.undo()


@pytest.fixture
def lock(monkeypatch: pytest.MonkeyPatch) -> FullDisk:
    """A disk that takes no state."""
    return FullDisk(monkeypatch)


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


def test_an_offer_that_could_not_be_stored_outlives_whatever_else_arrives(
    platform: Platform, lock: FullDisk
) -> None:
    platform.offer(4)
    platform.inbox.flush()
    platform.say_something_else()
    lock.give_way()
    platform.say_something_else()
    assert _revisions() == []
    platform.inbox.flush()
    assert _revisions() == [4]


def test_of_offers_that_could_not_be_stored_the_newest_stays(platform: Platform, lock: FullDisk) -> None:
    for revision in (4, 6, 5, 3, 2):  # the last two will be rejected for their numbers
        platform.offer(revision)
    platform.offer(7, too_large="x" * 70_000)
    lock.give_way()
    platform.inbox.flush()
    assert _revisions() == [5]


def test_the_next_offer_brings_the_one_that_could_not_be_stored(platform: Platform, lock: FullDisk) -> None:
    platform.offer(5)
    lock.give_way()
    platform.offer(2)  # of a broker that had retained it
    platform.inbox.flush()
    assert _revisions() == [5]


def test_the_first_offer_is_stored_at_once_and_then_the_newest_at_times(
    platform: Platform, agent: MessagingAgent
) -> None:
    now = time.monotonic()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: now)
        platform.offer(4)
        for revision in range(5, 40):
            platform.offer(revision, x="x" * 50_000)
        platform.inbox.try_again()
        assert _revisions() == [4] and 0 < platform.inbox.seconds_until_due() < 10
        now += 10
        platform.inbox.try_again()
    assert _revisions() == [39] and platform.inbox.seconds_until_due() == math.inf
    assert agent.get_queue_length() == 2, "what was never stored was never received"


def test_a_flood_of_offers_is_stored_ever_more_rarely(platform: Platform) -> None:
    now = start = time.monotonic()
    stored = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: now)
        for revision in range(4, 800):
            platform.offer(revision)
            stored += _revisions()
            now += 6
    assert now - start > 4000
    assert len(set(stored)) <= 40 + 4800 / 300


def test_what_is_sent_again_keeps_out_no_newer_one(platform: Platform) -> None:
    for revision in (4, 5, 4, 3):
        platform.offer(revision)
    platform.inbox.flush()
    assert _revisions() == [5]


@pytest.mark.parametrize("is_stored", [True, False])
def test_a_known_revision_with_another_content_is_answered_once(
    agent: MessagingAgent, make_logger: type[Logger], is_stored: bool
) -> None:
    """Whether what waits is stored already, or is to be stored later; until the next one is, too."""
    platform = Platform("tenta", agent, make_logger(REPORTING))
    for revision in (5, 6) if is_stored else (5, 6, 7):
        platform.offer(revision)
        if is_stored:
            platform.inbox.flush()
    for _ in range(2):
        platform.offer(3, x="another content")
        platform.inbox.flush()
    [said] = [text for text in _texts(agent) if "A config offer was ignored" in text]
    assert "3 is not higher than 3, which is known" in said and f"use {7 if is_stored else 8}" in said


def test_an_offer_that_the_state_would_not_carry_does_no_harm_later(platform: Platform) -> None:
    platform.offer(4)
    platform.offer(5, x=json.loads("[" * 196 + "]" * 196))
    platform.offer(6, x=json.loads("[" * 150 + "]" * 150))
    platform.inbox.flush()
    assert _revisions() == [6]


def _reports(agent: MessagingAgent) -> int:
    """How often the operator was told of an offer that cannot be read."""
    return sum("A config offer was ignored" in text for text in _texts(agent))


def _texts(agent: MessagingAgent) -> list[str]:
    return [one.message_body.model_dump_json() for one in agent.get_n_latest_messages(1000, [])]


@pytest.mark.parametrize("name", ["tenta", "thingsboard"])
def test_an_offer_that_cannot_be_read_is_answered_once_and_not_at_each_start(
    name: str, agent: MessagingAgent, make_logger: type[Logger]
) -> None:
    for _ in range(3):
        platform = Platform(name, agent, make_logger(REPORTING))
        for _ in range(2):
            platform.offer(4, general={"config_revision": 4})
            platform.offer(5, general={"config_revision": 5})
    assert _reports(agent) == 2
    answers = [json.loads(text) for text in _texts(agent) if '"rejected"' in text]
    assert [answer["config"]["general"]["config_revision"] for answer in answers] == [4, 5]


@pytest.mark.parametrize("name", ["tenta", "thingsboard"])
def test_another_content_is_another_offer(name: str, agent: MessagingAgent, make_logger: type[Logger]) -> None:
    for number in range(40):
        Platform(name, agent, make_logger(REPORTING)).offer(4, general=number)
    assert _reports(agent) == 40 and len(BACKEND_STATE.load().refused) == 16


def test_what_thingsboard_tells_in_two_ways_is_one_offer(agent: MessagingAgent, make_logger: type[Logger]) -> None:
    inbox = Platform("thingsboard", agent, make_logger(REPORTING)).inbox
    inbox.take(ATTRIBUTES, b'{"configuration":{"general":1,"a":2}}')
    inbox.take(f"{ATTRIBUTES}/response/1", b'{"shared":{"configuration":{"a":2,"general":1}}}')
    assert _reports(agent) == 1


def test_an_offer_that_is_too_large_is_answered_once(agent: MessagingAgent, make_logger: type[Logger]) -> None:
    for _ in range(3):
        platform = Platform("tenta", agent, make_logger(REPORTING))
        platform.inbox.refuse_unread(100_000)
        platform.offer(4, a="x" * 70_000)
        platform.offer(4, a="y" * 70_000)
    assert _reports(agent) == 3


def test_an_offer_is_answered_also_where_the_disk_does_not_remember_it(
    agent: MessagingAgent, make_logger: type[Logger], lock: FullDisk
) -> None:
    platform = Platform("tenta", agent, make_logger(REPORTING))
    platform.offer(4, general=1)
    platform.offer(4, general=1)
    assert _reports(agent) == 1
    lock.give_way()
    Platform("tenta", agent, make_logger(REPORTING)).offer(4, general=1)
    assert _reports(agent) == 2
