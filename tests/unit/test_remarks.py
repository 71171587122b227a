"""What the operator is told, once, of values that a dialect cannot send as they were sampled."""

import math
from typing import Any

import pytest

from ivy.backend import tenta_backend, thingsboard_backend
from ivy.backend.dialect import Dialect
from ivy.backend.remarks import reporting
from ivy.types.messages import DataMessageBody, LogMessageBody
from ivy.utils.logger import Logger
from ivy.utils.messaging_agent import MessagingAgent
from tests.support.helpers import BACKEND, make_config
from tests.unit.arbitrary import item

CONFIG = make_config(backend=BACKEND)  # without one, nothing is queued


@pytest.fixture(params=[tenta_backend, thingsboard_backend])
def dialect(request: pytest.FixtureRequest, make_logger: type[Logger]) -> Dialect:
    """Each dialect in turn, with its remarks reported."""
    return reporting(request.param.make_dialect(CONFIG), make_logger(CONFIG))


def _send(dialect: Dialect, **data: Any) -> None:
    dialect.encode([item(DataMessageBody(data=data))])


def _told(agent: MessagingAgent) -> list[LogMessageBody]:
    bodies = [one.message_body for one in agent.get_n_latest_messages(1000, [])]
    return [body for body in bodies if isinstance(body, LogMessageBody)]


def test_each_key_and_reason_is_told_once(dialect: Dialect, agent: MessagingAgent) -> None:
    for _ in range(3):
        _send(dialect, wind=math.nan, rain=1.0)
    _send(dialect, wind=2.0, rain=math.inf)
    first, second = _told(agent)
    assert first.level == "WARNING" and "Not all values are sent as they were sampled" in first.subject
    assert "'wind': left out: it is not a finite number" in first.body
    assert "'rain': left out: it is not a finite number" in second.body and "wind" not in second.body


def test_what_is_sent_as_it_was_sampled_is_not_told(dialect: Dialect, agent: MessagingAgent) -> None:
    _send(dialect, wind=2.0, rain=0.05137437372453215)
    assert _told(agent) == []


def test_keys_without_end_are_not_told_without_end(dialect: Dialect, agent: MessagingAgent) -> None:
    _send(dialect, a=1, **{f"key{number}": math.nan for number in range(100)})
    [told] = _told(agent)
    assert "and 80 more" in told.body and len(told.body.splitlines()) == 23
    for number in range(100, 1000):
        _send(dialect, a=1, **{f"key{number}": math.nan, "x" * 10_000: math.nan})
    assert len(_told(agent)) <= 401 and all(len(body.body) < 3000 for body in _told(agent))


def test_why_nothing_is_left_of_a_sample_is_told_by_key_and_not_twice(
    dialect: Dialect, agent: MessagingAgent
) -> None:
    nothing = [item(DataMessageBody(data={"wind": math.nan})), item(DataMessageBody(data={"rain": math.inf}), 2)]
    first, second = dialect.encode(nothing).unsendable.values()
    assert "'wind': left out: it is not a finite number" in first and "'rain': left out" in second
    again = set(dialect.encode(nothing).unsendable.values())
    assert again <= {first, second}, "the forwarder reports each reason once"
    assert _told(agent) == []


def test_reasons_with_keys_without_end_have_an_end(dialect: Dialect) -> None:
    reasons: set[str] = set()
    for number in range(1000):
        data: dict[str, Any] = {f"key{number} {other}": math.nan for other in range(5)}
        reasons |= set(dialect.encode([item(DataMessageBody(data=data))]).unsendable.values())
    assert len(reasons) == 100 and all("and 2 more" in reason for reason in reasons)
