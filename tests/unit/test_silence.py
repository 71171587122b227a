"""When procedures sampled last, who is silent, and what the operator is told of it."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ivy import constants, overview
from ivy.procedures._silence import TOLD, SilenceWatch
from ivy.types.config import Config
from ivy.utils.host import hold
from ivy.utils.logger import Logger
from ivy.utils.messaging_agent import MessagingAgent
from ivy.utils.storage import last_sample
from tests.support.helpers import BACKEND, Node, make_config
from tests.unit.archives import Ivy
from tests.unit.procedures import log_lines

NAME = "system-checks"  # which every fork has
LIMITED: dict[str, Any] = {"system_checks": {"max_silent_seconds": 600}}
BOOTED = 1_000_000.0
"""Seconds since the boot, at which all of this happens."""


class Clock:
    """Counts from the boot."""

    def __init__(self) -> None:
        self.now = BOOTED

    def time(self, _clock: int) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "clock_gettime", clock.time)
    return clock


def is_to_sample(clock: Clock) -> None:
    """What ivy-owners.service does: a sample is to be expected from now on."""
    note = Path(f"{last_sample.LAST_SAMPLE}{NAME}")
    note.parent.mkdir(parents=True, exist_ok=True)
    if not note.exists():
        note.touch()
    os.utime(note, (clock.now, note.stat().st_mtime))


def sample(clock: Clock, *pauses: float) -> last_sample.Sampling:
    """Samples after some pauses."""
    for pause in pauses:
        clock.now += pause
        last_sample.note(NAME)
    return last_sample.look(NAME)


def test_what_nobody_expects_is_not_waited_for(clock: Clock) -> None:
    assert last_sample.look(NAME) == last_sample.Sampling(None, None, None)
    sample(clock, 0)
    assert last_sample.look(NAME) == last_sample.Sampling(age=0, waited=0, rest=None)


def test_the_first_sample_is_waited_for_since_the_service_was_to_start(clock: Clock) -> None:
    is_to_sample(clock)
    clock.now += 50
    assert last_sample.look(NAME) == last_sample.Sampling(age=None, waited=50, rest=None)
    assert sample(clock, 10) == last_sample.Sampling(age=0, waited=0, rest=60), "it may take that long to warm up"


def test_a_service_that_was_stopped_is_waited_for_since_it_was_to_start_again(clock: Clock) -> None:
    sample(clock, 0, 10)
    clock.now += 7200
    is_to_sample(clock)
    clock.now += 5
    assert last_sample.look(NAME) == last_sample.Sampling(age=7205, waited=5, rest=None)
    assert sample(clock, 5).rest == 10


def test_the_rhythm_is_the_longest_rest_of_late(clock: Clock) -> None:
    assert sample(clock, 0, 10, 10).rest == pytest.approx(10)
    assert sample(clock, 600, *[0.1] * 100).rest == pytest.approx(600, rel=0.01), "it samples in bursts"
    assert sample(clock, *[10] * 600).rest == pytest.approx(10), "what was once is forgotten"


def test_a_clock_that_is_set_makes_nobody_silent(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    sample(clock, 0, 10)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert last_sample.look(NAME).waited == 0
    monkeypatch.setattr(time, "time", lambda: 1e12)
    assert last_sample.look(NAME).waited == 0


Watch = Callable[..., SilenceWatch]


@pytest.fixture
def watch(node: Node, make_logger: type[Logger], monkeypatch: pytest.MonkeyPatch) -> Watch:
    """Makes one for a config that says this of the procedures."""
    monkeypatch.setenv("PATH", node.environment["PATH"])
    node.fake("systemctl", {"*": "echo LoadState=loaded"})

    def make(procedures: dict[str, Any] = LIMITED, **how: Any) -> SilenceWatch:
        config: Config = make_config(procedures=procedures, backend=BACKEND)
        return SilenceWatch(config, make_logger(config), **how)

    return make


def look_twice(watch: SilenceWatch) -> None:
    watch.work()
    watch.work()


BEGIN = "test - ERROR - system_checks is silent: it has sent no data for {} s, and procedures.{}"
END = "test - WARNING - system_checks sends data again"


def begin(seconds: int) -> str:
    return BEGIN.format(seconds, "system_checks.max_silent_seconds is 600")


def test_silence_is_told_at_its_beginning_and_end_whoever_watches(
    watch: Watch, agent: MessagingAgent, clock: Clock
) -> None:
    sample(clock, 0)
    clock.now += 599
    look_twice(watch())
    assert log_lines(agent) == []
    clock.now += 2
    look_twice(watch())
    assert log_lines(agent) == [begin(601)]
    clock.now += 601
    look_twice(watch())  # it was restarted
    is_to_sample(clock)  # the silent one was restarted, too
    look_twice(watch())
    assert log_lines(agent) == [begin(601)]
    sample(clock, 1)
    look_twice(watch())
    look_twice(watch())
    assert log_lines(agent) == [begin(601), END]


def test_silence_since_the_boot_is_told(watch: Watch, agent: MessagingAgent, clock: Clock) -> None:
    is_to_sample(clock)
    clock.now += 601
    look_twice(watch())
    assert log_lines(agent) == [begin(0).replace("for 0 s", "since the boot")]


def test_a_service_that_has_just_been_started_again_is_given_until_the_next_look(
    watch: Watch, agent: MessagingAgent, clock: Clock
) -> None:
    sample(clock, 0)
    clock.now += 7200
    some = watch()
    some.work()
    sample(clock, 1)
    some.work()
    assert log_lines(agent) == []


@pytest.mark.parametrize("procedures", [{}, {"system_checks": {}}, {"system_checks": {"max_silent_seconds": None}}])
def test_without_a_limit_nobody_is_silent(
    watch: Watch, agent: MessagingAgent, clock: Clock, procedures: dict[str, Any]
) -> None:
    sample(clock, 0)
    clock.now += 10**6
    look_twice(watch(procedures))
    assert log_lines(agent) == []


def test_a_masked_procedure_is_not_silent(watch: Watch, agent: MessagingAgent, clock: Clock, node: Node) -> None:
    node.fake("systemctl", {"*": "echo LoadState=masked"})
    sample(clock, 0)
    clock.now += 601
    some = watch()
    look_twice(some)
    assert log_lines(agent) == []
    node.fake("systemctl", {"*": "exit 1"})  # nobody knows
    some.work()
    assert log_lines(agent) == [begin(601)]


def test_a_rhythm_that_is_just_the_limit_does_not_fill_the_queue(
    watch: Watch, agent: MessagingAgent, clock: Clock
) -> None:
    some = watch()
    for _ in range(20):
        sample(clock, 1)
        some.work()
        clock.now += 601
        look_twice(some)
    assert log_lines(agent) == [begin(601), END]
    eager = watch(seconds_between_tellings=0)
    look_twice(eager)
    assert log_lines(agent)[2:] == [begin(601)]


@pytest.mark.parametrize("damage", [b"", b"\0\0", b"[1, 2]", b"7", b"[" * 90_000])
def test_what_was_told_is_not_needed(watch: Watch, agent: MessagingAgent, clock: Clock, damage: bytes) -> None:
    Path(TOLD).write_bytes(damage)
    sample(clock, 0)
    clock.now += 601
    look_twice(watch())
    assert log_lines(agent) == [begin(601)]
    assert json.loads(Path(TOLD).read_bytes()) == ["system_checks"]


def test_a_limit_counts_as_soon_as_it_is_in_the_config(
    watch: Watch, agent: MessagingAgent, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a restart, which would cost samples."""
    sample(clock, 0)
    clock.now += 601
    some = watch({})
    look_twice(some)
    monkeypatch.setattr("ivy.types.accepted_config.load", lambda: (make_config(procedures=LIMITED), None))
    look_twice(some)
    assert log_lines(agent) == [begin(601)]


def test_of_what_a_hold_has_stopped_nobody_is_told(
    agent: MessagingAgent, make_logger: type[Logger], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(procedures={NAME.replace("-", "_"): {"max_silent_seconds": 600}}, backend=BACKEND)
    watch = SilenceWatch(config, make_logger(config))
    sample(clock, 0)
    clock.now += 700
    hold.write("paint", 600, stop=True)
    monkeypatch.setattr(hold, "KEPT", "another")
    for _ in range(3):
        watch.work()
    assert log_lines(agent) == []
    Path(hold.FILE).unlink()
    for _ in range(3):
        watch.work()
    assert len(log_lines(agent)) == 1


def test_what_a_hold_has_stopped_is_shown_so(node: Node, ivy_of_node: Ivy, monkeypatch: pytest.MonkeyPatch) -> None:
    node.write_config()
    node.fake(
        "systemctl", {"show*ivy.target": "echo Wants=ivy-tenta.service", "show*": "echo Id=ivy-tenta.service"}
    )
    hold.write("paint", 600, stop=True)
    monkeypatch.setattr(hold, "KEPT", "another")
    found = json.loads(ivy_of_node("status", "--json")[1])
    assert {"name": UNIT, "state": "stopped by the hold", "well": True}.items() <= found["units"][-1].items()
    assert found["hold"]["stop"] is True


RUNNING = "LoadState=loaded ActiveState=active SubState=running NRestarts=0 StatusText=sampling"
UNIT = "ivy-system-checks.service"


def runs(node: Node, properties: str = RUNNING) -> None:
    shown = f"printf '%s\\n' Id={UNIT} {properties}"
    node.fake("systemctl", {"show*ivy.target": f"echo Wants={UNIT}", "show*": shown})


def sampled(seconds_ago: float) -> None:
    """Let it have sampled so long ago; this machine may have booted since."""
    last_sample.note(NAME)
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    os.utime(f"{last_sample.LAST_SAMPLE}{NAME}", (now - seconds_ago, now - seconds_ago))


def test_a_silent_procedure_is_a_problem(node: Node, ivy_of_node: Ivy) -> None:
    node.write_config(procedures={"system_checks": {"max_silent_seconds": 1}})
    runs(node)
    sampled(seconds_ago=2)
    status, output, _ = ivy_of_node("status", "--json")
    [unit] = json.loads(output)["units"]
    assert status == 1 and unit["is_procedure"] and unit["well"]
    assert unit["max_silent_seconds"] == 1 and unit["silent_seconds"] == unit["last_sample_seconds"] >= 2
    [problem] = json.loads(output)["problems"]
    limit = "procedures.system_checks.max_silent_seconds is 1"
    assert problem.startswith(f"{UNIT}: silent: no data for ") and problem.endswith(f" s, and {limit}")
    shown = ivy_of_node("status")[1]
    assert f"PROBLEM:  {problem[:40]}" in shown and "  SILENT, last sample " in shown
    [finding] = [each for each in json.loads(node.ivy("doctor", "--json")[1]) if each["check"] == "samples"]
    assert not finding["ok"] and UNIT in finding["text"] and f"journalctl -u {UNIT}" in finding["remedy"]


@pytest.mark.parametrize(
    ("seconds_ago", "limit", "properties"),
    [
        (2, None, RUNNING),
        (2, 7200, RUNNING),
        (2, 1, "LoadState=masked ActiveState=inactive SubState=dead NRestarts=0"),
    ],
)
def test_what_is_not_silent_is_no_problem(
    node: Node, ivy_of_node: Ivy, seconds_ago: float, limit: int | None, properties: str
) -> None:
    node.write_config(procedures={"system_checks": {"max_silent_seconds": limit}})
    runs(node, properties)
    sampled(seconds_ago)
    found = json.loads(ivy_of_node("status", "--json")[1])
    assert found["problems"] == [] and found["units"][0]["silent_seconds"] is None
    assert found["units"][0]["last_sample_seconds"] >= seconds_ago


def test_a_long_silence_is_not_told_in_seconds(node: Node, ivy_of_node: Ivy) -> None:
    node.write_config(procedures={"system_checks": {"max_silent_seconds": 1}})
    runs(node)
    sampled(seconds_ago=100_000)
    assert f"PROBLEM:  {UNIT}: silent: no data for 28 h, and " in ivy_of_node("status")[1]


def test_a_procedure_that_has_never_sampled_is_seen(node: Node, ivy_of_node: Ivy) -> None:
    node.write_config()
    runs(node)
    assert "  no sample since the boot  sampling" in ivy_of_node("status")[1]


@pytest.mark.parametrize(
    ("systemd", "state", "is_well"),
    [
        ("ActiveState=inactive SubState=dead Result=success", "waits for its timer", True),
        ("ActiveState=active SubState=running Result=success", "active (running)", True),
        ("ActiveState=failed SubState=failed Result=exit-code", "failed (failed)", False),
        ("ActiveState=inactive SubState=dead Result=success LoadState=masked", "masked by the admin", True),
    ],
)
def test_a_procedure_that_a_timer_starts_is_seen(
    node: Node, monkeypatch: pytest.MonkeyPatch, clock: Clock, systemd: str, state: str, is_well: bool
) -> None:
    """The target wants its timer, and not the service."""
    release = node.home / "of-a-timer"
    for directory in ("ivy/procedures", "units"):
        (release / directory).mkdir(parents=True)
    for name in (NAME, "rain"):
        (release / "ivy" / "procedures" / f"{name.replace('-', '_')}.py").touch()
        (release / "units" / f"ivy-{name}.timer").touch()
    monkeypatch.setattr(constants, "PROJECT_DIR", str(release))
    monkeypatch.setenv("PATH", node.environment["PATH"])
    unit = f"Id=ivy-{NAME}.service {systemd}"
    node.fake("systemctl", {"show*ivy.target": f"echo Wants=ivy-{NAME}.timer", "show*": f"printf '%s\\n' {unit}"})
    sample(clock, 0)
    clock.now += 700
    [found] = overview.look_at_units(config=make_config(procedures=LIMITED))[0]
    assert (found.state, found.well, found.is_procedure) == (state, is_well, True)
    assert found.last_sample_seconds == 700
    assert found.silent_seconds == (None if "masked" in state else 700)
    off = {"rain": {"enabled": False}}
    assert "ivy-rain.service" in node.calls()[-1]
    overview.look_at_units(config=make_config(procedures=off))
    assert "ivy-rain.service" not in node.calls()[-1], "it is shown as off"
