"""Packages that ivy runs on are changed under it: who notices, how long is waited, and what is restarted."""

import fcntl
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ivy import constants, update_pass
from ivy.types.updates import Offer
from ivy.utils import notify
from ivy.utils.host import busy, package_manager
from ivy.utils.logger import Logger
from ivy.utils.updates import activation, environment, history
from ivy.utils.updates.releases import Releases
from ivy.utils.updates.trial import Trials
from ivy.version import Version
from tests.support.helpers import BACKEND, CONFIG, Node
from tests.unit.offers import foreign
from tests.unit.procedures import say_busy

SERVICES = ("ivy-rain-gauge.service", "ivy-system-checks.service", "ivy-tenta.service")
HOLD = """
import fcntl, sys
file = open(sys.argv[1], "w")
fcntl.lockf(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """dpkg's locks, which nobody holds."""
    paths = [tmp_path / "lock-frontend", tmp_path / "lock"]
    for path in paths:
        path.touch()
    monkeypatch.setattr(package_manager, "LOCKS", tuple(map(str, paths)))
    return paths


class Clock:
    """Time that passes only while somebody sleeps; then something may happen."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.events: dict[float, object] = {}
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(notify, "sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        for moment in [moment for moment in self.events if moment <= self.now]:
            event = self.events.pop(moment)
            assert callable(event)
            event()


class Holder:
    """Another process that holds a lock, as apt does."""

    def __init__(self, lock: Path) -> None:
        command = [sys.executable, "-c", HOLD, str(lock)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout and self._process.stdout.readline() == b"held\n"

    def let_go(self) -> None:
        """As at the end of apt."""
        self._process.communicate()


def change() -> None:
    """What the package's script and the updater's unit leave."""
    Path(package_manager.TAKEN).mkdir(parents=True)


@pytest.mark.parametrize("number", [0, 1])
def test_a_pass_waits_for_the_end_of_apt(monkeypatch: pytest.MonkeyPatch, locks: list[Path], number: int) -> None:
    clock, apt = Clock(monkeypatch), Holder(locks[number])
    clock.events = {1060.0: apt.let_go}
    assert package_manager.wait_for_end()
    assert 1060 < clock.now < 1090


def test_between_two_runs_of_dpkg_is_not_the_end(monkeypatch: pytest.MonkeyPatch, locks: list[Path]) -> None:
    clock, first, second = Clock(monkeypatch), Holder(locks[0]), list[Holder]()
    clock.events = {
        1010.0: first.let_go,
        1012.0: lambda: second.append(Holder(locks[0])),
        1030.0: lambda: second[0].let_go(),
    }
    assert package_manager.wait_for_end()
    assert clock.now > 1030


def test_nobody_waits_for_ever(monkeypatch: pytest.MonkeyPatch, locks: list[Path]) -> None:
    clock, apt = Clock(monkeypatch), Holder(locks[0])
    assert not package_manager.wait_for_end(), "another wait would not be shorter"
    apt.let_go()
    assert clock.now < 1000 + 3600


def test_without_apt_there_is_hardly_a_wait(monkeypatch: pytest.MonkeyPatch, locks: list[Path]) -> None:
    clock = Clock(monkeypatch)
    locks[1].unlink()
    assert not package_manager.wait_for_end() and clock.now < 1010


def test_asking_disturbs_nobody(monkeypatch: pytest.MonkeyPatch, locks: list[Path]) -> None:
    Clock(monkeypatch)
    with locks[0].open("w") as mine:
        fcntl.lockf(mine, fcntl.LOCK_EX)
        package_manager.wait_for_end()
    Holder(locks[0]).let_go()


@pytest.fixture
def systemd(root_dir: Path, node: Node, monkeypatch: pytest.MonkeyPatch) -> Node:
    """A release that runs with a backend, and a systemd that only writes down what it is told."""
    monkeypatch.setenv("PATH", node.environment["PATH"])
    monkeypatch.setattr(environment, "why_not", lambda _: None)
    releases, version = Releases(), Version("1.0.0")
    releases.config_file(version).parent.mkdir(parents=True)
    releases.activate(version)
    releases.write_config(version, json.dumps({**CONFIG, "backend": BACKEND}))
    answer(node)
    return node


def answer(node: Node, **states: str) -> None:
    """Let systemd say how services are; `active` where nothing is given."""
    answers = {"*Wants*": f"echo Wants={' '.join(['ivy-updater.service', *SERVICES])}"}
    for unit in SERVICES:
        state = states.get(unit.split("-")[1].split(".")[0], "active")
        name, _, status = state.partition(" ")
        answers[f"show*{unit}"] = f"printf 'ActiveState={name}\\nExecMainStatus={status or 0}\\n'"
    node.fake("systemctl", answers)


def restarted(node: Node) -> list[str]:
    """The services that systemd was told to restart, in that order."""
    return [call.split()[-1] for call in node.calls() if call.startswith("systemctl restart")]


def test_services_are_restarted_the_backend_last_if_packages_were_changed(
    systemd: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    Clock(monkeypatch)
    update_pass.run()
    assert restarted(systemd) == []
    change()
    update_pass.run()
    assert restarted(systemd) == list(SERVICES)
    assert not os.path.lexists(package_manager.TAKEN)
    update_pass.run()
    assert restarted(systemd) == list(SERVICES)


def test_what_is_stopped_is_not_started(systemd: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    Clock(monkeypatch)
    answer(systemd, rain="inactive", tenta="deactivating")
    change()
    update_pass.run()
    assert restarted(systemd) == ["ivy-system-checks.service"]
    answer(systemd, rain="failed 78", system="activating", tenta="failed 9")
    activation.renew("ivy-tenta.service")
    assert restarted(systemd)[1:] == ["ivy-rain-gauge.service", "ivy-system-checks.service"]


def test_who_is_not_to_be_disturbed_is_restarted_later(systemd: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """By units/ivy-restart: no pass, and so no offer, waits for it."""
    Clock(monkeypatch)
    later = Path(constants.RESTARTED_DIR, "rain-gauge.waits")
    say_busy("rain-gauge", 600)
    say_busy("system-checks", 0)
    systemd.fake(
        "systemctl",
        {
            "*Wants*": f"echo Wants={' '.join(SERVICES)}",
            "show*rain-gauge*": "echo Id=ivy-rain-gauge.service; echo ActiveState=active",
            "show*": "echo ActiveState=active",
        },
    )
    change()
    update_pass.run()
    assert restarted(systemd) == list(SERVICES), "where nobody could be told, at once"
    later.parent.mkdir(parents=True)
    change()
    before = len(restarted(systemd))
    update_pass.run()
    others = [unit for unit in SERVICES if unit != "ivy-rain-gauge.service"]
    assert restarted(systemd)[before:] == others
    assert "systemctl --no-block restart -- ivy-restart.service" in systemd.calls()
    assert abs(int(later.read_text()) - busy.now()) < 600


def test_what_a_package_brought_is_tried_when_nobody_is_disturbed(
    systemd: Node, monkeypatch: pytest.MonkeyPatch, make_logger: type[Logger]
) -> None:
    """Until then all services run what was before: nobody would watch what was restarted sooner."""
    clock, tried = Clock(monkeypatch), list[float]()
    clock.events = {1900.0: lambda: say_busy("rain-gauge", 0)}
    monkeypatch.setattr(update_pass, "Logger", make_logger)
    monkeypatch.setattr(Trials, "resume", lambda _: tried.append(clock.now))
    shown = "echo Id=ivy-rain-gauge.service; echo ActiveState=active"
    systemd.fake("systemctl", {"*Wants*": f"echo Wants={' '.join(SERVICES)}", "show*": shown})
    offer = Offer(identifier="admin-1", config=foreign(3, "1.1.0"), source="admin", is_installed=True)
    with history.update() as past:
        past.trial = offer
    say_busy("rain-gauge", 3600)
    change()
    update_pass.run()
    assert restarted(systemd) == [] and 1900 <= tried[0] < 1920
    # One that was interrupted is on its way: what fails must not fail for hours.
    with history.update() as past:
        past.trial = offer.model_copy(update={"interruptions": 1})
    say_busy("rain-gauge", 3600)
    change()
    update_pass.run()
    assert restarted(systemd) and tried[1] < 1950


def test_who_has_waited_leaves_it_to_a_pass_of_the_new_python(
    systemd: Node, monkeypatch: pytest.MonkeyPatch, locks: list[Path]
) -> None:
    clock, apt = Clock(monkeypatch), Holder(locks[0])
    clock.events = {1060.0: apt.let_go}
    change()
    update_pass.run()
    assert restarted(systemd) == [] and os.path.isdir(package_manager.FLAG)
    assert not os.path.lexists(package_manager.TAKEN)


def test_what_a_pass_does_not_finish_the_next_one_does(systemd: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    Clock(monkeypatch)
    change()
    with monkeypatch.context() as broken:
        broken.setattr(environment, "why_not", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            update_pass.run()
    assert os.path.isdir(package_manager.TAKEN)
    update_pass.run()
    assert restarted(systemd) == list(SERVICES)


@pytest.mark.parametrize("what", ["full", "link", "file"])
def test_whatever_stands_in_the_place_of_the_flag_is_removed(root_dir: Path, what: str) -> None:
    taken = Path(package_manager.TAKEN)
    taken.parent.mkdir()
    if what == "full":
        (taken / "inner").mkdir(parents=True)
    elif what == "link":
        taken.symlink_to("/nonexistent")
    else:
        taken.touch()
    assert package_manager.were_changed()
    package_manager.dealt_with()
    assert not os.path.lexists(taken) and Path(constants.UPDATER_RUN_DIR).is_dir()
    package_manager.dealt_with()


def test_what_was_withdrawn_is_what_apt_has_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package_manager, "LISTS", str(tmp_path / "none"))
    assert package_manager.withdrawn() == set()
    monkeypatch.setattr(package_manager, "LISTS", str(tmp_path))
    (tmp_path / "a_dists_trixie_main_ivy-withdrawn").write_text("ivy 1:1.2.0\nivy-node 1:1.3.0\nivy \n\n")
    (tmp_path / "b_dists_trixie_main_ivy-withdrawn").write_bytes(b"ivy 1:1.4.0~rc.1\n\xff\n")
    (tmp_path / "b_dists_trixie_main_binary-amd64_Packages").write_text("ivy 1:1.5.0\n")
    assert package_manager.withdrawn() == {"1.2.0", "1.4.0-rc.1"}
