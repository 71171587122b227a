"""ThingsBoard's dialect, judged by the validator that knows nothing of it."""

import json
import math
import multiprocessing
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivy import constants
from ivy.backend import thingsboard_backend
from ivy.backend.dialect import Dialect, Encoded, Limits, OfferError, Remark, Request
from ivy.types.config import ConfigError, ForeignConfig
from ivy.types.messages import (
    ConfigMessageBody,
    DataMessageBody,
    LogMessageBody,
    MessageBody,
    MessageQueueItem,
)
from ivy.utils.logger import Logger
from tests.support.helpers import BACKEND, make_config
from tests.support.validators import thingsboard
from tests.unit import arbitrary
from tests.unit.arbitrary import item

ATTRIBUTES = "v1/devices/me/attributes"
RESPONSE = "v1/devices/me/attributes/response/1"
CALL = "v1/devices/me/rpc/request/7"
LIMITS = "v1/devices/me/rpc/response/1"
GENERAL = {"config_revision": 3, "software_version": "1.2.3"}
CONFIGURATION = {"general": GENERAL, "other": [1, {"a": None}]}

_LONG = arbitrary.long_text(9_000, 70_000)
_DATA = arbitrary.data(_LONG)


def _foreign_config(**more: Any) -> ForeignConfig:
    return ForeignConfig.model_validate({"general": GENERAL, **more})


_CONFIGS = arbitrary.configs(_LONG.map(lambda text: _foreign_config(more=text)))
_ITEMS = arbitrary.items(_DATA, arbitrary.logs(_LONG), _CONFIGS)


def _dialect() -> Dialect:
    return thingsboard_backend.make_dialect(make_config())


def _elements(encoded: Encoded) -> list[dict[str, Any]]:
    return [
        element
        for publication in encoded.publications
        for element in thingsboard.check(publication.topic, publication.payload, 1)
    ]


def _values(body: MessageBody) -> dict[str, Any]:
    """What stands in the one element that a body becomes."""
    [element] = _elements(_dialect().encode([item(body)]))
    values: dict[str, Any] = element["values"]
    return values


@given(_ITEMS)
def test_whatever_is_sent_is_in_thingsboards_form(items: Sequence[MessageQueueItem]) -> None:
    encoded = _dialect().encode(items)
    assert len(_elements(encoded)) == sum(len(p.message_ids) for p in encoded.publications)


@given(_ITEMS)
def test_each_message_is_sent_or_cannot_be_sent(items: Sequence[MessageQueueItem]) -> None:
    encoded = _dialect().encode(items)
    sent = {identifier for publication in encoded.publications for identifier in publication.message_ids}
    assert sorted([*sent, *encoded.unsendable]) == [item.identifier for item in items]


@given(_DATA)
def test_all_values_that_have_a_form_arrive(body: DataMessageBody) -> None:
    encoded = _dialect().encode([item(body)])
    if encoded.unsendable:
        return
    arrived: dict[str, Any] = {}
    for element in _elements(encoded):
        assert element["ts"] == 1_700_000_000_000
        arrived |= element["values"]
    expected = {
        key: round(value, 16) if isinstance(value, float) else value
        for key, value in body.data.items()
        if not _is_formless(key, value)
    }
    known = {key: value for key, value in expected.items() if thingsboard.key_fault(key) is None}
    assert known.items() <= arrived.items()
    assert len(arrived) == len(expected)


def _is_formless(key: str, value: float | int | str) -> bool:
    if isinstance(value, int):
        return abs(value) >= 2**63
    if isinstance(value, float):
        return not math.isfinite(value)
    element = {"ts": 1_700_000_000_000, "values": {key or "_": value}}
    return len(json.dumps([element], separators=(",", ":"), ensure_ascii=False).encode()) > 60_000


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_stays_a_number_and_loses_no_more_than_it_must(number: float) -> None:
    [publication] = _dialect().encode([item(DataMessageBody(data={"a": number}))]).publications
    text = publication.payload.decode().partition('"a":')[2].partition("}")[0]
    stored = thingsboard.stored_number(text)
    assert type(stored) is float and stored == round(number, 16)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.05137437372453215, "0.0513743737245322"),
        (21.0, "21.0"),
        (1e16, "10000000000000000.0"),
        (1.5e19, "15000000000000000000.0"),
        (1e-5, "1e-5"),
        (1.5e-13, "15e-14"),
        (1e-20, "0.0"),
        (2**62, "4611686018427387904"),
    ],
)
def test_the_form_of_a_number(number: float, text: str) -> None:
    [publication] = _dialect().encode([item(DataMessageBody(data={"a": number}))]).publications
    assert publication.payload == b'[{"ts":1700000000000,"values":{"a":%s}}]' % text.encode()


def test_a_value_that_loses_more_than_a_millionth_is_remarked() -> None:
    data: dict[str, Any] = {"a": 0.05137437372453215, "b": 1.2345e-12, "c": 1e-20, "d": 1e-16, "e": 1.25e-16}
    remarks = _dialect().encode([item(DataMessageBody(data=data))]).remarks
    assert sorted(remark.key for remark in remarks) == ["c", "e"]
    assert all("16 decimals" in remark.text for remark in remarks)


@pytest.mark.parametrize(
    ("key", "spelt"),
    [
        ("a b", "a b"),
        ("T<0", "T<0"),
        ("PM2.5 (µg/m³)", "PM2.5 (µg/m³)"),
        ("{a}", "{a}"),
        ("", "_"),
        ("  ", "_"),
        ("<b>a", "_b>a"),
        ("CO2 <ppm>", "CO2 _ppm>"),
        ("{{x}}", "_{x}}"),
        ("{{x", "{{x"),
        ("a\0b", "a_b"),
        ("x" * 255, "x" * 255),
    ],
)
def test_keys_that_the_server_would_refuse_are_spelt_otherwise(key: str, spelt: str) -> None:
    encoded = _dialect().encode([item(DataMessageBody(data={key: 1}))])
    assert _elements(encoded)[0]["values"] == {spelt: 1}
    told = [Remark(key, f"sent as {spelt!r}, as ThingsBoard refuses such a key")]
    assert list(encoded.remarks) == ([] if key == spelt else told)


def test_long_keys_are_cut_and_stay_apart() -> None:
    data: dict[str, Any] = {"x" * 300 + end: number for number, end in enumerate("abc")} | {
        "\N{PILE OF POO}" * 200: 3
    }
    values = _values(DataMessageBody(data=data))
    assert sorted(values.values()) == [0, 1, 2, 3]
    assert values == _values(DataMessageBody(data=data))


def test_a_key_that_is_taken_keeps_its_name() -> None:
    assert _values(DataMessageBody(data={"<b": 1, "_b": 2})) == {"_b_2": 1, "_b": 2}
    assert _values(DataMessageBody(data={"<b": math.nan, "</b": 1, "{{b}}": 2})) == {"_/b": 1, "_{b}}": 2}


def test_what_is_left_out_is_remarked_by_key_and_reason() -> None:
    data: dict[str, Any] = {"a": math.nan, "b": 2**63, "c": "x" * 70_000, "d": 1}
    encoded = _dialect().encode([item(DataMessageBody(data=data))])
    assert sorted(encoded.remarks) == [
        Remark("a", "left out: it is not a finite number"),
        Remark("b", "left out: it is an integer of more than 64 bits"),
        Remark("c", "left out: it is a text that is larger than ThingsBoard takes"),
    ]
    assert _elements(encoded)[0]["values"] == {"d": 1}


@given(_ITEMS, st.booleans())
def test_points_are_counted_as_sent(items: Sequence[MessageQueueItem], synchronised: bool) -> None:
    bodies = [one.message_body.model_copy(update={"clock_synchronised": synchronised}) for one in items]
    encoded = _dialect().encode([item(body, number) for number, body in enumerate(bodies, start=1)])
    for publication in encoded.publications:
        elements = thingsboard.check(publication.topic, publication.payload, 1)
        assert publication.points == sum(len(element["values"]) for element in elements)


def test_texts_travel_as_utf_8() -> None:
    body = DataMessageBody(data={"温度": "\N{SNOWMAN}"})
    [publication] = _dialect().encode([item(body)]).publications
    assert '"温度":"\N{SNOWMAN}"'.encode() in publication.payload


def test_a_sample() -> None:
    encoded = _dialect().encode(
        [item(DataMessageBody(data={"a b": 23.1, "n": 4, "t": "ä"}), timestamp=1.7e9 + 0.1234)]
    )
    assert _elements(encoded) == [{"ts": 1_700_000_000_123, "values": {"a b": 23.1, "n": 4, "t": "ä"}}]
    assert encoded.publications[0].points == 3


def test_what_has_no_form_is_left_out_of_a_sample() -> None:
    data: dict[str, float | int | str] = {"a": math.nan, "b": math.inf, "c": -math.inf, "d": 2**63, "e": 0.0}
    assert _values(DataMessageBody(data=data)) == {"e": 0.0}


@pytest.mark.parametrize("data", [{}, {"a": math.nan}, {"a": "x" * 70_000}])
def test_a_sample_that_cannot_be_sent(data: Any) -> None:
    encoded = _dialect().encode([item(DataMessageBody(data=data))])
    assert encoded.publications == []
    assert list(encoded.unsendable) == [1]


def test_a_large_sample_is_split_without_loss() -> None:
    data: dict[str, float | int | str] = {f"key {number}": "x" * 1000 for number in range(300)}
    encoded = _dialect().encode([item(DataMessageBody(data=data))])
    elements = _elements(encoded)
    assert len(encoded.publications) > 4
    assert {element["ts"] for element in elements} == {1_700_000_000_000}
    assert [pair for element in elements for pair in element["values"].items()] == list(data.items())


def test_a_log_line() -> None:
    body = LogMessageBody(level="ERROR", subject="subject", body="body")
    assert _values(body) == {"logging": {"level": "ERROR", "subject": "subject", "body": "body"}}


def test_what_was_taken_by_an_unsynchronised_clock_is_marked() -> None:
    assert _values(DataMessageBody(data={"a": 1}, clock_synchronised=False)) == {
        "a": 1,
        "clock_synchronised": False,
    }
    log = LogMessageBody(level="INFO", subject="subject", body="", clock_synchronised=False)
    assert _values(log)["logging"]["subject"] == "[clock not synchronised] subject"


def test_a_sample_that_tells_of_the_clock_itself_gets_no_second_mark() -> None:
    """The system checks do. JSON would take the same key twice."""
    body = DataMessageBody(data={"clock_synchronised": 0, "a": 1}, clock_synchronised=False)
    [publication] = _dialect().encode([item(body)]).publications
    assert publication.payload.count(b"clock_synchronised") == 1


@pytest.mark.parametrize("character", ["b", "\N{SNOWMAN}", "\N{PILE OF POO}", '"', "\0"])
def test_a_long_log_line_is_cut_and_says_so(character: str) -> None:
    log = _values(LogMessageBody(level="INFO", subject="s", body=character * 80_000))["logging"]
    assert log["subject"] == "s"
    assert set(log["body"].removesuffix("\n[cut]")) == {character}
    assert log["body"].endswith("\n[cut]")
    assert len(json.dumps(log)) > 59_900


def test_a_long_subject_is_cut_too() -> None:
    log = _values(LogMessageBody(level="INFO", subject="s" * 80_000, body="b" * 80_000))["logging"]
    assert log["body"] == "\n[cut]"
    assert log["subject"].endswith("s\n[cut]")


@pytest.mark.parametrize("status", ["received", "accepted", "rejected", "startup"])
def test_what_became_of_a_config(status: Any) -> None:
    body = ConfigMessageBody(status=status, config=_foreign_config(more=[1]))
    assert _values(body) == {"configuration": {"status": status, "config": {"general": GENERAL, "more": [1]}}}


def test_of_a_config_that_is_too_large_the_revision_is_sent() -> None:
    body = ConfigMessageBody(status="startup", config=_foreign_config(more="x" * 70_000))
    assert _values(body) == {"configuration": {"status": "startup", "config": {"general": GENERAL}}}


def test_it_says_who_it_is_and_asks_for_its_config_and_limits() -> None:
    greeting = _dialect().greeting()
    [attributes], [running], config, limits = [thingsboard.check(p.topic, p.payload, 1) for p in greeting]
    assert attributes["ivy_version"] == constants.VERSION.as_identifier()
    assert attributes["config_revision"] == 3
    assert attributes.keys() == {"ivy_version", "config_revision", "hostname", "debian_version", "boot_time"}
    assert config == [{"sharedKeys": "configuration,sw_title,sw_version,fw_title,fw_version"}]
    for kind in ("sw", "fw"):
        told = (running[f"current_{kind}_title"], running[f"current_{kind}_version"])
        assert told == (constants.NAME, constants.VERSION.as_identifier())
    assert limits == [{"method": "getSessionLimits", "params": {}}]
    assert [publication.message_ids for publication in greeting] == [()] * 4


def test_it_subscribes_to_all_that_it_asks_for() -> None:
    topics = {ATTRIBUTES, f"{ATTRIBUTES}/response/+", "v1/devices/me/rpc/request/+", "v1/devices/me/rpc/response/+"}
    assert set(_dialect().subscriptions) == topics


def _told(topic: str, value: Any) -> bytes:
    return json.dumps({"shared": value} if topic == RESPONSE else value).encode()


BOTH = pytest.mark.parametrize("topic", [ATTRIBUTES, RESPONSE])


@BOTH
def test_an_attribute_is_an_offer(topic: str) -> None:
    offer = _dialect().decode(topic, _told(topic, {"configuration": CONFIGURATION, "other": 1}))
    assert isinstance(offer, ForeignConfig)
    assert offer.model_dump(mode="json") == CONFIGURATION


@BOTH
@pytest.mark.parametrize("value", [{}, {"deleted": ["configuration"]}, {"other": 1}, [], None, 1, "configuration"])
def test_what_says_nothing_of_a_config_offers_none(topic: str, value: Any) -> None:
    assert _dialect().decode(topic, _told(topic, value)) is None
    assert _dialect().decode(topic, json.dumps(value).encode()) is None


HOSTILE: dict[str, tuple[Any, int | None]] = {
    "text": (json.dumps(CONFIGURATION), None),
    "null": (None, None),
    "an array": ([CONFIGURATION], None),
    "no general": ({"a": 1}, None),
    "no version": ({"general": {"config_revision": 4}}, 4),
    "no revision": ({"general": {"software_version": "1.2.3"}}, None),
    "an object as version": ({"general": {"config_revision": 4, "software_version": {}}}, 4),
    "a path as version": ({"general": {"config_revision": 4, "software_version": "../x"}}, 4),
    "a negative revision": ({"general": {"config_revision": -2, "software_version": "1.2.3"}}, None),
    "a revision that is true": ({"general": {"config_revision": True, "software_version": "x"}}, None),
    "a huge revision": ({"general": {"config_revision": 10**30, "software_version": "x"}}, None),
}


@BOTH
@pytest.mark.parametrize(("configuration", "revision"), HOSTILE.values(), ids=HOSTILE.keys())
def test_what_is_no_config_is_refused(topic: str, configuration: Any, revision: int | None) -> None:
    with pytest.raises(OfferError, match=r"\S") as refusal:
        _dialect().decode(topic, _told(topic, {"configuration": configuration}))
    assert refusal.value.revision == revision
    assert isinstance(configuration, dict) or 'the attribute must have the type "JSON"' in str(refusal.value)


@BOTH
@pytest.mark.parametrize("payload", [b"", b"{", b"\xff\xfe", b"[" * 60_000, b'{"a":' * 10_000])
def test_what_is_no_json_is_refused(topic: str, payload: bytes) -> None:
    with pytest.raises(OfferError, match=r"^it is not valid JSON$"):
        _dialect().decode(topic, payload)


def test_a_call() -> None:
    call = _dialect().decode(CALL, b'{"method":"restart","params":{"name":"x"}}')
    assert call == Request("v1/devices/me/rpc/response/7", "restart", {"name": "x"})


@pytest.mark.parametrize(
    "payload", [b"", b"{", b"[]", b'{"method":1}', b'{"method":"' + b"x" * 200 + b'"}', b"[" * 60_000]
)
def test_a_call_that_cannot_be_read_has_no_method(payload: bytes) -> None:
    assert _dialect().decode(CALL, payload) == Request("v1/devices/me/rpc/response/7", "", None)


@pytest.mark.parametrize("number", ["", "x", "1/2", "-1", "1" * 30, "\N{ARABIC-INDIC DIGIT ONE}"])
def test_a_call_without_a_number_gets_no_answer(number: str) -> None:
    assert _dialect().decode(f"v1/devices/me/rpc/request/{number}", b'{"method":"ping"}') is None


def test_limits() -> None:
    rates = {"messages": "20:1,600:60", "telemetryMessages": "10:1", "telemetryDataPoints": "300:60"}
    payload = json.dumps({"maxPayloadSize": 65536, "maxInflightMessages": 100, "rateLimits": rates}).encode()
    expected = Limits(((10, 1.0),), ((300, 60.0),), 100, 65536)  # `messages` are those without telemetry
    assert _dialect().decode(LIMITS, payload) == expected


@pytest.mark.parametrize(
    "rates", [{}, {"messages": "20:1"}, {"telemetryMessages": ""}, {"telemetryMessages": "0:0,x,1:,:1,-1:1,1:0"}]
)
def test_limits_that_limit_nothing(rates: Any) -> None:
    assert _dialect().decode(LIMITS, json.dumps({"rateLimits": rates}).encode()) == Limits()


@pytest.mark.parametrize("number", [0, -1, None])
def test_numbers_that_limit_nothing(number: Any) -> None:
    payload = json.dumps({"maxPayloadSize": number, "maxInflightMessages": number}).encode()
    assert _dialect().decode(LIMITS, payload) == Limits()


@pytest.mark.parametrize("payload", [b"", b"[]", b"{", b'{"rateLimits":7}', b'{"maxInflightMessages":"x"}'])
def test_an_answer_that_names_no_limits(payload: bytes) -> None:
    assert _dialect().decode(LIMITS, payload) is None


@given(
    st.sampled_from([ATTRIBUTES, RESPONSE, CALL, LIMITS]),
    st.one_of(st.binary(), arbitrary.JSON.map(json.dumps).map(str.encode)),
)
def test_nothing_else_comes_out_of_any_payload(topic: str, payload: bytes) -> None:
    try:
        wanted = _dialect().decode(topic, payload)
    except OfferError:
        return
    assert wanted is None or isinstance(wanted, ForeignConfig | Request | Limits)


@pytest.mark.parametrize("backend", [None, {**BACKEND, "provider": "tenta"}])
def test_it_does_not_run_beside_the_backend_of_the_config(backend: Any) -> None:
    config = make_config(backend=backend)
    with pytest.raises(ConfigError, match="but thingsboard was started"):
        thingsboard_backend.run(config, Logger(config, "thingsboard"), multiprocessing.Event())
