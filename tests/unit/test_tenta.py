"""Tenta's dialect, judged by the validator that knows nothing of it."""

import json
import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivy.backend import tenta_backend
from ivy.backend.dialect import LARGEST_BATCH, Dialect, Encoded, OfferError, Remark
from ivy.types.config import ConfigError, ForeignConfig
from ivy.types.messages import (
    RESERVED_KEYS,
    ConfigMessageBody,
    DataMessageBody,
    LogMessageBody,
    MessageBody,
    MessageQueueItem,
)
from tests.support.helpers import make_config
from tests.support.validators import tenta
from tests.unit import arbitrary
from tests.unit.arbitrary import item

SENSOR = "81bf7042-e20f-4a97-ac44-c15853e3618f"
TOPIC = f"configurations/{SENSOR}"
LARGEST_REVISION = 2**31 - 1
LARGEST_LOG = 16_384

_REVISIONS = st.one_of(st.integers(-1, 10), st.integers(LARGEST_REVISION - 2, LARGEST_REVISION + 2))


def _foreign_config(revision: int) -> ForeignConfig:
    return ForeignConfig.model_validate({"general": {"config_revision": revision, "software_version": "1.0.0"}})


_ITEMS = arbitrary.items(
    arbitrary.data(arbitrary.TEXT),
    arbitrary.logs(arbitrary.long_text(16_000, 17_000)),
    arbitrary.configs(_REVISIONS.map(_foreign_config)),
)


def _dialect(revision: int = 2, sensor: str = SENSOR) -> Dialect:
    return tenta_backend.make_dialect(
        make_config(
            general={"config_revision": revision, "software_version": "1.0.0", "system_identifier": sensor},
            logging_verbosity={"file_archive": None, "console_prints": None, "message_sending": None},
        )
    )


def _elements(encoded: Encoded) -> list[dict[str, Any]]:
    return [
        element
        for publication in encoded.publications
        for element in tenta.check(publication.topic, publication.payload, 1, SENSOR)
    ]


def _only(body: MessageBody, revision: int = 2) -> dict[str, Any]:
    """The one element that a body becomes."""
    [element] = _elements(_dialect(revision).encode([item(body)]))
    return element


def _value(data: dict[str, Any]) -> dict[str, Any]:
    value: dict[str, Any] = _only(DataMessageBody(data=data))["value"]
    return value


def _offer(configuration: Any, revision: Any = 3) -> bytes:
    return json.dumps({"revision": revision, "configuration": configuration}).encode()


CONFIGURATION = {"general": {"software_version": "1.2.3", "system_identifier": "x"}, "other": [1, {"a": None}]}


@given(_ITEMS, _REVISIONS)
def test_whatever_is_sent_is_in_tentas_form(items: Sequence[MessageQueueItem], revision: int) -> None:
    encoded = _dialect(revision).encode(items)
    assert len(_elements(encoded)) == sum(len(p.message_ids) for p in encoded.publications)


@given(_ITEMS)
def test_each_message_is_sent_once_or_cannot_be_sent(items: Sequence[MessageQueueItem]) -> None:
    encoded = _dialect().encode(items)
    sent = [identifier for publication in encoded.publications for identifier in publication.message_ids]
    assert sorted([*sent, *encoded.unsendable]) == [item.identifier for item in items]
    assert all(encoded.unsendable.values())


@given(_ITEMS)
def test_elements_stand_in_the_order_of_their_identifiers(items: Sequence[MessageQueueItem]) -> None:
    times = {item.identifier: item.timestamp for item in items}
    for publication in _dialect().encode(items).publications:
        assert list(publication.message_ids) == sorted(publication.message_ids)
        elements = tenta.check(publication.topic, publication.payload, 1, SENSOR)
        assert [e["timestamp"] for e in elements] == [times[identifier] for identifier in publication.message_ids]


def test_a_sample() -> None:
    body = DataMessageBody(data={"temperature": 23.1, "count": 4})
    assert _only(body) == {"value": {"temperature": 23.1, "count": 4}, "timestamp": 1.7e9, "revision": 2}


def test_what_is_no_finite_number_is_left_out_of_a_sample() -> None:
    assert _value({"a": math.nan, "b": math.inf, "c": -math.inf, "d": "text", "e": 10**400, "f": 0.0}) == {"f": 0.0}


@pytest.mark.parametrize("data", [{}, {"a": "text"}, {"a": math.nan}, {"!": 1.0, "": 2.0}])
def test_a_sample_without_any_number_cannot_be_sent(data: Any) -> None:
    encoded = _dialect().encode([item(DataMessageBody(data=data))])
    assert encoded.publications == []
    assert list(encoded.unsendable) == [1]


@pytest.mark.parametrize(
    ("key", "spelt"),
    [
        ("temperature", "temperature"),
        ("CO2 (ppm)", "co2_ppm"),
        ("_a__b_", "a_b"),
        ("Größe", "gr_u00f6_u00df_e"),
        ("温度", "u6e29_u5ea6"),
        ("PM2.5 (µg/m³)", "pm2_5_u00b5_g_m"),
        ("Temp °C", "temp_c"),
        ("\N{ARABIC-INDIC DIGIT THREE}", "u0663"),
        ("x" * 70, "x" * 64),
        ("x" * 63 + "_y", "x" * 63),
    ],
)
def test_keys_are_spelt_as_tenta_wants_them(key: str, spelt: str) -> None:
    assert _value({key: 1.0}) == {spelt: 1.0}


def test_keys_that_are_spelt_alike_stay_apart() -> None:
    assert _value({"a b": 1, "A-B": 2}) == {"a_b": 1, "a_b_2": 2}
    assert sorted(_value({"x" * 64 + "1": 1, "x" * 64 + "2": 2}).values()) == [1, 2]


def test_a_key_that_needs_no_other_spelling_keeps_its_name() -> None:
    assert _value({"a b": 1, "a_b": 2, "A-B": 3, "a_b_2": 4}) == {"a_b_3": 1, "a_b": 2, "a_b_4": 3, "a_b_2": 4}


@given(
    st.dictionaries(st.text(max_size=6), st.floats(allow_nan=False, allow_infinity=False), max_size=6), st.data()
)
def test_the_name_of_a_key_depends_on_no_value(data: dict[str, Any], draw: st.DataObject) -> None:
    whole = _sent(data)
    gone = draw.draw(st.sets(st.sampled_from(sorted(data)))) if data else set()
    instead = draw.draw(st.sampled_from([math.nan, math.inf, "text"]))
    part = _sent({key: instead if key in gone else value for key, value in data.items()})
    names = [name for name in whole if name in part]
    assert list(part) == names, "what is left keeps its names"
    assert {name: whole[name] for name in names} == part


def _sent(data: dict[str, Any]) -> dict[str, Any]:
    data = {key: value for key, value in data.items() if key not in RESERVED_KEYS}
    elements = _elements(_dialect().encode([item(DataMessageBody(data=data))]))
    value: dict[str, Any] = elements[0]["value"] if elements else {}
    return value


def test_what_is_missing_gives_its_name_to_nothing_else() -> None:
    assert _value({"CH4 (wet)": math.nan, "CH4 wet": 2.1}) == {"ch4_wet_2": 2.1}


def test_what_is_left_out_is_remarked_by_key_and_reason() -> None:
    data: dict[str, Any] = {"a": math.nan, "b": "text", "!": 1.0, "c": 1.0, "d": 10**400}
    remarks = _dialect().encode([item(DataMessageBody(data=data)), item(DataMessageBody(data=data), 2)]).remarks
    assert sorted(remarks) == [
        Remark("!", "left out: its key has no letter or digit"),
        Remark("a", "left out: it is not a finite number"),
        Remark("b", "left out: it is a text, and Tenta takes numbers only"),
        Remark("d", "left out: it is not a finite number"),
    ]


@given(st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.integers(-(2**53), 2**53)))
def test_numbers_are_short_and_nothing_is_lost(number: float) -> None:
    [publication] = _dialect().encode([item(DataMessageBody(data={"a": number}))]).publications
    text = publication.payload.decode().removeprefix('[{"value":{"a":').partition("}")[0]
    read = json.loads(text, parse_int=float)  # as the server does
    assert (read, math.copysign(1, read)) == (number, math.copysign(1, number))
    assert len(text) <= len(json.dumps(number))


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (21.0, "21"),
        (23.1, "23.1"),
        (0.00012, "12e-5"),
        (1.5e-7, "15e-8"),
        (1e16, "1e16"),
        (-5000.0, "-5e3"),
        (120_000, "12e4"),
        (0.0, "0.0"),
        (100, "100"),
        (-1.2345678901234e-5, "-1.2345678901234e-5"),
    ],
)
def test_the_shortest_form_of_a_number(number: float, text: str) -> None:
    [publication] = _dialect().encode([item(DataMessageBody(data={"a": number}))]).publications
    assert publication.payload.startswith(b'[{"value":{"a":%s},' % text.encode())


@pytest.mark.parametrize(
    ("level", "severity"),
    [
        ("DEBUG", "info"),
        ("INFO", "info"),
        ("WARNING", "warning"),
        ("ERROR", "error"),
        ("EXCEPTION", "error"),
    ],
)
def test_a_log_line(level: Any, severity: str) -> None:
    body = LogMessageBody(level=level, subject="subject", body="body")
    expected = {"message": "subject\nbody", "severity": severity, "timestamp": 1.7e9, "revision": 2}
    assert _only(body) == expected


def test_a_long_log_line_is_cut_and_says_so() -> None:
    message = _only(LogMessageBody(level="INFO", subject="s", body="b" * 20_000))["message"]
    assert len(message) == 16_384
    assert message.startswith("s\nbbb")
    assert message.endswith("b\n[cut]")


def test_a_log_line_that_just_fits_is_whole() -> None:
    body = "b" * (16_384 - len("s\n"))
    assert _only(LogMessageBody(level="INFO", subject="s", body=body))["message"] == f"s\n{body}"


def test_a_log_line_travels_as_utf_8() -> None:
    log = LogMessageBody(level="INFO", subject="s", body="\N{SNOWMAN}" * 15_000)
    [publication] = _dialect().encode([item(log)]).publications
    assert len(publication.payload) < 46_000
    assert _only(log)["message"] == "s\n" + "\N{SNOWMAN}" * 15_000


@pytest.mark.parametrize("character", ["\N{PILE OF POO}", "\x01", '"', "\N{SNOWMAN}"])
def test_a_log_line_is_in_a_packet_that_brokers_take(character: str) -> None:
    log = LogMessageBody(level="INFO", subject="s", body=character * 16_384)
    [publication] = _dialect().encode([item(log)]).publications
    assert len(publication.payload) <= LARGEST_BATCH
    message = _only(log)["message"]
    assert message.endswith(f"{character}\n[cut]")
    assert len(message) == LARGEST_LOG or len(publication.payload) > LARGEST_BATCH - 20


def test_a_log_line_has_no_nul() -> None:
    assert _only(LogMessageBody(level="INFO", subject="a\0b", body=""))["message"] == "a\N{REPLACEMENT CHARACTER}b"


@pytest.mark.parametrize(("revision", "sent"), [(-1, None), (0, 0), (LARGEST_REVISION, LARGEST_REVISION)])
def test_the_revision_of_samples_and_logs(revision: int, sent: int | None) -> None:
    assert _only(DataMessageBody(data={"a": 1}), revision)["revision"] == sent
    assert _only(LogMessageBody(level="INFO", subject="s", body=""), revision)["revision"] == sent


def test_a_revision_that_tenta_cannot_store_is_left_out() -> None:
    assert _only(DataMessageBody(data={"a": 1}), LARGEST_REVISION + 1)["revision"] is None


@pytest.mark.parametrize(("status", "success"), [("accepted", True), ("rejected", False)])
def test_a_decision_on_a_config(status: Any, success: bool) -> None:
    body = ConfigMessageBody(status=status, config=_foreign_config(0))
    assert _only(body) == {"success": success, "timestamp": 1.7e9, "revision": 0}


@pytest.mark.parametrize(
    ("status", "revision"),
    [("received", 3), ("startup", 3), ("accepted", -1), ("rejected", LARGEST_REVISION + 1)],
)
def test_config_messages_that_tenta_has_no_word_for(status: Any, revision: int) -> None:
    encoded = _dialect().encode([item(ConfigMessageBody(status=status, config=_foreign_config(revision)))])
    assert encoded.publications == []
    assert list(encoded.unsendable) == [1]


def test_it_subscribes_to_its_own_configs() -> None:
    assert _dialect().subscriptions == (TOPIC,)


@pytest.mark.parametrize("name", ["#", "+", "a/+/b", "a\0b"])
def test_a_name_that_would_match_other_topics_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"general\.system_identifier"):
        _dialect(sensor=name)


def test_an_offer_becomes_a_config_with_its_revision_in_it() -> None:
    config = _dialect().decode(TOPIC, _offer(CONFIGURATION))
    assert isinstance(config, ForeignConfig)
    assert config.general.config_revision == 3
    assert config.model_dump(mode="json") == {
        **CONFIGURATION,
        "general": {"software_version": "1.2.3", "system_identifier": "x", "config_revision": 3},
    }


def test_the_revision_beside_the_config_is_the_one_that_counts() -> None:
    general = {"software_version": "1.2.3", "config_revision": 99}
    config = _dialect().decode(TOPIC, _offer({"general": general}))
    assert isinstance(config, ForeignConfig)
    assert config.general.config_revision == 3


def test_an_offer_that_was_taken_back_offers_nothing() -> None:
    assert _dialect().decode(TOPIC, b"") is None


HOSTILE = {
    "an array": b"[]",
    "an array around it": b"[" + _offer(CONFIGURATION) + b"]",
    "a string": b'"configuration"',
    "null": b"null",
    "NaN": b"NaN",
    "a space": b" ",
    "half of it": _offer(CONFIGURATION)[:-1],
    "more behind it": _offer(CONFIGURATION) + b"x",
    "no UTF-8": _offer(CONFIGURATION).replace(b"other", b"oth\xff\xfe"),
    "a lone surrogate": _offer(CONFIGURATION).replace(b"other", b"\\ud800"),
    "UTF-16": _offer(CONFIGURATION).decode().encode("utf-16"),
    "deep nesting": b"[" * 100_000,
    "deep nesting, closed": _offer(0).replace(b"0", b"[" * 10_000 + b"]" * 10_000),
    "deep objects": _offer(0).replace(b"0", b'{"a":' * 10_000 + b"1" + b"}" * 10_000),
    "a number of many digits": _offer(CONFIGURATION, 7).replace(b"7", b"9" * 1_000_000),
    "a number of many digits inside": _offer({**CONFIGURATION, "n": 77}).replace(b"77", b"9" * 1_000_000),
    "an infinite revision": _offer(CONFIGURATION, 7).replace(b"7", b"1e999"),
    "a revision that is NaN": _offer(CONFIGURATION, math.nan),
    "no revision": json.dumps({"configuration": CONFIGURATION}).encode(),
    "a negative revision": _offer(CONFIGURATION, -1),
    "a revision that is too large": _offer(CONFIGURATION, LARGEST_REVISION + 1),
    "a revision in a string": _offer(CONFIGURATION, "3"),
    "a fractional revision": _offer(CONFIGURATION, 3.5),
    "a revision that is true": _offer(CONFIGURATION, True),
    "no configuration": b'{"revision":3}',
    "a configuration in a string": _offer(json.dumps(CONFIGURATION)),
    "an array as configuration": _offer([CONFIGURATION]),
    "null as configuration": _offer(None),
    "no general": _offer({"other": 1}),
    "an array as general": _offer({"general": []}),
    "no version": _offer({"general": {}}),
    "a version that is a path": _offer({"general": {"software_version": "../../etc"}}),
    "a version with a line break": _offer({"general": {"software_version": "1.2.3\n"}}),
    "a version that is an object": _offer({"general": {"software_version": {}}}),
    "a version in an object": _offer({"general": {"software_version": {"root": "1.2.3"}}}),
    "a version that is a number": _offer({"general": {"software_version": 1.2}}),
}


@pytest.mark.parametrize("payload", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_is_no_offer_is_refused_with_a_reason(payload: bytes) -> None:
    with pytest.raises(ValueError, match=r"\S") as refusal:
        _dialect().decode(TOPIC, payload)
    assert type(refusal.value) is OfferError  # subclasses of libraries say too much: the values found there
    assert len(str(refusal.value)) < 1000


def test_an_invalid_offer_can_be_answered_if_its_revision_can_be_read() -> None:
    revisions = {}
    for name in ("no version", "no general", "a negative revision", "no revision", "half of it"):
        with pytest.raises(OfferError) as refusal:
            _dialect().decode(TOPIC, HOSTILE[name])
        revisions[name] = refusal.value.revision
    unread = {"a negative revision": None, "no revision": None, "half of it": None}
    assert revisions == {"no version": 3, "no general": 3, **unread}


def test_a_refusal_repeats_no_secret() -> None:
    with pytest.raises(ValueError, match="software_version") as refusal:
        _dialect().decode(TOPIC, _offer({"general": {"software_version": "hunter2"}, "password": "hunter2"}))
    assert "hunter2" not in str(refusal.value)


@given(st.one_of(st.binary(), arbitrary.JSON.map(json.dumps).map(str.encode), arbitrary.JSON.map(_offer)))
def test_nothing_else_comes_out_of_any_payload(payload: bytes) -> None:
    try:
        offer = _dialect().decode(TOPIC, payload)
    except ValueError:
        return
    assert offer is None or isinstance(offer, ForeignConfig)


@given(arbitrary.JSON, st.integers(0, LARGEST_REVISION))
def test_any_config_comes_through_unchanged(anything: Any, revision: int) -> None:
    configuration = {"general": {"software_version": "1.0.0"}, "x": anything}
    offer = _dialect().decode(TOPIC, _offer(configuration, revision))
    assert isinstance(offer, ForeignConfig)
    assert offer.general.config_revision == revision
    assert json.dumps(offer.model_dump(mode="json")["x"]) == json.dumps(anything)


def test_data_of_an_unsynchronised_clock_are_marked() -> None:
    body = DataMessageBody(data={"a": 1, "text": "b"}, clock_synchronised=False)
    assert _only(body)["value"] == {"a": 1, "clock_synchronised": 0}
    nothing = DataMessageBody(data={"text": "b"}, clock_synchronised=False)
    assert _dialect().encode([item(nothing)]).unsendable == {1: "no finite number in it"}


def test_a_sample_that_tells_of_the_clock_itself_gets_no_second_mark() -> None:
    """The system checks do."""
    body = DataMessageBody(data={"clock_synchronised": 0, "a": 1}, clock_synchronised=False)
    assert _only(body)["value"] == {"clock_synchronised": 0, "a": 1}
    spelt = DataMessageBody(data={"Clock synchronised": 7}, clock_synchronised=False)
    assert _only(spelt)["value"] == {"clock_synchronised": 7}


def test_a_log_of_an_unsynchronised_clock_is_marked() -> None:
    body = LogMessageBody(level="INFO", subject="hello", body="x" * LARGEST_LOG, clock_synchronised=False)
    message = _only(body)["message"]
    assert message.startswith("[clock not synchronised] hello\nx") and message.endswith("\n[cut]")
