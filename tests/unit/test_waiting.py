"""A procedure that is not to be disturbed: how it says so, who waits for it, and for how long."""

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ivy import constants, update_pass
from ivy.types.updates import Offer, Source
from ivy.utils import notify
from ivy.utils.host import busy, commands, units, waiting
from ivy.utils.updater import Updater
from ivy.utils.updates import decisions, probation
from ivy.utils.updates.releases import Releases
from ivy.version import Version
from tests.support.helpers import CONFIG, Node, NotifySocket
from tests.unit.offers import foreign
from tests.unit.procedures import CALENDAR, in_minutes, pipe_of, say_busy

WIND, CO2 = "ivy-wind.service", "ivy-co2.service"
HOUR = 3600.0
NOW = 50_000.0


class Clock:
    """The kernel's clock, which goes on only while somebody waits; and what happens meanwhile."""

    def __init__(self) -> None:
        self.now = NOW
        self.events: list[tuple[float, Callable[[], object]]] = []

    def after(self, seconds: float, event: Callable[[], object]) -> None:
        """Let something happen then."""
        self.events.append((self.now + seconds, event))

    def sleep(self, seconds: float) -> None:
        """Instead of waiting."""
        assert seconds > 0
        self.now += seconds
        assert self.now < NOW + 100 * HOUR, "it waits for ever"
        due = [event for at, event in self.events if at <= self.now]
        self.events = [(at, event) for at, event in self.events if at > self.now]
        for event in due:
            event()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(busy, "now", lambda: clock.now)
    monkeypatch.setattr(busy, "clock_time", in_minutes)
    monkeypatch.setattr(notify, "sleep", clock.sleep)
    Path(constants.UPDATER_RUN_DIR).mkdir(parents=True)
    return clock


@pytest.fixture
def states(node: Node, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The units that systemd knows, and how each is."""
    states = {WIND: "active", CO2: "active"}
    node.fake("systemctl", {})
    monkeypatch.setenv("PATH", node.environment["PATH"])

    def show_each(names: list[str], *_: str, **__: object) -> dict[str, dict[str, str]]:
        return {name: {"Id": name, "ActiveState": states.get(name, "inactive")} for name in names}

    monkeypatch.setattr(units, "show_each", show_each)
    return states


@pytest.fixture
def wind() -> Iterator[Path]:
    """The pipe of the procedure that this process is."""
    path = pipe_of("wind")
    busy.begin("wind")
    yield path
    busy.begin("nobody")


def wait() -> list[str]:
    """Wait for both. Returns what was told."""
    told: list[str] = []
    waiting.wait([WIND, CO2], told.append)
    return told


def test_a_procedure_is_left_alone_until_the_body_ends(wind: Path) -> None:
    assert busy.seconds_left("wind") == 0
    with notify.undisturbed(100):
        assert 0 < busy.seconds_left("wind") <= 100
    assert busy.seconds_left("wind") == 0
    with contextlib.suppress(ZeroDivisionError), notify.undisturbed(100):
        raise ZeroDivisionError
    assert busy.seconds_left("wind") == 0


def test_bodies_within_each_other_count_together(wind: Path) -> None:
    with notify.undisturbed(1000):
        with notify.undisturbed(10):
            assert busy.seconds_left("wind") > 10
        with notify.undisturbed(5000):
            assert busy.seconds_left("wind") > 1000
        assert 10 < busy.seconds_left("wind") <= 1000


def test_nobody_is_left_alone_for_more_than_two_hours(wind: Path) -> None:
    with notify.undisturbed(100 * HOUR):
        assert 1.9 * HOUR < busy.seconds_left("wind") <= 2 * HOUR


def test_without_a_pipe_a_procedure_works_all_the_same() -> None:
    busy.begin("none-such")
    with notify.undisturbed(100):
        assert busy.seconds_left("none-such") == 0


PROCEDURE = """
from ivy import service
from ivy.utils import notify
def run(config, logger):
    with notify.undisturbed(100):
        notify.status("calibrating")
        notify.sleep(1000)
service.run_procedure(run, "wind")
"""


def test_what_was_said_before_an_end_does_not_count_after_it(node: Node, notify_socket: NotifySocket) -> None:
    node.write_config()
    path = pipe_of("wind")
    process = node.start("-c", PROCEDURE)
    notify_socket.until("STATUS=calibrating")
    assert busy.seconds_left("wind") > 0
    process.kill()
    process.communicate(timeout=20)
    assert busy.seconds_left("wind") > 0, "a kill asks nobody"
    process = node.start("-c", PROCEDURE.replace("with notify.undisturbed(100)", "if True"))
    notify_socket.until("STATUS=calibrating")
    assert busy.seconds_left("wind") == 0 and path.is_fifo()


@pytest.mark.parametrize("end", [CALENDAR, 2 * HOUR + 60, -1.0, -HOUR, float(2**40)])
def test_no_other_time_is_believed(end: float) -> None:
    os.utime(pipe_of("wind"), (0, end if end >= CALENDAR else max(0.0, busy.now() + end)))
    assert busy.seconds_left("wind") == 0


def test_whatever_has_the_name_of_a_pipe_is_not_opened(tmp_path: Path) -> None:
    Path(constants.BUSY_DIR).mkdir(parents=True)
    Path(constants.BUSY_DIR, "ivy-wind").symlink_to(tmp_path / "nothing")
    assert busy.seconds_left("wind") == 0


def test_where_nobody_is_busy_nobody_waits(clock: Clock, states: dict[str, str]) -> None:
    pipe_of("wind")
    assert wait() == [] and clock.now == NOW


def test_a_change_waits_until_the_body_ends(clock: Clock, states: dict[str, str]) -> None:
    say_busy("wind", HOUR)
    clock.after(600, lambda: say_busy("wind", 0))
    [told] = wait()
    assert told == "waiting for wind until +60 min, not to be disturbed"
    assert 600 <= clock.now - NOW < 630
    assert waiting.look() is None


def test_a_change_waits_no_longer_than_the_procedure_has_asked_for(clock: Clock, states: dict[str, str]) -> None:
    say_busy("wind", 600)
    wait()
    assert 600 <= clock.now - NOW < 630


@pytest.mark.parametrize("state", ["activating", "failed", "inactive", "deactivating"])
def test_a_procedure_that_does_not_run_is_not_waited_for(clock: Clock, states: dict[str, str], state: str) -> None:
    states[WIND] = state
    say_busy("wind", HOUR)
    assert wait() == [] and clock.now == NOW


def renew(clock: Clock) -> None:
    """Let the two be busy for ever, in turns."""
    name = "wind" if int((clock.now - NOW) / 300) % 2 else "co2"
    say_busy(name, 400)
    clock.after(300, lambda: renew(clock))


def test_procedures_that_are_busy_again_and_again_hold_nobody_up_for_ever(
    clock: Clock, states: dict[str, str]
) -> None:
    renew(clock)
    late = waiting.wait([WIND, CO2], lambda _: None)
    assert set(late) <= {"wind", "co2"} and late
    assert 2 * HOUR <= clock.now - NOW < 2 * HOUR + 30


def test_a_pass_that_was_ended_counts_on(clock: Clock, states: dict[str, str]) -> None:
    renew(clock)

    def end() -> None:
        if clock.now - NOW > HOUR:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        waiting.wait([WIND, CO2], lambda _: None, end)
    clock.sleep(200)
    waiting.wait([WIND, CO2], lambda _: None)
    assert 2 * HOUR <= clock.now - NOW < 2 * HOUR + 30


def test_a_wait_of_long_ago_makes_no_other_shorter(clock: Clock, states: dict[str, str]) -> None:
    say_busy("wind", 2 * HOUR)
    with pytest.raises(KeyboardInterrupt):
        waiting.wait([WIND], lambda _: None, lambda: (_ for _ in ()).throw(KeyboardInterrupt()))
    clock.sleep(3 * HOUR)
    say_busy("wind", HOUR)
    began = clock.now
    assert waiting.wait([WIND], lambda _: None) == []
    assert HOUR <= clock.now - began < HOUR + 30


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"procedures": ["wind"], "began": 0}',
        '{"procedures": ["wind"], "began": "x", "looked": 1}',
        json.dumps({"procedures": ["wind"], "began": NOW + 1, "looked": NOW}),
        json.dumps({"procedures": ["wind"], "began": NOW, "looked": NOW + 1}),
        "x" * 20_000,
    ],
)
def test_a_note_that_is_none_counts_for_nothing(clock: Clock, states: dict[str, str], text: str) -> None:
    waiting.NOTE.write_text(text)
    assert waiting.look() is None
    say_busy("wind", HOUR)
    wait()
    assert HOUR <= clock.now - NOW < HOUR + 30


def test_others_see_who_is_waited_for(clock: Clock, states: dict[str, str]) -> None:
    say_busy("wind", HOUR)
    seen: list[waiting.Wait | None] = []
    waiting.wait([WIND], lambda _: None, lambda: seen.append(waiting.look()))
    first = seen[0]
    assert first is not None and first.procedures == ["wind"]
    assert 2 * HOUR - 30 < first.most_seconds <= 2 * HOUR
    assert waiting.NOTE.parent.is_dir() and not waiting.NOTE.exists()


def test_without_systemd_nobody_is_waited_for_in_silence(
    clock: Clock, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(node.home))
    say_busy("wind", HOUR)
    with pytest.raises(commands.CommandError):
        wait()


class Tried(Exception):
    """The trial begins."""


@pytest.fixture
def active(root_dir: Path, states: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Releases]:
    """A release with two procedures, of which each trial ends as it begins."""
    releases = Releases()
    releases.config_file(Version("1.0.0")).parent.mkdir(parents=True)
    releases.activate(Version("1.0.0"))
    releases.write_config(Version("1.0.0"), json.dumps(CONFIG))
    monkeypatch.setattr(units, "wanted_by_target", lambda **_: [CO2, WIND, "ivy-system-checks.service"])

    def try_it(_: object) -> dict[str, str]:
        raise Tried

    monkeypatch.setattr(probation, "failing", try_it)
    yield releases


def perform(offer: Offer, *, is_urgent: bool = False) -> None:
    """As far as the trial."""
    with pytest.raises(Tried):
        Updater(update_pass.running_config()).perform(offer, is_urgent=is_urgent)


def an_offer(sections: dict[str, Any], source: Source = "backend") -> Offer:
    general = {**CONFIG["general"], "config_revision": 4}
    return Offer(identifier="x", config=foreign(4, **{**CONFIG, **sections, "general": general}), source=source)


CHECKS = {"system_checks": {"seconds_between_checks": 7}}
ALL = {"logging_verbosity": {**CONFIG["logging_verbosity"], "file_archive": "INFO"}}


@pytest.mark.parametrize("source", ["backend", "admin", "rollback"])
def test_an_update_waits_before_it_disturbs(clock: Clock, active: Releases, source: Source) -> None:
    say_busy("co2", 600)
    perform(an_offer(ALL, source))
    assert 600 <= clock.now - NOW < 630


def test_an_update_waits_for_what_a_timer_has_started(
    clock: Clock, active: Releases, states: dict[str, str]
) -> None:
    """The target wants the timer, not the service; a change that concerns all stops it all the same."""
    say_busy("rain", 600)
    perform(an_offer(ALL))
    assert clock.now == NOW
    states["ivy-rain.service"] = "active"
    perform(an_offer(ALL))
    assert 600 <= clock.now - NOW < 630


def test_an_update_that_does_not_concern_whoever_is_busy_waits_for_nobody(clock: Clock, active: Releases) -> None:
    say_busy("co2", HOUR)
    perform(an_offer(CHECKS))
    assert clock.now == NOW


def test_what_is_urgent_waits_for_nobody(clock: Clock, active: Releases) -> None:
    say_busy("co2", HOUR)
    perform(an_offer(ALL, "admin"), is_urgent=True)
    assert clock.now == NOW


def test_a_newer_offer_replaces_one_that_waits(
    clock: Clock, active: Releases, monkeypatch: pytest.MonkeyPatch
) -> None:
    say_busy("co2", HOUR)
    newer = Offer.of_backend(foreign(5))
    monkeypatch.setattr(decisions, "undecided", lambda _active: [newer] if clock.now > NOW + 300 else [])
    failure = Updater(update_pass.running_config()).perform(an_offer(ALL))
    assert failure == "superseded by revision 5, while it waited for a procedure"
    assert clock.now <= NOW + 330


def test_the_admin_is_told_how_not_to_wait(
    clock: Clock, active: Releases, capsys: pytest.CaptureFixture[str]
) -> None:
    say_busy("co2", 600)
    perform(an_offer(ALL, "admin"))
    assert "Waiting for co2 until +10 min, not to be disturbed; --now does not wait" in capsys.readouterr().out


def test_the_operator_is_told_once_what_an_offer_waits_for(
    clock: Clock, active: Releases, capsys: pytest.CaptureFixture[str]
) -> None:
    renew(clock)
    perform(an_offer(ALL))
    out = capsys.readouterr().out
    assert out.count(" is waiting for ") == 2 and out.count("wind until ") == 1, "once for each"
    assert "Config revision 4 for version 1.0.0 is waiting for co2" in out
    assert "it has been two hours" in out


def test_people_are_told_a_time_with_its_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    try:
        monkeypatch.setattr(time, "time", lambda: 1_792_889_940.0)  # a minute before the summer time's end
        assert busy.words({"co2": 30.0, "wind": 120.0}) == "co2 until 00:59 UTC, wind until 01:01 UTC"
    finally:
        monkeypatch.undo()
        time.tzset()


# What looks from shells must see the same.


def seen_by_shell(node: Node, *names: str) -> list[str]:
    """What units/ivy-busy prints, all units being active."""
    environment = {**os.environ, "PATH": node.environment["PATH"], "IVY_BUSY_DIR": constants.BUSY_DIR}
    script = Path(constants.PROJECT_DIR, "units", "ivy-busy")
    done = subprocess.run(["/bin/sh", str(script), *names], env=environment, capture_output=True, text=True)
    assert done.stderr == "" and done.returncode == (0 if done.stdout else 1)
    return done.stdout.split()


def test_shells_see_the_same(node: Node) -> None:
    node.fake("systemctl", {"is-active*ivy-asleep.service": "exit 3", "*": ""})
    assert seen_by_shell(node) == []
    for name, seconds in (("wind", 600), ("co2", -600), ("rain", 2 * HOUR + 60), ("asleep", 600), ("heat-box", 60)):
        say_busy(name, seconds)
    pipe_of("new")
    assert seen_by_shell(node) == ["ivy-heat-box", "ivy-wind"]
    assert seen_by_shell(node, "ivy-wind", "ivy-co2") == ["ivy-wind"]
    assert seen_by_shell(node, "ivy-rain") == seen_by_shell(node, "ivy-none") == []
