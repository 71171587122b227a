"""`LifecycleManager`, `MainloopToggle` and `commands`: handles on systemd, here on a fake `systemctl`."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from ivy import constants
from ivy.backend import tenta_backend
from ivy.procedures import system_checks
from ivy.utils import mainloop_toggle, notify
from ivy.utils.host import commands, units
from ivy.utils.host.commands import CommandError
from ivy.utils.lifecycle_manager import LifecycleManager
from ivy.utils.mainloop_toggle import SCRIPT_PATH, MainloopToggle
from tests.support.helpers import Node, NotifySocket, make_config

UNIT = "ivy-system-checks.service"


@pytest.fixture(autouse=True)
def path(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fake programs are found first."""
    monkeypatch.setenv("PATH", node.environment["PATH"])


def manager(name: str = "system_checks") -> LifecycleManager:
    """A handle on a procedure."""
    return LifecycleManager(make_config(), system_checks.run, name, "procedure")


def says(active: str, sub: str = "", result: str = "success") -> dict[str, str]:
    """What the fake `systemctl` answers about the unit."""
    return {f"show*{UNIT}": f"printf '%s\\n' ActiveState={active} SubState={sub} Result={result}"}


@pytest.mark.parametrize("name", ["system_checks", "system-checks"])
def test_the_unit_follows_from_the_name(node: Node, name: str) -> None:
    node.fake("systemctl", says("inactive"))
    manager(name).teardown()
    assert node.calls()[-1] == f"systemctl stop -- {UNIT}"


@pytest.mark.parametrize(("verb", "calls"), [("stop", 2), ("restart", 1), ("start", 1)])
def test_a_stop_that_somebodys_restart_cancels_is_asked_for_again(node: Node, verb: str, calls: int) -> None:
    canceled = (
        f'[ -e "{node.home}/once" ] || {{ touch "{node.home}/once"; echo "Job for {UNIT} canceled." >&2; exit 1; }}'
    )
    node.fake("systemctl", {"show*": "echo TimeoutStopUSec=1s", f"{verb}*": canceled})
    if verb == "stop":
        units.control(verb, UNIT)
    else:
        with pytest.raises(CommandError, match="canceled"):
            units.control(verb, UNIT)
    assert [call.split()[1] for call in node.calls() if " show " not in call] == [verb] * calls


@pytest.mark.parametrize("said", ["Job for it canceled.", "Unit not loaded."])
def test_a_stop_that_is_refused_fails(node: Node, said: str) -> None:
    node.fake("systemctl", {"show*": "echo TimeoutStopUSec=1s", "stop*": f'echo "{said}" >&2; exit 5'})
    with pytest.raises(CommandError, match=said):
        units.control("stop", UNIT)


def test_a_service_that_asks_for_ever_more_time_is_killed(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "SECONDS_BEYOND_A_STOP", 0.2)
    dead = node.home / "dead"
    answers = {
        "show*TimeoutStopUSec*": "echo TimeoutStopUSec=100ms",
        "show*ActiveState*": "echo ActiveState=deactivating",
        "stop*": f'[ -e "{dead}" ] || exec sleep 600',
        "kill*": f'touch "{dead}"',
    }
    node.fake("systemctl", answers)
    manager().teardown()
    assert f"systemctl kill --signal=KILL -- {UNIT}" in node.calls()
    assert node.calls()[-1] == f"systemctl stop -- {UNIT}"


@pytest.mark.parametrize(
    ("span", "seconds"),
    [("10s", 10), ("2min 3.5s", 123.5), ("1h", 3600), ("100ms", 0.1), ("infinity", 7350), ("", 7350)],
)
def test_time_spans_are_those_that_systemctl_shows(span: str, seconds: float) -> None:
    assert units.seconds_of(span) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("entrypoint", "variant"),
    [(system_checks.run, "backend"), (tenta_backend.run, "procedure")],
)
def test_an_entrypoint_of_another_variant_is_refused(entrypoint: Any, variant: Any) -> None:
    with pytest.raises(ValueError, match="entrypoint"):
        LifecycleManager(make_config(), entrypoint, "name", variant)


def test_entrypoints_of_their_variant_are_accepted() -> None:
    LifecycleManager(make_config(), system_checks.run, "system-checks", "procedure")
    LifecycleManager(make_config(), tenta_backend.run, "tenta", "backend")


@pytest.mark.parametrize(
    ("state", "runs"),
    [("active", True), ("activating", True), ("reloading", True), ("inactive", False), ("failed", False)],
)
def test_whether_it_runs(node: Node, state: str, runs: bool) -> None:
    node.fake("systemctl", says(state))
    assert manager().procedure_is_running() is runs


def test_start(node: Node) -> None:
    node.fake("systemctl", says("inactive"))
    manager().start_procedure()
    assert node.calls()[-1] == f"systemctl start -- {UNIT}"


def test_starting_what_runs_is_a_mistake(node: Node) -> None:
    node.fake("systemctl", says("active"))
    with pytest.raises(RuntimeError, match="running already"):
        manager().start_procedure()
    assert not [call for call in node.calls() if "start" in call.split()]


def test_checking_what_was_never_started_is_a_mistake(node: Node) -> None:
    node.fake("systemctl", says("inactive", "dead"))
    with pytest.raises(RuntimeError, match="not been started"):
        manager().check_procedure_status()


@pytest.mark.parametrize(
    ("active", "sub"), [("failed", "failed"), ("activating", "auto-restart"), ("activating", "auto-restart-queued")]
)
def test_an_unexpected_death_is_logged(
    node: Node, capsys: pytest.CaptureFixture[str], active: str, sub: str
) -> None:
    node.fake("systemctl", says(active, sub, "watchdog"))
    manager().check_procedure_status()
    assert "ERROR     - system_checks died unexpectedly: watchdog" in capsys.readouterr().out


@pytest.mark.parametrize(("active", "sub"), [("active", "running"), ("activating", "start")])
def test_of_the_living_nothing_is_logged(
    node: Node, capsys: pytest.CaptureFixture[str], active: str, sub: str
) -> None:
    node.fake("systemctl", says(active, sub))
    manager().check_procedure_status()
    assert capsys.readouterr().out == ""


def test_what_systemd_refuses_is_an_error_that_says_why(node: Node) -> None:
    node.fake("systemctl", {**says("inactive"), "start*": "echo 'Access denied' >&2; exit 4"})
    with pytest.raises(CommandError, match=rf"`systemctl start -- {UNIT}` exited with 4: Access denied"):
        manager().start_procedure()


def test_without_systemd_there_is_an_error(monkeypatch: pytest.MonkeyPatch, node: Node) -> None:
    monkeypatch.setenv("PATH", str(node.programs))
    with pytest.raises(CommandError, match="cannot be run"):
        manager().procedure_is_running()


@pytest.fixture
def groups(node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Control groups: of the two services that the target wants, one runs."""
    node.fake(
        "systemctl",
        {
            "show*ivy.target": "echo 'Wants=ivy-tenta.service ivy-system-checks.service other.socket'",
            "show*ivy-tenta.service": "echo Id=ivy-system-checks.service; echo ControlGroup=;"
            " echo; echo Id=ivy-tenta.service; echo ControlGroup=/system.slice/tenta",
        },
    )
    monkeypatch.setattr(mainloop_toggle, "CONTROL_GROUPS", str(tmp_path))
    group = tmp_path / "system.slice" / "tenta"
    group.mkdir(parents=True)
    (group / "cgroup.procs").write_text("77\n13\n")
    return group


def test_process_ids(groups: Path) -> None:
    assert MainloopToggle.get_mainloop_pids() == [13, 77]


def test_what_ended_meanwhile_has_no_process_ids(groups: Path) -> None:
    (groups / "cgroup.procs").unlink()
    assert MainloopToggle.get_mainloop_pids() == []


def test_start_looks_at_release_and_config_first(
    groups: Path, node: Node, capsys: pytest.CaptureFixture[str]
) -> None:
    MainloopToggle.start_mainloop()
    assert node.calls()[:2] == ["systemctl daemon-reload", "systemctl start -- ivy.target"]
    assert capsys.readouterr().out == "Started ivy, process IDs 13, 77\n"


def test_stop_says_what_was_stopped(groups: Path, node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    MainloopToggle.stop_mainloop()
    assert node.calls()[-1] == "systemctl stop -- ivy.target"
    (groups / "cgroup.procs").write_text("")
    MainloopToggle.stop_mainloop()
    assert capsys.readouterr().out == "Stopped ivy, process IDs 13, 77\nivy was not running\n"


def test_the_program_that_the_units_run() -> None:
    assert os.path.join(constants.PROJECT_DIR, "ivy", "__main__.py") == SCRIPT_PATH and os.path.isfile(SCRIPT_PATH)


def test_a_command_that_takes_too_long_is_killed() -> None:
    with pytest.raises(CommandError, match=r"did not end within 0 s"):
        commands.run([sys.executable, "-c", "import time; time.sleep(1000)"], timeout=0.1)


def test_arguments_are_never_read_by_a_shell() -> None:
    text = "a b; echo $HOME `id` '\""
    assert commands.run([sys.executable, "-c", "import sys; print(sys.argv[1])", text], timeout=20) == f"{text}\n"


def test_output_in_any_encoding_is_taken() -> None:
    code = r"import sys; sys.stdout.buffer.write(b'a\xffb')"
    assert commands.run([sys.executable, "-c", code], timeout=20) == "a\N{REPLACEMENT CHARACTER}b"


def test_bytes_are_passed_as_they_are() -> None:
    code = r"import sys; sys.stdout.buffer.write(sys.stdin.buffer.read() + b'\r\n')"
    every = bytes(range(256))
    assert commands.run_binary([sys.executable, "-c", code], timeout=20, input=every) == every + b"\r\n"
    with pytest.raises(CommandError, match=r"exited with 3: \ufffd$"):
        commands.run_binary(["sh", "-c", r"printf '\377' >&2; exit 3"], timeout=20, input=b"")


def test_a_command_reads_its_input_once() -> None:
    text = "a secret\n" * 20_000  # more than a pipe holds
    assert commands.run(
        [sys.executable, "-c", "import sys; print(len(sys.stdin.read()))"], timeout=20, input=text
    ) == (f"{len(text)}\n")


def test_a_command_that_does_not_read_its_input_is_no_problem() -> None:
    assert commands.run([sys.executable, "-c", "print(1)"], timeout=20, input="x" * 200_000) == "1\n"


def test_a_command_that_takes_long_goes_on_with_heartbeats(node: Node, notify_socket: NotifySocket) -> None:
    node.environment["WATCHDOG_USEC"] = "1200000"  # not so many beats that nobody hears them all
    waits = "import sys, time; time.sleep(1.5); print(sys.stdin.read())"
    code = f"""
import sys
from ivy.utils.host import commands, units
print(commands.run([sys.executable, "-c", {waits!r}], timeout=60, input="given"), end="")
"""
    assert node.python("-c", code) == "given\n"
    beats = 0
    while notify_socket.next(0.1) == "WATCHDOG=1":
        beats += 1
    assert beats >= 3


def test_many_short_commands_go_on_with_heartbeats(monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other, they take long on a slow machine."""
    beats: list[None] = []
    monkeypatch.setattr(notify, "heartbeat", lambda: beats.append(None))
    for count in (1, 2):
        commands.run(["true"], timeout=20)
        assert len(beats) >= count


def test_what_a_failed_command_said_is_cut_to_its_end() -> None:
    code = "import sys; sys.stderr.write('x' * 100_000 + 'the end'); sys.exit(3)"
    with pytest.raises(CommandError) as caught:
        commands.run([sys.executable, "-c", code], timeout=20)
    assert caught.value.status == 3
    assert caught.value.output.endswith("the end") and len(caught.value.output) == 2000
