"""The module `ivy.fleet.soak` for Ansible, without Ansible: what a canary must not do while it is watched."""

import types
from typing import Any

import pytest

from tests.support.ansible_plugin import load

NODE = "ansible_collections.ivy.fleet.plugins.module_utils.node"


@pytest.fixture
def soak(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """The module."""
    parents = [".".join(NODE.split(".")[:depth]) for depth in range(1, 6)]
    given: dict[str, dict[str, Any]] = {name: {} for name in ["ansible", "ansible.module_utils", *parents]}
    given["ansible.module_utils.basic"] = {"AnsibleModule": None}
    given[NODE] = {"run_ivy": None}
    return load(monkeypatch, "modules/soak.py", given)


def unit(name: str = "co2", **more: Any) -> dict[str, Any]:
    common = {"restarts": 0, "invocation": "a", "state": "active (running)", "status": "", "busy_seconds": None}
    return {"name": f"ivy-{name}.service", "last_sample_seconds": None, **common, **more}


def status(*units: dict[str, Any], problems: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"units": list(units), "problems": list(problems)}


def watch(soak: types.ModuleType, *tolerated: str) -> Any:
    return soak.Watch(60, set(tolerated))


@pytest.mark.parametrize("change", [{"restarts": 1}, {"invocation": "b"}])
def test_a_service_that_starts_again(soak: types.ModuleType, change: dict[str, Any]) -> None:
    watched, pass_ = watch(soak), unit("updater")
    assert watched.look(status(unit(), pass_), 0.0) is None
    assert watched.look(status(unit(), {**pass_, **change}), 2.0) is None, "a pass of the updater is none"
    assert "ivy-co2.service has started again" in watched.look(status(unit(**change), pass_), 4.0)


def test_one_that_is_still_on_its_way_has_not_started_again(soak: types.ModuleType) -> None:
    watched, starting = watch(soak), unit(invocation="", state="inactive (dead)")
    assert watched.look(status(starting), 0.0) is None
    assert watched.look(status(unit(invocation="a", state="activating (start)")), 2.0) is None
    assert watched.look(status(unit(invocation="b")), 4.0) is None
    assert watched.look(status(unit(invocation="b", state="activating (auto-restart)")), 6.0) is None
    assert "started again: active (running)" in watched.look(status(unit(invocation="c")), 8.0)


def test_one_that_had_failed_before_may_go_on_doing_so(soak: types.ModuleType) -> None:
    watched, problem = watch(soak, "ivy-co2.service"), ("ivy-co2.service: activating (auto-restart)",)
    for second in range(0, 300, 2):
        assert (
            watched.look(status(unit(restarts=second), problems=problem), float(second)) is None and watched.is_well
        )
    other = (*problem, "disk: full")
    assert watched.look(status(problems=other), 300.0) is None and not watched.is_well
    assert watched.look(status(problems=other), 361.0) == "disk: full"


def test_a_procedure_that_falls_silent(soak: types.ModuleType) -> None:
    watched = watch(soak)
    for second in range(0, 20, 2):
        assert watched.look(status(unit(last_sample_seconds=float(second % 4))), float(second)) is None
    assert watched.look(status(unit(last_sample_seconds=32.0)), 50.0) is None
    assert "sent nothing for 33 s" in watched.look(status(unit(last_sample_seconds=33.0)), 51.0)


def test_one_that_samples_each_hour_and_one_in_a_calibration_are_waited_for(soak: types.ModuleType) -> None:
    watched = watch(soak)
    for second in range(0, 300, 2):
        assert watched.look(status(unit(last_sample_seconds=3000.0 + second)), float(second)) is None
    busy = watch(soak)
    for second in range(0, 300, 2):
        age = float(second % 4) if second < 20 else float(second)
        calibrates = 100.0 if second >= 20 else None
        assert busy.look(status(unit(last_sample_seconds=age, busy_seconds=calibrates)), float(second)) is None


def test_a_link_that_is_away_for_a_moment(soak: types.ModuleType) -> None:
    watched, away = watch(soak), ("backend: not connected: timed out",)
    assert watched.look(status(problems=away), 0.0) is None and not watched.is_well
    assert watched.look(status(), 50.0) is None and watched.is_well
    assert watched.look(status(problems=away), 52.0) is None
    assert watched.look(status(problems=away), 113.0) == away[0]


class _Ended(Exception):
    """What the module said at its end."""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, soak: types.ModuleType) -> list[float]:
    """Passes only while the module sleeps."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(soak, "time", types.SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
    return now


def ended(soak: types.ModuleType, monkeypatch: pytest.MonkeyPatch, seconds: int, say: Any) -> dict[str, Any]:
    """What the module says, on a node whose status is said by `say`."""

    def end(**said: Any) -> None:
        raise _Ended(said)

    params = {"seconds": seconds, "patience": 60, "tolerated": []}
    module = types.SimpleNamespace(params=params, check_mode=False, exit_json=end, fail_json=end)
    monkeypatch.setattr(soak, "AnsibleModule", lambda **_: module)
    monkeypatch.setattr(soak, "status", lambda _: say())
    with pytest.raises(_Ended) as found:
        soak.main()
    said: dict[str, Any] = found.value.args[0]
    return said


def test_a_release_that_fails_after_its_probation(
    soak: types.ModuleType, monkeypatch: pytest.MonkeyPatch, clock: list[float]
) -> None:
    said = ended(soak, monkeypatch, 300, lambda: status(unit(restarts=int(clock[0] >= 16))))
    assert said["msg"].startswith("after 16 s: ivy-co2.service has started again")


def test_it_takes_as_long_as_it_was_told_and_until_the_node_is_well(
    soak: types.ModuleType, monkeypatch: pytest.MonkeyPatch, clock: list[float]
) -> None:
    assert "msg" not in ended(soak, monkeypatch, 30, lambda: status(unit())) and clock == [30.0]
    away = ("backend: not connected",)
    late = ended(soak, monkeypatch, 0, lambda: status(problems=away if clock[0] < 40 else ()))
    assert late == {"changed": False, "not_well": []} and clock == [40.0]
    assert ended(soak, monkeypatch, 0, lambda: status(problems=away))["not_well"] == ["backend"]


def test_it_begins_anew_after_a_boot(
    soak: types.ModuleType, monkeypatch: pytest.MonkeyPatch, clock: list[float]
) -> None:
    monkeypatch.setattr(soak, "boot_id", lambda: "later" if clock[0] >= 20 else "first")
    said = ended(soak, monkeypatch, 30, lambda: status(unit(invocation=soak.boot_id())))
    assert "msg" not in said and clock == [50.0]
