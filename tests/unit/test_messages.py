"""`ivy.types.messages`: what crosses the queue, without loss and without secrets."""

import csv
import math
from pathlib import Path
from typing import Any

import pydantic
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ivy.types.config import ForeignConfig
from ivy.types.messages import ConfigMessageBody, DataMessageBody, LogMessageBody, MessageArchiveItem, MessageBody
from ivy.utils.messaging_agent import MessagingAgent
from ivy.utils.storage import archive
from tests.support.helpers import ARCHIVE_DIR, BACKEND, UPDATER, make_config

FOREIGN = make_config(backend=BACKEND, updater=UPDATER).to_foreign_config()
ANY_BODY: pydantic.TypeAdapter[MessageBody] = pydantic.TypeAdapter(MessageBody)


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"variant": "data", "data": {"a": 1}}, DataMessageBody),
        ({"variant": "log", "level": "INFO", "subject": "", "body": ""}, LogMessageBody),
        ({"variant": "config", "status": "startup", "config": FOREIGN}, ConfigMessageBody),
    ],
)
def test_the_variant_decides(fields: dict[str, Any], kind: type) -> None:
    assert type(ANY_BODY.validate_python(fields)) is kind


@pytest.mark.parametrize("fields", [{"data": {"a": 1}}, {"variant": "other"}, {"variant": "log", "data": {"a": 1}}])
def test_without_its_variant_it_is_no_message(fields: dict[str, Any]) -> None:
    with pytest.raises(pydantic.ValidationError):
        ANY_BODY.validate_python(fields)


@pytest.mark.parametrize("key", ["logging", "configuration"])
def test_keys_that_mean_something_else_are_refused(key: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=f"reserved keys: {key}"):
        DataMessageBody(data={"temperature": 1, key: 1})


@pytest.mark.parametrize("value", [None, [], {}, b"\xff"])
def test_data_are_numbers_and_texts(value: Any) -> None:
    with pytest.raises(pydantic.ValidationError):
        DataMessageBody(data={"a": value})


def test_an_integer_that_nobody_can_read_costs_no_sample(agent: MessagingAgent) -> None:
    """What a procedure makes of noise on a line, by `int.from_bytes`, say."""
    agent.add_message(DataMessageBody(data={"a": 10**5000, "b": -(10**5000), "c": 10**4000, "d": 1}))
    [item] = agent.get_n_latest_messages(10, [])
    assert isinstance(item.message_body, DataMessageBody)
    assert item.message_body.data == {"a": math.inf, "b": -math.inf, "c": 10**4000, "d": 1}


@pytest.mark.parametrize("status", ["received", "accepted", "rejected", "startup"])
def test_the_status_of_a_config(status: Any) -> None:
    assert ConfigMessageBody(status=status, config=FOREIGN).status == status


def test_other_levels_and_statuses_are_refused() -> None:
    with pytest.raises(pydantic.ValidationError):
        LogMessageBody(level="debug", subject="", body="")  # type: ignore[arg-type]
    with pytest.raises(pydantic.ValidationError):
        ConfigMessageBody(status="done", config=FOREIGN)  # type: ignore[arg-type]


def test_a_config_message_has_no_secrets() -> None:
    body = ConfigMessageBody(status="accepted", config=FOREIGN)
    assert "hidden" not in body.model_dump_json() and "hidden" not in repr(body)
    assert "node-1" in body.model_dump_json()


@pytest.mark.parametrize("key", ["password", "api_token", "accessToken", "SECRET", "key_passphrase", "username"])
@pytest.mark.parametrize("value", ["hidden", ["hidden"], {"value": "hidden"}, 424242])
def test_secrets_of_other_versions_are_removed_wherever_they_stand(key: str, value: Any) -> None:
    section = {"list": [{"deep": {key: value}}], key: value}
    foreign = ForeignConfig.model_validate({**FOREIGN.model_dump(mode="json"), "new": section})
    text = ConfigMessageBody(status="received", config=foreign).model_dump_json()
    assert "hidden" not in text and "424242" not in text
    assert key in text  # that there is one may be seen


def test_the_absence_of_a_secret_may_be_seen() -> None:
    foreign = make_config(updater={**UPDATER, "access_token": None}).to_foreign_config()
    assert '"access_token":null' in ConfigMessageBody(status="received", config=foreign).model_dump_json()


def test_text_that_no_encoding_has_costs_characters_not_the_sample() -> None:
    body = DataMessageBody(data={"a\udcff": 1, "raw": b"12\xff".decode(errors="surrogateescape")})
    assert body.data == {"a?": 1, "raw": "12?"}
    assert LogMessageBody(level="INFO", subject="\udcff", body="\udcff").model_dump_json()


numbers = st.integers() | st.floats() | st.integers(10**300, 10**400)
keys = st.text().filter(lambda key: key not in {"logging", "configuration"})
texts = st.text() | st.text('",\n\r\0\\ \u2028\x85\x1céß')
bodies: st.SearchStrategy[DataMessageBody | LogMessageBody | ConfigMessageBody] = st.one_of(
    st.builds(DataMessageBody, data=st.dictionaries(keys | texts, numbers | texts)),
    st.builds(LogMessageBody, subject=texts, body=texts),
    st.builds(ConfigMessageBody, config=st.just(FOREIGN)),
)


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal and of the same type, NaN being equal to itself."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, float) and math.isnan(one):
        return isinstance(other, float) and math.isnan(other)
    return type(one) is type(other) and bool(one == other)


@settings(max_examples=50)
@given(st.lists(bodies, min_size=1, max_size=4))
@example([DataMessageBody(data={"": math.nan, "a": math.inf, "b": -math.inf, "c": 10**400, "d": -0.0})])
@example([DataMessageBody(data={'"': '"",\n', "timestamp,message_body\n": ""}), DataMessageBody(data={})])
def test_any_message_survives_queue_and_archive(
    agent: MessagingAgent, sent: list[DataMessageBody | LogMessageBody | ConfigMessageBody]
) -> None:
    Path(agent.get_message_archive_file()).unlink(missing_ok=True)
    for body in sent:
        agent.add_message(body)
    queued = agent.get_n_latest_messages(100)
    [file] = ARCHIVE_DIR.iterdir()
    archived = list(archive.read(str(file)))
    for items in (queued, archived):
        assert len(items) == len(sent)
        for item, body in zip(items, sent, strict=True):
            assert same(item.message_body.model_dump(), body.model_dump())
    assert [item.timestamp for item in queued] == [item.timestamp for item in archived]
    agent.remove_messages([item.identifier for item in queued])


@settings(max_examples=50)
@given(st.lists(bodies, max_size=4))
def test_any_archive_is_plain_csv(tmp_path: Path, sent: list[LogMessageBody]) -> None:
    path = tmp_path / "archive.csv"
    path.unlink(missing_ok=True)
    all_sent = [LogMessageBody(level="INFO", subject="first", body=""), *sent]
    appender = archive.Appender()
    for number, body in enumerate(all_sent):
        appender.append(str(path), archive.line(number + 0.25, body.model_dump_json()))
    appender.close()
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header == ["timestamp", "message_body"]
    assert [float(timestamp) for timestamp, _ in rows] == [number + 0.25 for number in range(len(sent) + 1)]
    assert [text for _, text in rows[1:]] == [body.model_dump_json() for body in sent]


def test_the_item_of_an_archive_is_a_timestamp_and_a_body() -> None:
    body = DataMessageBody(data={"a": 1})
    text = MessageArchiveItem(timestamp=1.5, message_body=body).model_dump_json()
    assert text == '{"timestamp":1.5,"message_body":{"variant":"data","data":{"a":1}}}'
