"""Thousands of mutated offers, calls and answers over the broker: the backend stays, as it was, and as small.

`IVY_HOSTILE_INPUTS=10000` sends more of them to each platform than the default, which takes half a minute; and
`IVY_HOSTILE_CALLS=130000` calls each method ten thousand times.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st
from testbed.broker import Broker
from testbed.waiting import wait_for

from ivy.types import calls
from tests.support.backend_node import SENSOR, MakeNode, Node, data_message
from tests.support.platforms import ThingsBoardPlatform
from tests.support.recorder import Recorder

_INPUTS = int(os.environ.get("IVY_HOSTILE_INPUTS", "3000"))
_WARM_UP = 1_000
_MOST_GROWTH = 2_000_000  # bytes
_CALLS = int(os.environ.get("IVY_HOSTILE_CALLS", "20000"))
_CALLS_AT_ONCE = 10_000
_SECONDS_FOR_CALLS = 400
_MOST_GROWTH_IN_A_FLOOD = 100_000_000  # of MemoryMax=256M
_LAST = 2_147_483_000

_CONFIG = {
    "general": {"config_revision": 3, "software_version": "1.0.1", "system_identifier": SENSOR},
    "x": [1.5, {}],
}
_DEVICE = "v1/devices/me"
_TENTA = [(f"configurations/{SENSOR}", {"revision": 3, "configuration": _CONFIG})]
_THINGSBOARD: list[tuple[str, Any]] = [
    (f"{_DEVICE}/attributes", {"configuration": _CONFIG}),
    (f"{_DEVICE}/attributes", {"deleted": ["configuration", "sw_title", "sw_version"]}),
    (f"{_DEVICE}/attributes", {"sw_title": "ivy", "sw_version": "9.1.0"}),
    (
        f"{_DEVICE}/attributes/response/1",
        {"shared": {"configuration": _CONFIG, "fw_title": "ivy", "fw_version": "1"}},
    ),
    (f"{_DEVICE}/rpc/request/1", {"method": "restart", "params": {"name": "system-checks"}}),
    (f"{_DEVICE}/rpc/request/2", {"method": "status", "params": None}),
    (f"{_DEVICE}/rpc/request/3", {"method": "logs", "params": {"name": "system-checks", "lines": 200}}),
    (f"{_DEVICE}/rpc/request/4", {"method": "resend", "params": {"since": "2026-11-20", "until": 1_700_000_000}}),
    (f"{_DEVICE}/rpc/response/1", {"maxInflightMessages": 100, "rateLimits": {"messages": "20000:1,600000:60"}}),
]
_TOKENS = [
    b"null",
    b"NaN",
    b"1e999",
    b"-1",
    b"9" * 5000,  # Python makes no number of more than 4300 digits
    b"-" + b"9" * 6000,
    b"0." + b"1" * 6000,
    b"[" * 300,
    b'"\\ud800"',
    b"\xff",
    b"\0",
    b"{}",
    b'"',
    b"true",
]
_Edit = tuple[float, int, bytes]
_EDITS = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 12), st.one_of(st.sampled_from(_TOKENS), st.binary(max_size=4))),
    max_size=4,
)


def _mutated(payload: bytes, edits: list[_Edit]) -> bytes:
    """The payload with some bytes at certain places, in parts of its length, replaced by others."""
    for place, length, replacement in edits:
        position = round(place * len(payload))
        payload = payload[:position] + replacement + payload[position + length :]
    return payload


def _bombard(forms: list[tuple[str, Any]], send: Callable[[str, bytes], None], count: int, seed: int) -> None:
    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(st.sampled_from(forms), _EDITS)
    def bombard(form: tuple[str, Any], edits: list[_Edit]) -> None:
        send(form[0], _mutated(json.dumps(form[1]).encode(), edits))

    bombard()


def _resident_bytes(pid: int) -> int:
    return int(Path("/proc", str(pid), "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _endures(node: Node, forms: list[tuple[str, Any]], send: Callable[[str, bytes], None]) -> None:
    process = node.start()
    node.wait_until_connected()
    since = node.link["since"]
    _bombard(forms, send, _WARM_UP, seed=1)
    _wait_for_the_last(node, forms, send, _LAST)
    before = _resident_bytes(process.pid)
    _bombard(forms, send, _INPUTS, seed=2)
    _wait_for_the_last(node, forms, send, _LAST + 1)
    node.add(data_message(number=1))
    node.wait_until_empty()
    assert process.poll() is None
    assert node.link["since"] == since
    assert _resident_bytes(process.pid) - before < _MOST_GROWTH
    assert "Traceback" not in node.log
    _check_pending(node)


def _wait_for_the_last(
    node: Node, forms: list[tuple[str, Any]], send: Callable[[str, bytes], None], revision: int
) -> None:
    """Wait until an offer was looked at that was sent after all others, whatever was decided about it."""
    topic, form = forms[0]
    text = json.dumps(form).replace('"revision": 3', f'"revision": {revision}')
    send(topic, text.replace('"config_revision": 3', f'"config_revision": {revision}').encode())
    wait_for(lambda: f"config offer of revision {revision}" in node.log, 60, "all inputs to be dealt with")


def _check_pending(node: Node) -> None:
    pending = node.pending()
    assert 0 < len(pending) <= 16
    for config in pending:
        general = config["general"]
        assert type(general["config_revision"]) is int
        assert all(part.isdecimal() for part in general["software_version"].split("-")[0].split("."))
    assert len({json.dumps(config) for config in pending}) == len(pending), "each is there once"
    assert [path.name for path in node.data.glob("backend/state.json*")] == ["state.json"]
    flags = {path.name for path in (node.data / "run").glob("restart-*")}
    assert flags <= {"restart-system-checks"}


def test_tenta(make_node: MakeNode, broker: Broker, recorder: Recorder) -> None:
    _endures(make_node(broker.port), _TENTA, recorder.publish_later)


def test_thingsboard(make_node: MakeNode) -> None:
    platform = ThingsBoardPlatform()
    try:
        _endures(make_node(platform.port, provider="thingsboard"), _THINGSBOARD, platform.server.send)
        platform.check()
    finally:
        platform.close()


_METHODS = [*(method for method in calls.METHODS if method != "status"), "exec", ""]
_PARAMS: list[Any] = [
    *({"name": "x"}, {"name": "system-checks", "lines": 200}, {"lines": "9" * 5000}, {"name": "../x" * 500}),
    *({"since": "-2h"}, {"since": 1e308, "until": []}, {"x" * 5000: {}}, "system-checks", None, {}, [[]] * 500),
]


def test_thousands_of_calls_of_each_method_without_a_pause(make_node: MakeNode) -> None:
    """Some thousand a second: they are answered or not, and samples go on. Root sees one of each method."""
    platform = ThingsBoardPlatform()
    try:
        node = make_node(platform.port, provider="thingsboard")
        node.fake("systemctl", "echo ActiveState=active")
        process = node.start()
        node.wait_until_connected()
        before, since = _resident_bytes(process.pid), node.link["since"]
        for number in range(_CALLS):
            method = "status" if number % 100 == 0 else _METHODS[number % len(_METHODS)]
            call = {"method": method, "params": _PARAMS[number // len(_METHODS) % len(_PARAMS)]}
            platform.server.send(f"{_DEVICE}/rpc/request/{number}", json.dumps(call).encode())
            if number % 5_000 == 0:
                node.add(data_message(number=number))
            if number % _CALLS_AT_ONCE == _CALLS_AT_ONCE - 1:
                _wait_for_an_answer(platform, _LAST + number)
                print(f"{number + 1} calls: {_resident_bytes(process.pid) - before} bytes more")
        node.wait_until_empty(_SECONDS_FOR_CALLS)
        assert process.poll() is None
        assert node.link["since"] == since
        assert _resident_bytes(process.pid) - before < _MOST_GROWTH_IN_A_FLOOD
        assert "Traceback" not in node.log
        flags = {f"call-{method}" for method in calls.BY_ROOT}
        found = {path.name for path in node.data.glob("run*/*") if path.name.startswith(("restart-", "call-"))}
        assert found - {"restart-system-checks"} == flags
    finally:
        platform.close()


def _wait_for_an_answer(platform: ThingsBoardPlatform, number: int) -> None:
    """Behind too many calls the answer to the node's own ping would come too late, and the connection end."""
    platform.server.send(f"{_DEVICE}/rpc/request/{number}", b'{"method":"ping"}')
    wait_for(lambda: number in platform.server.answers, _SECONDS_FOR_CALLS, "the answer to the last call")


@pytest.mark.parametrize("edits", [[(0.0, 0, b"x")], [(0.5, 3, b"")], [(1.0, 0, b"yz")]])
def test_mutations_change_what_they_should(edits: list[_Edit]) -> None:
    assert _mutated(b"abcdef", edits) in (b"xabcdef", b"abc", b"abcdefyz")
