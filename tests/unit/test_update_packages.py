"""Update packages on their way from ThingsBoard into the state, and what the platform is told of bad ones."""

import errno
import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivy import constants, files
from ivy.backend import tenta_backend, thingsboard_backend
from ivy.backend.delays import Delays
from ivy.backend.flow_control import Pace
from ivy.backend.inbox import Inbox
from ivy.types.messages import ConfigMessageBody, DataMessageBody
from ivy.types.updates import Package
from ivy.utils.logger import Logger
from ivy.utils.messaging_agent import MessagingAgent
from ivy.utils.state_interface import BACKEND_STATE, BACKEND_STATE_FILE
from tests.support.helpers import make_config
from tests.unit import arbitrary

CONFIG = make_config()
CHANGE = "v1/devices/me/attributes"
ANSWER = "v1/devices/me/attributes/response/1"
FLAG = Path(constants.PENDING_CONFIG_FLAG)
AT_ONCE = Delays(between_offers=0.0, after_many_offers=0.001, between_reports=0.0)


class Platform:
    """What it says to a backend that has just connected."""

    def __init__(self, inbox: Inbox) -> None:
        self.inbox = inbox

    def answer(self, **shared: Any) -> None:
        """All that exists of what a node asks for at each connect."""
        self.inbox.take(ANSWER, json.dumps({"shared": shared} if shared else {}).encode())

    def change(self, **values: Any) -> None:
        """Some attributes are otherwise now."""
        self.inbox.take(CHANGE, json.dumps(values).encode())


@pytest.fixture
def connect(agent: MessagingAgent, make_logger: type[Logger]) -> Callable[..., Platform]:
    """Starts a backend, which hears what the platform says."""

    def make(delays: Delays = AT_ONCE) -> Platform:
        dialect = thingsboard_backend.make_dialect(CONFIG)
        return Platform(Inbox(dialect, CONFIG, make_logger(CONFIG), agent, Pace(), delays))

    return make


def waiting() -> list[tuple[str, str]]:
    """Kinds and versions of the packages that wait."""
    return [(package.kind, str(package.version)) for package in BACKEND_STATE.load().packages]


def decided() -> list[Package]:
    """Let the updater decide about all that waits; returns what that was."""
    with BACKEND_STATE.update() as state:
        found, state.packages = state.packages, []
    return found


def told(agent: MessagingAgent, kind: str = "sw") -> list[str]:
    """The errors that the platform was told of."""
    bodies = [item.message_body for item in agent.get_n_latest_messages(1000)]
    found = [body.data for body in bodies if isinstance(body, DataMessageBody) and f"{kind}_state" in body.data]
    assert all(data[f"{kind}_state"] == "FAILED" for data in found)
    return [str(data[f"{kind}_error"]) for data in found]


SW = {"sw_title": "ivy", "sw_version": "9.1.0"}


@pytest.mark.parametrize("version", ["9.1.0", "v9.1.0"])
@pytest.mark.parametrize("kind", ["sw", "fw"])
def test_an_assigned_package_waits_for_the_updater(
    connect: Callable[..., Platform], agent: MessagingAgent, kind: str, version: str
) -> None:
    values = {f"{kind}_title": "ivy", f"{kind}_version": version, f"{kind}_size": 1, f"{kind}_url": "https://x"}
    connect().answer(**values)
    assert waiting() == [(kind, "9.1.0")] and FLAG.exists()
    assert agent.get_queue_length() == 0, "the states are the updater's to tell"


def test_both_kinds_wait_side_by_side(connect: Callable[..., Platform]) -> None:
    connect().answer(**SW, fw_title="ivy", fw_version="9.2.0")
    assert waiting() == [("sw", "9.1.0"), ("fw", "9.2.0")]


def test_what_is_assigned_while_the_node_is_connected_is_heard(connect: Callable[..., Platform]) -> None:
    platform = connect()
    platform.answer()
    platform.change(**SW)
    assert waiting() == [("sw", "9.1.0")]
    platform.change(sw_version="9.2.0")  # the title stays
    assert waiting() == [("sw", "9.2.0")]


def test_before_the_answer_half_a_package_says_nothing(
    connect: Callable[..., Platform], agent: MessagingAgent
) -> None:
    platform = connect()
    platform.change(sw_version="9.1.0")
    assert waiting() == [] and told(agent) == []
    platform.answer(**SW)
    assert waiting() == [("sw", "9.1.0")]


def test_what_is_said_again_at_each_connect_is_known(connect: Callable[..., Platform]) -> None:
    connect().answer(**SW)
    [package] = decided()
    for _ in range(3):
        connect().answer(**SW)
    assert waiting() == []
    assert package.version.as_identifier() == "9.1.0"


@pytest.mark.parametrize("how", ["deleted", "while away", "another one meanwhile"])
def test_what_is_assigned_again_is_a_new_offer(connect: Callable[..., Platform], how: str) -> None:
    platform = connect()
    platform.answer(**SW)
    [before] = decided()
    if how == "deleted":
        platform.change(deleted=["sw_title", "sw_version", "sw_tag"])
    elif how == "while away":
        connect().answer(configuration={"general": {"config_revision": 3, "software_version": "1.0.0"}})
    else:
        platform.change(**{**SW, "sw_version": "9.2.0"})
    platform = connect()
    platform.answer()
    platform.change(**SW)
    [after] = decided()
    assert after.version == before.version and after.identifier != before.identifier


def test_unassigning_ends_nothing(connect: Callable[..., Platform], agent: MessagingAgent) -> None:
    platform = connect()
    platform.answer(**SW)
    platform.change(deleted=["sw_title", "sw_version"])
    connect().answer()
    assert waiting() == [("sw", "9.1.0")] and told(agent) == []


def test_of_attributes_that_belong_to_no_package_nothing_is_kept(connect: Callable[..., Platform]) -> None:
    platform = connect()
    platform.answer(sw_tag="x", sw_url="https://x")
    platform.change(interval=1, sw_checksum="0")
    platform.change(deleted=["interval"])
    assert not Path(BACKEND_STATE_FILE).exists()


BAD = [
    ({"sw_title": "ivy"}, "sw_version: is missing"),
    ({"sw_version": "9.1.0"}, "sw_title: is missing"),
    ({**SW, "sw_title": "other"}, "sw_title: the package is one of 'other', but this node runs 'ivy'"),
    ({**SW, "sw_title": ""}, "one of ''"),
    ({**SW, "sw_title": "x" * 60_000}, "one of 'xxx"),
    ({**SW, "sw_title": 7}, "one of '7'"),
    ({**SW, "sw_title": {"a": [None]}}, "one of '{"),
    ({**SW, "sw_version": "9.1"}, "sw_version: must look like"),
    ({**SW, "sw_version": "vv9.1.0"}, "sw_version: must look like"),
    ({**SW, "sw_version": "../../etc"}, "sw_version: must look like"),
    ({**SW, "sw_version": "9.1.0\n"}, "sw_version: must look like"),
    ({**SW, "sw_version": "9" * 60_000}, "sw_version: must look like"),
    ({**SW, "sw_version": 9.1}, "sw_version: must look like"),
    ({**SW, "sw_version": True}, "sw_version: must look like"),
    ({**SW, "sw_version": ["9.1.0"]}, "sw_version: must look like"),
]


@pytest.mark.parametrize(("shared", "reason"), BAD)
def test_what_is_no_package_of_this_node_fails_once_and_says_why(
    connect: Callable[..., Platform], agent: MessagingAgent, shared: dict[str, Any], reason: str
) -> None:
    for _ in range(3):
        platform = connect()
        platform.answer(**shared)
        platform.change(**shared)
    [error] = told(agent)
    assert reason in error and len(error) < 300
    assert waiting() == [] and not FLAG.exists()
    assert Path(BACKEND_STATE_FILE).stat().st_size < 1000
    platform.change(**SW)
    assert waiting() == [("sw", "9.1.0")]


def test_what_is_bad_is_answered_again_when_it_is_assigned_again(
    connect: Callable[..., Platform], agent: MessagingAgent
) -> None:
    platform = connect()
    for _ in range(2):
        platform.answer(sw_title="other", sw_version="9.1.0")
        platform.answer()
    assert len(told(agent)) == 2


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b"\xff",
        b"[]",
        b"null",
        b'"sw_title"',
        b'{"deleted":7}',
        b'{"deleted":[[]]}',
        pytest.param(b"[" * 9999, id="deep"),
    ],
)
def test_what_is_no_object_says_nothing_of_packages(connect: Callable[..., Platform], payload: bytes) -> None:
    platform = connect()
    platform.answer(**SW)
    for topic in (CHANGE, ANSWER):
        platform.inbox.take(topic, payload)
    assert waiting() == [("sw", "9.1.0")]


@pytest.mark.parametrize("number", [b"9" * 4000, b"9" * 5000, b"NaN", b"1e999", b"-Infinity"])
def test_a_number_that_hardly_anything_can_read_is_no_version(
    connect: Callable[..., Platform], agent: MessagingAgent, number: bytes
) -> None:
    platform = connect()
    platform.inbox.take(ANSWER, b'{"shared":{"sw_title":"ivy","sw_version":%s}}' % number)
    assert waiting() == [] and len(told(agent)) <= 1


@given(st.dictionaries(st.sampled_from(["sw_title", "sw_version", "fw_title", "deleted"]), arbitrary.JSON))
def test_nothing_that_is_said_of_packages_harms(content: dict[str, Any]) -> None:
    dialect = thingsboard_backend.make_dialect(CONFIG)
    for topic, payload in ((CHANGE, content), (ANSWER, {"shared": content}), (ANSWER, content)):
        said = dialect.packages(topic, json.dumps(payload).encode())
        assert set(said) <= {"sw_title", "sw_version", "fw_title", "fw_version"}
        assert all(value is None or len(value) <= 256 for value in said.values())


def test_tenta_assigns_no_packages() -> None:
    dialect = tenta_backend.make_dialect(CONFIG)
    assert dialect.packages(f"configurations/{CONFIG.general.system_identifier}", json.dumps(SW).encode()) == {}


def test_answers_to_other_requests_say_nothing_of_packages() -> None:
    dialect = thingsboard_backend.make_dialect(CONFIG)
    assert dialect.packages(f"{CHANGE}/response/2", b"{}") == {}


def test_a_config_and_a_package_may_come_in_one_message(
    connect: Callable[..., Platform], agent: MessagingAgent
) -> None:
    config = {"general": {"config_revision": 9, "software_version": "1.0.0"}}
    connect().answer(configuration=config, **SW)
    state = BACKEND_STATE.load()
    assert [offer.general.config_revision for offer in state.pending_configs] == [9] and len(state.packages) == 1
    [received] = [item.message_body for item in agent.get_n_latest_messages(9)]
    assert isinstance(received, ConfigMessageBody) and received.status == "received"


def test_a_package_waits_for_a_disk_that_takes_no_state(
    connect: Callable[..., Platform], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    platform = connect()
    with monkeypatch.context() as full_disk:
        full_disk.setattr(files, "write_atomically", refuse)
        platform.answer(**SW)
        platform.answer(sw_title="other", sw_version="9.1.0")
        platform.inbox.try_again()
        platform.answer(**SW)
    assert waiting() == [] and platform.inbox.seconds_until_due() < math.inf
    platform.inbox.try_again()
    assert waiting() == [("sw", "9.1.0")] and platform.inbox.seconds_until_due() == math.inf


def test_of_many_packages_the_last_one_waits_and_few_are_written(
    connect: Callable[..., Platform], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    platform = connect(Delays())
    platform.answer()
    written = 0
    for number in range(10_000):
        before = waiting() if number % 100 == 0 else []
        platform.change(sw_title="ivy", sw_version=f"9.{number}.0")
        platform.inbox.try_again()
        clock[0] += 0.1
        written += number % 100 == 0 and waiting() != before
    assert written <= 60, "of a thousand seconds: the first dozens at once, then one in five minutes"
    clock[0] += 400
    platform.inbox.try_again()
    assert waiting() == [("sw", "9.9999.0")]


def test_a_backend_that_is_stopped_leaves_what_it_has_heard(connect: Callable[..., Platform]) -> None:
    platform = connect(Delays())
    platform.answer(**SW)
    platform.change(sw_version="9.2.0")
    assert waiting() == [("sw", "9.1.0")]
    platform.inbox.flush()
    assert waiting() == [("sw", "9.2.0")]


def test_a_flag_that_is_lost_with_run_is_raised_again(connect: Callable[..., Platform]) -> None:
    connect().answer(**SW)
    FLAG.unlink()
    connect().answer(**SW)
    assert FLAG.exists()
