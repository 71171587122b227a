"""`ivy hold`: how long it lasts, what is left alone meanwhile, and what happens afterwards."""

import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from ivy import constants, update_pass
from ivy.backend import flags
from ivy.utils import notify
from ivy.utils.host import busy, clock, hold, units
from ivy.utils.state_interface import BACKEND_STATE
from ivy.utils.updates import activation, history, holding
from ivy.utils.updates.releases import Releases
from ivy.version import Version
from tests.support.helpers import CONFIG, Node
from tests.unit.archives import Ivy
from tests.unit.offers import foreign

VERSION = Version("1.0.0")
HOUR, DAY = 3600.0, 86_400.0
ROOT = 0


class Time:
    """The kernel's clock and that of the calendar, which go on only as somebody waits."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.boot = "first"
        self.now, self.calendar = 50_000.0, 1_700_000_000.0
        self.is_synchronised: bool | None = True
        monkeypatch.setattr(busy, "now", lambda: self.now)
        monkeypatch.setattr(time, "time", lambda: self.calendar)
        monkeypatch.setattr(clock, "boot_id", lambda: self.boot)
        monkeypatch.setattr(clock, "is_synchronised", lambda: self.is_synchronised)
        monkeypatch.setattr(notify, "sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        """Let time go on."""
        assert seconds > 0
        self.now += seconds
        self.calendar += seconds
        assert self.now < 50_000 + 100 * DAY, "it waits for ever"

    def reboot(self, calendar: float, *, is_synchronised: bool | None) -> None:
        """Boot, by which the clock comes to say this."""
        self.boot += "+"
        self.now, self.calendar, self.is_synchronised = 10.0, calendar, is_synchronised


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Time:
    return Time(monkeypatch)


@pytest.fixture(autouse=True)
def release(root_dir: Path, node: Node, monkeypatch: pytest.MonkeyPatch) -> Releases:
    """A release that runs; what systemd is told stands in the node's calls."""
    monkeypatch.setenv("PATH", node.environment["PATH"])
    node.fake("systemctl", {})
    releases = Releases()
    releases.config_file(VERSION).parent.mkdir(parents=True)
    releases.activate(VERSION)
    releases.write_config(VERSION, json.dumps(CONFIG))
    return releases


@pytest.fixture
def ivy_as_root(ivy_of_node: Ivy, monkeypatch: pytest.MonkeyPatch) -> Ivy:
    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(os, "geteuid", lambda: ROOT)
            return ivy_of_node(*arguments)

    return run


def lasts() -> bool:
    return hold.look() is not None


def test_it_lasts_for_as_long_as_was_said(now: Time) -> None:
    hold.write("paint", DAY, stop=False)
    now.sleep(DAY - 1)
    assert lasts()
    now.sleep(1)
    assert not lasts()


@pytest.mark.parametrize("calendar", [0.0, 4_000_000_000.0])
@pytest.mark.parametrize("was_synchronised", [True, False, None])
@pytest.mark.parametrize("is_synchronised", [False, None])
def test_a_clock_that_nobody_has_set_neither_ends_it_early_nor_keeps_it(
    now: Time, calendar: float, was_synchronised: bool | None, is_synchronised: bool | None
) -> None:
    now.is_synchronised = was_synchronised
    hold.write("paint", DAY, stop=False)
    now.reboot(calendar, is_synchronised=is_synchronised)
    assert lasts()
    now.sleep(DAY - 11)
    assert lasts()
    now.sleep(2)
    assert not lasts()


def test_where_the_clock_was_set_it_tells_how_long_the_machine_was_off(now: Time) -> None:
    hold.write("paint", DAY, stop=False)
    now.reboot(now.calendar + DAY - 1, is_synchronised=True)
    assert lasts()
    now.sleep(1)
    assert not lasts()


class Over(Exception):
    """Somebody ends the pass, as a power cut does."""


def wait(now: Time, seconds: float) -> None:
    """Let a pass wait for so long at most."""
    end = now.now + seconds

    def look() -> None:
        if now.now >= end:
            raise Over

    with contextlib.suppress(Over):
        holding.wait(look)


def test_boots_without_a_clock_count_together(now: Time) -> None:
    hold.write("paint", DAY, stop=False)
    boots = 0
    while lasts():
        boots += 1
        now.reboot(0.0, is_synchronised=False)
        wait(now, 3 * HOUR)
    assert 7 <= boots <= 9


DAMAGED = ["", "{", "[]", "null", '{"reason": "x"}', "x" * 20_000]


@pytest.mark.parametrize("text", DAMAGED)
def test_a_damaged_file_holds_nothing_and_is_told(text: str, ivy_of_node: Ivy) -> None:
    hold.write("paint", DAY, stop=False)
    Path(hold.FILE).write_text(text)
    assert not lasts()
    assert hold.FILE in (hold.trouble() or "")
    assert f"PROBLEM:  hold: {hold.FILE}" in ivy_of_node("status")[1]
    assert hold.FILE in (holding.tidy() or "")
    assert not os.path.lexists(hold.FILE) and holding.tidy() is None


@pytest.mark.parametrize("numbers", [{"left": 1e12}, {"left": -1}, {"left": float("inf")}, {"at": "x"}])
def test_numbers_that_nobody_has_written_hold_nothing(numbers: dict[str, Any]) -> None:
    hold.write("paint", DAY, stop=False)
    Path(hold.FILE).write_text(json.dumps(json.loads(Path(hold.FILE).read_text()) | numbers))
    assert not lasts() and hold.trouble()


def test_somebody_holds_the_node_looks_and_ends_it(ivy_as_root: Ivy, ivy_of_node: Ivy, node: Node) -> None:
    assert ivy_of_node("hold")[:2] == (1, "not held\n")
    assert json.loads(ivy_of_node("hold", "--json")[1])["hold"] is None
    status, output, _ = ivy_as_root("hold", "--for", "2h", "paint")
    assert status == 0 and "This node is held until " in output
    status, output, _ = ivy_of_node("hold")
    assert status == 0 and output.startswith("held until ") and output.endswith("): paint\n")
    [schema, found] = json.loads(ivy_of_node("hold", "--json")[1]).values()
    assert 7000 < found.pop("seconds_left") <= 7200 and found.pop("until") > 0
    assert found == {"reason": "paint", "stop": False} and schema == constants.JSON_SCHEMA
    assert json.loads(ivy_of_node("status", "--json")[1])["hold"]["reason"] == "paint"
    assert "\nhold:     until " in ivy_of_node("status")[1]
    # A pass that is under way would go on with what waits; another one sees to it, in the background.
    told = [call for call in node.calls() if "show" not in call]
    assert told == ["systemctl stop -- ivy-updater.service", "systemctl --no-block start -- ivy-updater.service"]
    status, output, _ = ivy_as_root("hold", "--end")
    assert status == 0 and "not held any more: paint" in output and not os.path.lexists(hold.FILE)
    assert ivy_as_root("hold", "--end")[:2] == (0, "not held\n")


def test_without_a_time_it_lasts_for_a_week_from_when_it_began(ivy_as_root: Ivy, now: Time) -> None:
    ivy_as_root("hold", "paint")
    now.sleep(DAY)
    status, output, _ = ivy_as_root("hold", "  paint ")  # as by a play each day
    assert status == 0 and output.startswith("already held until ")
    held = hold.look()
    assert held is not None and held.seconds_left() == hold.USUAL_SECONDS - DAY
    ivy_as_root("hold", "--for", "3h", "paint")
    held = hold.look()
    assert held is not None and held.seconds_left() == 3 * HOUR


@pytest.mark.parametrize(
    "arguments",
    [
        ("--for", "0", "paint"),
        ("--for", "soon", "paint"),
        ("--for", "1000d", "paint"),
        ("--until", "1970-01-02", "paint"),
        ("--until", "-2h", "paint"),
        ("--until", "9999-01-01", "paint"),
        ("--until", "2090-01-01", "--for", "1h", "paint"),
        ("--for", "1h"),
        ("--stop",),
        ("--end", "paint"),
        ("",),
        ("x" * 1000,),
    ],
)
def test_what_cannot_be_is_refused(ivy_as_root: Ivy, arguments: tuple[str, ...]) -> None:
    status, _, errors = ivy_as_root("hold", *arguments)
    assert status == 2 and errors and not os.path.lexists(hold.FILE)


def test_a_time_of_day_means_nothing_before_the_clock_is_set(ivy_as_root: Ivy, now: Time) -> None:
    now.is_synchronised = False
    status, _, errors = ivy_as_root("hold", "--until", "2090-01-01", "paint")
    assert status == 2 and "--for" in errors
    assert ivy_as_root("hold", "--for", "1h", "paint")[0] == 0


def test_only_root_holds(ivy_of_node: Ivy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for arguments in (("paint",), ("--end",)):
        assert ivy_of_node("hold", *arguments)[0] == 2


COMMANDS = [("config", "apply", "/dev/null"), ("config", "edit"), ("update", "1.1.0"), ("rollback",), ("restart",)]


@pytest.mark.parametrize("arguments", [*COMMANDS, ("setup", "--provider", "tenta")], ids=" ".join)
def test_nothing_is_changed_or_restarted_meanwhile(
    ivy_as_root: Ivy, node: Node, arguments: tuple[str, ...]
) -> None:
    node.write_config()
    hold.write("paint", DAY, stop=False)
    status, output, errors = ivy_as_root(*arguments)
    assert (status, output) == (1, "") and "this node is held until " in errors and "ivy hold --end" in errors
    assert not node.calls()


def test_the_version_of_a_package_is_not_activated_meanwhile(ivy: Ivy, release: Releases) -> None:
    hold.write("paint", DAY, stop=False)
    ivy("install")
    assert release.current() == VERSION and not release.directory(constants.VERSION).exists()


def pend(revision: int) -> None:
    """Let the backend leave word of an offer."""
    with BACKEND_STATE.update() as waiting:
        waiting.pending_configs = [*waiting.pending_configs, foreign(revision)]
    flags.leave(constants.PENDING_CONFIG_FLAG)


@pytest.fixture
def restarts(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """When a pass would restart services for what came before it."""
    made: list[bool] = []
    monkeypatch.setattr(activation, "catch_up", lambda _: made.append(True))
    monkeypatch.setattr(activation, "renew", lambda _: made.append(True))
    return made


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can take an environment that is made again")
def test_an_offer_waits_and_the_operator_is_told_once(
    now: Time, restarts: list[bool], capsys: pytest.CaptureFixture[str]
) -> None:
    Path(constants.BACKEND_DIR).mkdir(parents=True, exist_ok=True)
    hold.write("paint", HOUR, stop=False)
    pend(4)
    with pytest.raises(SystemExit) as ended:
        update_pass.run()
    # Another pass does what was put off; and it ends the hold.
    assert ended.value.code == constants.EXIT_TRY_AGAIN and HOUR <= now.now - 50_000 < HOUR + 60
    assert not restarts and not history.load().decisions
    told = [line for line in capsys.readouterr().out.splitlines() if "is waiting" in line]
    assert len(told) == 1 and "revision 4 for version 1.0.0 is waiting: this node is held until " in told[0]
    update_pass.run()
    assert restarts and [offer.revision for offer in history.load().decisions] == [4]
    assert "The time is up for which this node was held: paint" in capsys.readouterr().out
    assert not os.path.lexists(hold.FILE)


def test_a_hold_that_is_ended_lets_the_pass_go_on(now: Time, restarts: list[bool]) -> None:
    hold.write("paint", 10 * DAY, stop=False)
    holding.wait(lambda: holding.end() if now.now > 50_000 + HOUR else None)
    assert now.now < 50_000 + 2 * HOUR and not os.path.lexists(hold.FILE)


WANTED = {"ivy-wind.service", "ivy-co2.timer", "ivy-system-checks.service", "ivy-tenta.service"}
KEPT = {"ivy-system-checks.service", "ivy-tenta.service"}


@pytest.fixture
def systemd(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What systemd is told. It asks the generator, which wants what the file says."""
    told: list[tuple[str, str]] = []
    wants = set(WANTED)

    def reload() -> None:
        wants.clear()
        found = hold.load()
        wants.update(KEPT if found and found.stop else WANTED)

    def wanted(kinds: tuple[str, ...]) -> list[str]:
        return sorted(unit for unit in wants if unit.endswith(kinds))

    monkeypatch.setattr(units, "reload", reload)
    monkeypatch.setattr(units, "wanted_by_target", lambda **_: wanted((".service",)))
    monkeypatch.setattr(units, "triggers_of_target", lambda: wanted(units.TRIGGERS))
    monkeypatch.setattr(units, "control", lambda verb, unit, *_: told.append((verb, unit)))
    monkeypatch.setattr(units, "show", lambda *_, **__: {"ActiveState": "active"})
    return told


def test_sampling_can_be_stopped_and_goes_on_afterwards(systemd: list[tuple[str, str]], now: Time) -> None:
    holding.begin("paint", DAY)
    assert systemd == []
    holding.begin("paint the mast", DAY, stop=True)
    stopped = [("stop", "ivy-co2.timer"), ("stop", "ivy-wind.service")]
    assert systemd == stopped
    holding.begin("paint all of it", HOUR, stop=True)
    assert systemd == stopped
    now.sleep(HOUR)
    assert "paint all of it" in (holding.tidy() or "")
    assert systemd[2:] == [("start", "ivy-co2.timer"), ("start", "ivy-wind.service")]


def test_what_somebody_has_stopped_stays_so(
    systemd: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    holding.begin("paint", DAY, stop=True)
    systemd.clear()
    monkeypatch.setattr(units, "show", lambda *_, **__: {"ActiveState": "inactive"})
    holding.end()
    assert systemd == []
