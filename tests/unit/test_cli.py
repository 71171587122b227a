"""The `ivy` command, as people and scripts call it."""

import argparse
import importlib
import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from shutil import copytree, ignore_patterns
from typing import Any

import pytest

from ivy import constants, main
from ivy.cli import main as cli
from ivy.cli.archive.selection import parse_time
from ivy.types.config import Config
from ivy.types.link_report import LinkReport
from ivy.types.messages import ConfigMessageBody, DataMessageBody, LogMessageBody
from ivy.utils import notify
from ivy.utils.functions import duration, procedure_names
from ivy.utils.host import busy, clock, mounts, package_manager, waiting
from ivy.utils.host.locks import file_lock
from ivy.utils.messaging_agent import ACTIVE_QUEUE_FILE, MessagingAgent
from ivy.utils.storage import schema, trouble
from ivy.utils.storage.last_sample import LAST_SAMPLE
from ivy.utils.updates.releases import Releases
from ivy.version import Version
from tests.support.helpers import ARCHIVE_DIR, BACKEND, CONFIG, UPDATER, Node, NotifySocket, wait_until
from tests.unit.archives import Ivy
from tests.unit.procedures import in_minutes, say_busy


def unit(active: str, sub: str, status: str = "", result: str = "success", kind: str = "notify") -> str:
    """What the fake `systemctl` answers about a unit."""
    properties = {"ActiveState": active, "SubState": sub, "StatusText": status, "NRestarts": "2"}
    properties |= {"WatchdogUSec": "1min", "InvocationID": "a1"}
    lines = [f"'{key}={value}'" for key, value in {**properties, "Result": result, "Type": kind}.items()]
    return f"printf '%s\\n' {' '.join(lines)}"


def wants(node: Node, **units: str) -> None:
    """Let `ivy.target` want these services, in these states."""
    names = {f"ivy-{name.replace('_', '-')}.service": state for name, state in units.items()}
    blocks = "; echo; ".join(f"echo Id={name}; {state}" for name, state in names.items())
    node.fake("systemctl", {"show*ivy.target": f"echo 'Wants={' '.join(names)}'", "show*--property=Id,*": blocks})


RUNNING = unit("active", "running", "sampling every 10 s")
SOMEBODY = 65_534


def test_the_help_fits_on_a_screen(node: Node) -> None:
    status, output, _ = node.ivy("--help")
    assert status == 0
    assert len(output.splitlines()) <= 40
    assert max(map(len, output.splitlines())) <= 80


def test_the_help_lists_nothing_internal(node: Node) -> None:
    listed = set(re.findall(r"^    ([a-z-]+)(?: |$)", node.ivy("--help")[1], re.MULTILINE))
    parser = cli.parser()
    [groups] = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    assert set(groups.choices) - listed == set(cli.INTERNAL)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["surprise"],
        ["status", "--surprise"],
        ["config"],
        ["config", "surprise"],
        ["run"],
        ["run", "surprise"],
        ["run", "../system-checks"],
        ["run", "system_checks"],
        ["messages", "--date", "yesterday"],
        ["messages", "--date"],
        ["logs", "-n", "some"],
        ["logs", "--since", "yesterday"],
    ],
)
def test_wrong_use_exits_with_2_and_a_reason(node: Node, arguments: list[str]) -> None:
    node.write_config()
    status, output, errors = node.ivy(*arguments)
    assert (status, output) == (2, "")
    assert errors.strip() and "Traceback" not in errors


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["stats"], "ivy: error: there is no command 'stats'. Did you mean `ivy status`?"),
        (["config", "shw"], "ivy config: error: there is no command 'shw'. Did you mean `ivy config show`?"),
        (["surprise"], "ivy: error: there is no command 'surprise'. For all commands: ivy --help"),
        (["\033[2J"], r"ivy: error: there is no command '\x1b[2J'. For all commands: ivy --help"),
        (["it's"], "there is no command 'it's'. For all commands: ivy --help"),
    ],
)
def test_an_unknown_command_gets_the_nearest_name(ivy: Ivy, arguments: list[str], said: str) -> None:
    status, output, errors = ivy(*arguments)
    assert (status, output) == (2, "") and said in errors


def test_no_internal_command_is_proposed(ivy: Ivy) -> None:
    for name in cli.INTERNAL:
        errors = ivy(f"{name}s")[2]
        assert f"there is no command '{name}s'" in errors and f"`ivy {name}`" not in errors


@pytest.mark.parametrize("command", [["config"], ["config", "show"], ["status"]])
def test_a_usage_line_can_be_copied(ivy: Ivy, command: list[str]) -> None:
    assert ivy(*command, "--help")[1].startswith(f"usage: ivy {' '.join(command)} [-h]")


def test_an_unknown_service_names_those_that_there_are(node: Node) -> None:
    _, _, errors = node.ivy("run", "surprise")
    assert "no service 'surprise'" in errors and ", ".join(main.service_names()) in errors


@pytest.mark.parametrize("name", ["surprise", "tenta", "system-checks"])
def test_what_has_no_hardware_to_make_safe(node: Node, name: str) -> None:
    status, _, errors = node.ivy("run", name, "--make-safe")
    assert status == 2 and f"{name!r}" in errors


@pytest.mark.parametrize("more", [[], ["--make-safe"]])
@pytest.mark.parametrize("state", ["active", "deactivating", "failed"])
def test_hardware_has_one_owner(node: Node, state: str, more: list[str]) -> None:
    """Whoever runs a procedure by hand stops its unit first."""
    (node.release / "ivy").unlink()
    copytree(Path(constants.PROJECT_DIR, "ivy"), node.release / "ivy", ignore=ignore_patterns("__pycache__"))
    code = "def run(config, logger): raise SystemExit(7)\ndef make_safe(config, logger): run(config, logger)\n"
    (node.release / "ivy/procedures/valve_9.py").write_text(code)
    node.write_config()
    node.fake("systemctl", {"show*ActiveState*ivy-valve-9.service": f"echo ActiveState={state}"})
    del node.environment["IVY_ROOT_DIR"]
    status, _, errors = node.ivy("run", "valve-9", *more)
    assert status == (7 if state == "failed" else 2)
    assert state == "failed" or "first systemctl stop ivy-valve-9" in errors
    asked = len(node.calls())
    node.environment["SERVICE_RESULT"] = "success"
    assert node.ivy("run", "valve-9", *more)[0] == 7, "the unit itself"
    assert len(node.calls()) == asked


def test_the_version(node: Node) -> None:
    assert node.ivy("--version")[1] == f"ivy {constants.VERSION}\n"


def test_info_names_the_places(node: Node, root_dir: Path) -> None:
    node.fake("dpkg-query", {"*": "printf 1:2.3.4"})
    status, output, _ = node.ivy("info")
    assert status == 0
    for text in (str(constants.VERSION), node.release, root_dir, f"{root_dir}/data", "1:2.3.4"):
        assert str(text) in output


AT_EASE = {
    "spare": 0,
    "trouble": None,
    "trouble_seconds": None,
    "salvaging": 0,
    "set_aside": 0,
    "not_yet_durable": 0,
    "resend": None,
}


def test_status_of_a_well_node(node: Node) -> None:
    node.write_config()
    wants(node, system_checks=RUNNING, updater=unit("inactive", "dead", "on its way", kind="oneshot"))
    MessagingAgent().teardown()
    status, output, errors = node.ivy("status", "--json")
    assert (status, errors) == (0, "")
    service = {
        "restarts": 2,
        "well": True,
        "watched": True,
        "confined": False,
        "user": "",
        "groups": [],
        "invocation": "a1",
    }
    service |= dict.fromkeys(["last_sample_seconds", "max_silent_seconds", "silent_seconds", "busy_seconds"])
    found = json.loads(output)
    disk = found.pop("disk")
    assert 0 <= disk["used_percent"] <= 100 and disk["free_megabytes"] >= 0
    assert found.pop("clock_synchronised") in (True, False, None)
    assert re.fullmatch("[0-9a-f]{12}", found.pop("config_digest"))
    assert found["queue"].pop("file_bytes") >= found["queue"].pop("bytes") > 0
    for kind, name in enumerate(["ivy-system-checks.service", "ivy-updater.service"]):
        assert found["units"][kind].pop("name") == name
    assert found == {
        "schema": 1,
        "well": True,
        "problems": [],
        "version": str(constants.VERSION),
        "system_identifier": "node-1",
        "config_revision": 3,
        "units": [
            {**service, "state": "active (running)", "status": "sampling every 10 s", "is_procedure": True},
            {**service, "state": "done", "status": "", "is_procedure": False},
        ],
        "queue": {
            "length": 0,
            "waiting": {"data": 0, "log": 0, "config": 0},
            "dropped": {"data": 0, "log": 0, "config": 0, "archive": 0, "poison": 0},
            **AT_EASE,
            "oldest_seconds": None,
            "oldest_timestamp": None,
        },
        "backend": None,
        "lost_at_boot": mounts.lost_places(),
        "update_waits": None,
        "hold": None,
    }


def test_status_tells_who_is_not_to_be_disturbed_and_what_waits(
    node: Node, ivy_of_node: Ivy, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.write_config()
    wants(node, co2=RUNNING, wind=unit("inactive", "dead"), system_checks=RUNNING)
    for name in ("co2", "wind"):
        say_busy(name, 600)
    monkeypatch.setattr(busy, "clock_time", in_minutes)
    _, output, _ = ivy_of_node("status")
    assert (
        "\nbusy:     co2 until +10 min: what would restart it waits, but for --now\n" in output
        and "update:" not in output
    )
    found = json.loads(ivy_of_node("status", "--json")[1])
    left = {unit["name"]: unit["busy_seconds"] for unit in found["units"]}
    assert 0 < left.pop("ivy-co2.service") <= 600 and set(left.values()) == {None}

    waiting.NOTE.parent.mkdir()
    note = {"procedures": ["co2"], "began": busy.now(), "looked": busy.now()}
    waiting.NOTE.write_text(json.dumps(note))
    assert "\nupdate:   waits for co2, until +120 min at the latest\n" in ivy_of_node("status")[1]
    waits = json.loads(ivy_of_node("status", "--json")[1])["update_waits"]
    assert waits["procedures"] == ["co2"] and 7000 < waits["most_seconds"] <= 7200
    waiting.NOTE.write_text(json.dumps(note | {"what": "reboot"}))
    assert "\nreboot:   waits for co2, until " in ivy_of_node("status")[1]


def test_a_restart_of_all_waits_unless_it_is_urgent(
    node: Node, ivy_of_node: Ivy, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.write_config()
    wants(node, co2=RUNNING)
    monkeypatch.setattr(busy, "clock_time", in_minutes)
    rests: list[float] = []

    def sleep(seconds: float) -> None:
        rests.append(seconds)
        say_busy("co2", 0)

    monkeypatch.setattr(notify, "sleep", sleep)
    for arguments in (["restart"], ["restart", "--now"]):
        say_busy("co2", 600)
        status, output, _ = ivy_of_node(*arguments)
        is_told = "Waiting for co2 until +10 min, not to be disturbed; --now does not wait" in output
        assert status == 0 and is_told is (arguments == ["restart"])
    assert len(rests) == 1


def test_a_restart_that_may_not_wait_for_long_leaves_all_as_it_is(
    node: Node, ivy_of_node: Ivy, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.write_config()
    wants(node, co2=RUNNING)
    monkeypatch.setattr(busy, "clock_time", in_minutes)
    say_busy("co2", 600)
    rests: list[float] = []
    monkeypatch.setattr(notify, "sleep", rests.append)
    calls = len(node.calls())
    status, _, complained = ivy_of_node("restart", "--wait", "0s")
    assert (status, rests) == (75, [0]) and "nothing was restarted" in complained
    assert not [call for call in node.calls()[calls:] if "stop" in call or "start" in call]


def test_without_inodes_not_all_is_well(node: Node, monkeypatch: pytest.MonkeyPatch, ivy_of_node: Ivy) -> None:
    """The archive stands still at midnight, whatever bytes are free."""
    node.write_config()
    wants(node, system_checks=RUNNING)
    monkeypatch.setattr(mounts, "disk", lambda: mounts.Disk(1.0, 10**12, 10**6, 0, False))
    status, output, _ = ivy_of_node("status")
    assert status == 1 and "disk: only 0 files more are possible" in output


def test_status_for_people(node: Node, ivy_of_node: Ivy) -> None:
    node.write_config()
    wants(node, system_checks=RUNNING)
    MessagingAgent().teardown()
    status, output, _ = ivy_of_node("status")
    assert status == 0
    digest = json.loads(ivy_of_node("status", "--json")[1])["config_digest"]
    assert output.splitlines()[0] == f"ivy {constants.VERSION} on node-1, config revision 3 ({digest})"
    assert "sampling every 10 s" in output and output.endswith("all is well\n")


def test_status_of_a_node_of_which_nobody_can_read_the_config(node: Node, ivy_of_node: Ivy) -> None:
    wants(node, system_checks=RUNNING)
    line = ivy_of_node("status")[1].splitlines()[0]
    assert line == f"ivy {constants.VERSION} on a node of unknown name, config revision unknown"


def test_status_is_read_in_columns(node: Node, ivy_of_node: Ivy) -> None:
    node.write_config()
    wants(node, system_checks=RUNNING, a_procedure_with_quite_a_long_name=RUNNING, wind=unit("failed", "failed"))
    agent = MessagingAgent()
    agent.add_message(DataMessageBody(data={"a": 1}))
    agent.teardown()
    lines = ivy_of_node("status")[1].splitlines()
    services = [line for line in lines if line.startswith("  ")]
    assert len(services) == 3
    assert len({line.index("sampling every 10 s") for line in services if "active" in line}) == 1
    assert len({line.index(" active " if "active" in line else " failed ") for line in services}) == 1
    assert [line for line in lines if line.startswith("queue:    1 message, the oldest ")]
    assert lines[-1] == "ivy doctor says what to do"


def test_status_counts_the_queue(node: Node, ivy_of_node: Ivy) -> None:
    node.write_config()
    wants(node, system_checks=RUNNING)
    agent = MessagingAgent()
    for _ in range(3):
        agent.add_message(DataMessageBody(data={"a": 1}))
    agent.database.execute("UPDATE QUEUE SET timestamp = timestamp - 100")
    agent.teardown()
    queue = json.loads(ivy_of_node("status", "--json")[1])["queue"]
    assert queue["length"] == 3 and 100 <= queue["oldest_seconds"] <= 160


def _without_seconds(text: str) -> str:
    return re.sub(r"for \d+ s", "for a while", re.sub(r"\d+ s ago", "some time ago", text))


def problems(ivy_of_node: Ivy) -> list[str]:
    """What the status complains about; the exit status must agree."""
    status, output, errors = ivy_of_node("status", "--json")
    found: dict[str, Any] = json.loads(output)
    assert (status == 0) is found["well"] is (not found["problems"]) and status in (0, 1), errors
    readable = ivy_of_node("status")
    shown = _without_seconds(readable[1])
    assert readable[0] == status
    assert all(f"PROBLEM:  {_without_seconds(problem)}" in shown for problem in found["problems"])
    return list(found["problems"])


@pytest.mark.parametrize(
    ("state", "problem"),
    [
        (unit("failed", "failed", "Config error: x"), "failed (failed), Config error: x"),
        (unit("activating", "auto-restart", result="exit-code"), "activating (auto-restart)"),
        (unit("inactive", "dead"), "inactive (dead)"),
        (unit("failed", "failed", result="exit-code", kind="oneshot"), "failed (failed)"),
    ],
)
def test_status_of_a_service_that_is_not_well(
    node: Node, data_dir: Path, state: str, problem: str, ivy_of_node: Ivy
) -> None:
    node.write_config()
    wants(node, system_checks=RUNNING, wind=state)
    assert problems(ivy_of_node) == [f"ivy-wind.service: {problem}"]


@pytest.mark.parametrize(
    ("active", "sub"), [("activating", "start"), ("active", "running"), ("deactivating", "stop-post")]
)
@pytest.mark.parametrize("result", ["success", "exit-code"])
def test_a_pass_of_the_updater_begins_and_ends(
    node: Node, data_dir: Path, active: str, sub: str, result: str, ivy_of_node: Ivy
) -> None:
    """It does so while others look, as right after an installation."""
    node.write_config()
    wants(node, system_checks=RUNNING, updater=unit(active, sub, result=result))
    is_well = result == "success" or active == "active"  # the result is that of its last run then
    assert problems(ivy_of_node) == ([] if is_well else [f"ivy-updater.service: {active} ({sub})"])


@pytest.mark.parametrize(
    "state",
    [
        unit("inactive", "dead", "connected to 192.0.2.1"),
        unit("failed", "failed", "connected to 192.0.2.1", result="signal"),
        unit("activating", "auto-restart", "connected to 192.0.2.1", result="signal"),
    ],
)
def test_a_service_that_has_ended_is_not_what_it_said_before(
    node: Node, data_dir: Path, state: str, ivy_of_node: Ivy
) -> None:
    node.write_config()
    wants(node, system_checks=RUNNING, tenta=state)
    assert "connected to" not in ivy_of_node("status")[1]
    assert [unit["status"] for unit in json.loads(ivy_of_node("status", "--json")[1])["units"]][1] == ""


@pytest.mark.parametrize("command", [["status"], ["is-running"]])
def test_systemd_is_asked_once_for_all_services(node: Node, ivy_of_node: Ivy, command: list[str]) -> None:
    node.write_config()
    asked = []
    for count in (2, 200):
        wants(node, **{f"sensor_{number}": RUNNING for number in range(count)})
        before = len(node.calls())
        ivy_of_node(*command)
        asked.append(len(node.calls()) - before)
    assert asked == [2, 2], "what the target wants, and how all of them are"


def test_status_and_doctor_tell_who_would_not_see_an_operators_call(node: Node, ivy_of_node: Ivy) -> None:
    node.write_config()
    states = {
        "restart.path": "inactive",
        "repair.timer": "failed",
        "salvage.path": "active",
        "updater.path": "inactive",  # for as long as a pass or a command lasts
        "call@reboot.path": "masked",
    }
    said = {
        f"ivy-{name}": f"LoadState={'masked' if state == 'masked' else 'loaded'} ActiveState={state}"
        for name, state in states.items()
    }
    blocks = "; echo; ".join(f"printf '%s\\n' Id={name} {properties}" for name, properties in said.items())
    wind = f"echo; echo Id=ivy-wind.service; {RUNNING}"
    known = {
        "show*ivy.target": f"echo 'Wants=ivy-wind.service {' '.join(said)}'",
        "show*--property=Id,*": f"{blocks}; {wind}",
    }
    node.fake("systemctl", known)
    [problem] = problems(ivy_of_node)
    assert "ivy-restart.path, ivy-repair.timer; sudo systemctl start ivy.target" in problem
    found = json.loads(ivy_of_node("doctor", "--json")[1])
    told = [finding for finding in found if finding["check"] == "units" and not finding["ok"]]
    assert [finding["remedy"] for finding in told] == ["sudo systemctl start ivy.target starts them"]


@pytest.mark.parametrize(("state", "undo"), [("enabled", ""), ("disabled", "enable"), ("masked", "unmask")])
def test_status_tells_that_the_next_boot_would_start_nothing(
    node: Node, ivy_of_node: Ivy, state: str, undo: str
) -> None:
    node.write_config()
    wind = f"echo Id=ivy-wind.service; {RUNNING}"
    said = f"echo Wants=ivy-wind.service; echo UnitFileState={state}"
    node.fake("systemctl", {"show*ivy.target": said, "show*--property=Id,*": wind})
    found = problems(ivy_of_node)
    assert [problem.partition("; ")[2] for problem in found] == (
        [f"sudo systemctl {undo} ivy.target"] if undo else []
    )


def test_status_without_a_usable_config(node: Node, data_dir: Path, ivy_of_node: Ivy) -> None:
    wants(node, system_checks=RUNNING)
    [problem] = problems(ivy_of_node)
    assert problem.startswith(f"config: {node.release}/config/config.json: does not exist")


def test_status_without_systemd(node: Node, data_dir: Path, ivy_of_node: Ivy) -> None:
    node.write_config()
    node.environment["PATH"] = str(node.programs)
    [problem] = problems(ivy_of_node)
    assert problem.startswith("services: `systemctl")


def test_status_without_services(node: Node, data_dir: Path, ivy_of_node: Ivy) -> None:
    node.write_config()
    wants(node)
    [problem] = problems(ivy_of_node)
    assert "ivy.target wants none" in problem


def test_status_with_a_broken_queue(node: Node, data_dir: Path, ivy_of_node: Ivy) -> None:
    node.write_config()
    wants(node, system_checks=RUNNING)
    Path(schema.salvaging_path(ACTIVE_QUEUE_FILE)).touch()
    Path(ACTIVE_QUEUE_FILE).touch()
    with file_lock(schema.lock_path(ACTIVE_QUEUE_FILE), 1):
        [problem] = problems(ivy_of_node)
    assert problem.startswith(f"queue: {ACTIVE_QUEUE_FILE}: ") and "is locked by process" in problem


def test_status_names_the_trouble_of_the_disk_and_its_length(
    node: Node, data_dir: Path, ivy_of_node: Ivy, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.write_config()
    MessagingAgent().teardown()
    monkeypatch.setattr(time, "clock_gettime", lambda _: 100.0)
    said = "the queue cannot be used: attempt to write a readonly database"
    wants(node, tenta=unit("active", "running", said))
    assert trouble.begin("read-only") and trouble.begin("no directory", trouble.ARCHIVE_PATH)
    Path(f"{ACTIVE_QUEUE_FILE}.aside-1700000000").touch()
    found = problems(ivy_of_node)
    expected = "queue: the data directory takes no messages for a while: read-only"
    assert _without_seconds(found[0]).startswith(expected)
    assert _without_seconds(found[1]) == "archive: it takes no messages for a while: no directory"
    assert found[2] == "queue: 1 damaged: what can be read is queued again by ivy-salvage.service"
    assert found[3] == f"ivy-tenta.service: {said}"
    _, output, _ = ivy_of_node("queue")
    assert "memory:   0 of them for a while: read-only" in _without_seconds(output)
    assert "aside-1700000000, what can be" in output


def test_status_of_a_withdrawn_version(
    node: Node, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ivy_of_node: Ivy
) -> None:
    monkeypatch.setattr(package_manager, "LISTS", str(tmp_path))
    node.write_config()
    wants(node, wind=RUNNING)
    file = tmp_path / "example.org_ivy_dists_trixie_main_ivy-withdrawn"
    file.write_text("ivy 1:0.0.1\n")
    assert problems(ivy_of_node) == []
    file.write_text(f"ivy 1:0.0.1\nivy 1:{str(constants.VERSION).replace('-', '~')}\n")
    [problem] = problems(ivy_of_node)
    assert problem.startswith(f"version {constants.VERSION}: who published it has withdrawn it")


TENTA: dict[str, Any] = {
    "backend": BACKEND,
    "general": {**CONFIG["general"], "system_identifier": "81bf7042-e20f-4a97-ac44-c15853e3618f"},
}


def test_status_with_a_backend(node: Node, data_dir: Path, ivy_of_node: Ivy) -> None:
    node.write_config(**TENTA)
    wants(node, tenta=RUNNING)
    assert problems(ivy_of_node) == ["backend: not connected: it has not started yet"]
    report = LinkReport(broker="localhost:1", connected=False, since=1.5, reason="refused", invocation="a1")
    report.write()
    assert problems(ivy_of_node) == ["backend: not connected: refused"]
    report.model_copy(update={"connected": True, "reason": None}).write()
    assert problems(ivy_of_node) == []
    assert json.loads(ivy_of_node("status", "--json")[1])["backend"] == {
        "provider": "tenta",
        "broker": "localhost:1",
        "connected": True,
        "since": 1.5,
        "reason": None,
        "last_acknowledged": None,
        "warning": None,
        "protocol": None,
        "troubles": [],
        "nobody_listens": False,
        "stuck_seconds": None,
    }


def test_status_tells_that_nobody_watches_a_trial(node: Node, root_dir: Path, ivy_of_node: Ivy) -> None:
    node.write_config()
    (root_dir / "previous").symlink_to("1.0.0")
    wants(node, system_checks=RUNNING, updater=unit("active", "running"))
    assert problems(ivy_of_node) == []
    wants(node, system_checks=RUNNING, updater=unit("inactive", "dead"))
    [problem] = problems(ivy_of_node)
    assert problem.endswith("nobody watches what is on trial: sudo systemctl start ivy-updater.service")


def test_status_of_a_node_that_tenta_does_not_know(node: Node, ivy_of_node: Ivy) -> None:
    node.write_config(backend=BACKEND)
    wants(node, tenta=RUNNING)
    LinkReport(broker="localhost:1", connected=True, since=1.5, invocation="a1").write()
    [problem] = problems(ivy_of_node)
    assert problem.startswith("backend: general.system_identifier: 'node-1' is not a UUID")


def test_status_names_what_is_wrong_with_a_connection_that_is_there(node: Node, ivy_of_node: Ivy) -> None:
    node.write_config(**TENTA)
    wants(node, tenta=RUNNING)
    report = LinkReport(broker="localhost:1", connected=True, since=1.5, invocation="a1", warning="dates")
    report.write()
    assert problems(ivy_of_node) == ["backend: dates"]
    report.model_copy(update={"connected": False, "reason": "refused"}).write()
    assert problems(ivy_of_node) == ["backend: not connected: refused"]


def test_status_tells_what_a_broker_does_not_take(node: Node, ivy_of_node: Ivy) -> None:
    node.write_config(**TENTA)
    wants(node, tenta=RUNNING)
    trouble = "measurements/a: No matching subscribers (nobody listens at the broker: is the server running?)"
    report = LinkReport(
        broker="localhost:1", connected=True, since=1.5, invocation="a1", protocol="5", troubles=[trouble]
    )
    report.write()
    assert problems(ivy_of_node) == [f"backend: {trouble}"]
    assert "connected to localhost:1 by MQTT 5" in ivy_of_node("status")[1]
    long_ago = time.clock_gettime(time.CLOCK_BOOTTIME) - 100
    report.model_copy(update={"troubles": [], "stuck_since": long_ago}).write()
    [problem] = problems(ivy_of_node)
    assert re.search(r"localhost:1 has not acknowledged what was sent \d+ s ago", problem)
    report.model_copy(update={"connected": False, "reason": "refused"}).write()
    assert problems(ivy_of_node) == ["backend: not connected: refused"], "what holds while there is a connection"


@pytest.mark.parametrize("changes", [{"invocation": "of before"}, {"invocation": ""}, {"broker": "elsewhere:1"}])
def test_what_another_run_said_of_its_connection_is_not_believed(
    node: Node, changes: dict[str, str], ivy_of_node: Ivy
) -> None:
    node.write_config(**TENTA)
    wants(node, tenta=RUNNING)
    report = LinkReport(broker="localhost:1", connected=True, since=1.5, invocation="a1")
    report.write()
    assert problems(ivy_of_node) == []
    report.model_copy(update=changes).write()
    assert problems(ivy_of_node) == ["backend: not connected: it has ended without a word"]


def test_status_tells_when_each_procedure_sampled_last(
    node: Node, notify_socket: NotifySocket, ivy_of_node: Ivy
) -> None:
    node.write_config()
    process = node.start("-m", "ivy", "run", "system-checks")
    note = Path(f"{LAST_SAMPLE}system-checks")
    wait_until(note.exists)
    process.terminate()
    process.communicate(timeout=80)  # no further sample while the last one is looked at
    wants(node, system_checks=RUNNING, wind=RUNNING)
    sampling, silent = json.loads(ivy_of_node("status", "--json")[1])["units"]
    assert silent["last_sample_seconds"] is None
    # Whatever the clock says: the time of the file counts from the boot.
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - note.stat().st_mtime
    assert 0 <= sampling["last_sample_seconds"] <= age + 0.05  # which is told in tenths


def test_ages_of_samples_for_people_and_of_an_earlier_boot(node: Node, ivy_of_node: Ivy) -> None:
    node.write_config()
    wants(node, system_checks=RUNNING)
    note = Path(f"{LAST_SAMPLE}system-checks")
    note.parent.mkdir(parents=True)
    note.touch()
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    age = min(1000.0, now)  # this machine may have booted a minute ago
    os.utime(note, (now, now - age))
    assert re.search(r"  last sample \d+ (s|min) ago  sampling every 10 s\n", ivy_of_node("status")[1])
    os.utime(note, (now, now + 100_000))
    assert "last sample" not in ivy_of_node("status")[1]


def test_what_nobody_wants_to_run_is_no_problem(node: Node, ivy_of_node: Ivy) -> None:
    off = [name for name in procedure_names() if name != "system-checks"]  # perhaps none, in a fork
    node.write_config(procedures={name.replace("-", "_"): {"enabled": False} for name in off})
    masked = "printf '%s\\n' LoadState=masked ActiveState=inactive SubState=dead NRestarts=0"
    wants(node, system_checks=RUNNING, wind=masked)
    assert problems(ivy_of_node) == []
    lines = ivy_of_node("status")[1].splitlines()
    assert [line.split(None, 1) for line in lines if " off by " in line or " masked " in line] == [
        ["ivy-wind.service", "masked by the admin"],
        *([f"ivy-{name}.service", "off by config"] for name in off),
    ]


def test_a_damaged_report_of_the_link_is_none(node: Node, data_dir: Path, ivy_of_node: Ivy) -> None:
    node.write_config(**TENTA)
    wants(node, tenta=RUNNING)
    (data_dir / "run-backend").mkdir()
    (data_dir / "run-backend" / "link.json").write_bytes(b"\xff")
    assert problems(ivy_of_node) == ["backend: not connected: it has not started yet"]


def test_start_stop_and_restart(node: Node, ivy_of_node: Ivy) -> None:
    node.write_config()
    node.fake("systemctl", {})
    for command in ("start", "stop", "restart"):
        assert ivy_of_node(command)[0] == 0
    changes = [call for call in node.calls() if " show " not in call]
    start = ["systemctl daemon-reload", "systemctl start -- ivy.target"]
    stop = ["systemctl stop -- ivy.target"]
    assert changes == [*start, *stop, *stop, *start]


def test_a_stop_waits_for_each_service_but_not_for_what_outlives_the_target(node: Node, ivy_of_node: Ivy) -> None:
    """The target does not wait for them; and one that does not end is killed only by whoever waits."""
    answers = {
        "show*Wants*ivy.target": "echo Wants=ivy-wind.service ivy-updater.service",
        "show*PartOf*": 'printf "Id=ivy-wind.service\\nPartOf=ivy.target\\n\\nId=ivy-updater.service\\nPartOf=\\n"',
    }
    node.fake("systemctl", answers)
    assert ivy_of_node("stop")[0] == 0
    stops = [call for call in node.calls() if " stop " in call]
    assert stops == ["systemctl stop -- ivy.target", "systemctl stop -- ivy-wind.service"]


def test_a_restart_that_would_end_in_nothing_stops_nothing(node: Node, ivy_of_node: Ivy) -> None:
    node.fake("systemctl", {})
    status, _, errors = ivy_of_node("restart")
    assert status == 78 and "nothing was stopped" in errors and node.calls() == []


def test_a_refusal_of_systemd_exits_with_1_and_its_reason(node: Node) -> None:
    node.fake("systemctl", {"daemon-reload": "echo 'Access denied' >&2; exit 4"})
    status, _, errors = node.ivy("start")
    assert status == 1 and "Access denied" in errors and "Traceback" not in errors


def test_is_running_when_it_is_not(node: Node) -> None:
    node.fake("systemctl", {})
    assert node.ivy("is-running")[:2] == (1, "ivy is not running\n")


@pytest.mark.parametrize(
    ("arguments", "call"),
    [
        ([], "journalctl --unit=ivy-*.service --utc --output=short-iso"),
        (["tenta"], "journalctl --unit=ivy-tenta.service --utc --output=short-iso"),
        (["system_checks", "-f"], "journalctl --unit=ivy-system-checks.service --utc --output=short-iso --follow"),
        (["ivy-tenta.service"], "journalctl --unit=ivy-tenta.service --utc --output=short-iso"),
        (["-n", "20"], "journalctl --unit=ivy-*.service --utc --output=short-iso --lines=20"),
        (
            ["--since", "2026-11-20T14:30", "tenta", "-f"],
            "journalctl --unit=ivy-tenta.service --utc --output=short-iso --since=@1795185000 --follow",
        ),
    ],
)
def test_logs_are_the_journals(node: Node, arguments: list[str], call: str) -> None:
    node.fake("journalctl", {"*": "exit 5"})
    assert node.ivy("logs", *arguments)[0] == 5
    assert node.calls() == [call]


def test_logs_of_what_nobody_knows_are_refused(node: Node) -> None:
    node.fake("systemctl", {"*": "echo LoadState=not-found"})
    node.fake("journalctl", {"*": ":"})
    status, output, errors = node.ivy("logs", "tentaa")
    assert (status, output) == (2, "")
    assert "there is no service 'tentaa'" in errors and ", ".join(main.service_names()) in errors


@pytest.mark.parametrize(
    ("loaded", "journal"),
    [
        ("echo LoadState=loaded", ":"),
        ("echo LoadState=not-found", "echo hot"),
        ("exit 1", ":"),
        ("exit 1", "echo hot"),
    ],
)
def test_logs_of_what_a_former_release_had_or_systemd_has_are_shown(node: Node, loaded: str, journal: str) -> None:
    node.fake("systemctl", {"*": loaded})
    node.fake("journalctl", {"*": journal})
    assert node.ivy("logs", "oven")[0] == 0
    assert node.calls()[-1] == "journalctl --unit=ivy-oven.service --utc --output=short-iso"


def test_the_config_is_shown_without_its_secrets(node: Node, ivy_of_node: Ivy) -> None:
    node.write_config(backend=BACKEND, updater=UPDATER)
    status, output, _ = ivy_of_node("config", "show")
    assert status == 0 and "hidden" not in output
    shown = json.loads(output)
    assert shown["backend"]["mqtt_connection"]["host"] == "localhost"
    assert shown["backend"]["mqtt_connection"]["password"] == "***"
    assert shown["updater"]["access_token"] == "***"


def test_the_schema_is_that_of_the_config(ivy_of_node: Ivy) -> None:
    status, output, _ = ivy_of_node("config", "schema")
    schema = json.loads(output)
    assert status == 0 and schema.pop("$schema") == "https://json-schema.org/draft/2020-12/schema"
    assert schema == Config.model_json_schema() | {"title": f"Config of ivy {constants.VERSION}"}


def test_the_schema_explains_every_field_to_an_editor() -> None:
    schema = Config.model_json_schema()
    for section in (schema, *schema["$defs"].values()):
        for name, field in section.get("properties", {}).items():
            targets = [choice["$ref"] for choice in [field, *field.get("anyOf", [])] if "$ref" in choice]
            described = [field, *(schema["$defs"][target.rpartition("/")[2]] for target in targets)]
            assert any(each.get("description") for each in described), name


def test_a_valid_config(node: Node, ivy_of_node: Ivy) -> None:
    node.write_config()
    assert ivy_of_node("config", "validate") == (0, "the config is valid\n", "")
    (node.home / "offer.json").write_text((node.release / "config" / "config.json").read_text())
    assert ivy_of_node("config", "validate", "offer.json") == (0, "the config is valid\n", "")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{}", "general: Field required"),
        (b"\xff", "is not UTF-8"),
        (b'{"general": {"config_revision": "hidden"}}', "general.config_revision: "),
    ],
)
def test_an_invalid_config_exits_with_78_and_its_faults(
    node: Node, content: bytes, reason: str, ivy_of_node: Ivy
) -> None:
    (node.home / "offer.json").write_bytes(content)
    status, output, errors = ivy_of_node("config", "validate", "offer.json")
    assert (status, output) == (78, "")
    assert errors.startswith("ivy: offer.json: ") and reason in errors and "hidden" not in errors
    (node.release / "config" / "config.json").write_bytes(content)
    for command in ("validate", "show"):
        status, output, errors = ivy_of_node("config", command)
        assert (status, output) == (78, "")
        assert errors.startswith(f"ivy: {node.release}/config/config.json: ") and "Traceback" not in errors


def test_a_section_that_stands_twice_is_no_valid_config(node: Node, ivy_of_node: Ivy) -> None:
    """Of those in a model the first one counts for pydantic, of others the last. What runs with it goes on."""
    text = json.dumps(CONFIG)[:-1] + ', "system_checks": {"seconds_between_checks": 7}}'
    (node.home / "offer.json").write_text(text)
    status, _, errors = ivy_of_node("config", "validate", "offer.json")
    assert status == 78 and 'offer.json: "system_checks" stands twice' in errors
    (node.release / "config" / "config.json").write_text(text)
    assert ivy_of_node("config", "validate")[0] == 0


def test_a_config_that_does_not_exist_is_no_invalid_one(node: Node) -> None:
    status, _, errors = node.ivy("config", "validate", "missing.json")
    assert status == 1 and "missing.json" in errors and "Traceback" not in errors


def test_the_queue_for_programs_and_people(messages: list[str], data_dir: Path, ivy_of_node: Ivy) -> None:
    agent = MessagingAgent()
    agent.database.execute("INSERT INTO DROPPED VALUES ('log', 5, 0)")
    agent.database.execute("UPDATE QUEUE SET timestamp = timestamp - 100")
    agent.teardown()
    damaged = Path(f"{ACTIVE_QUEUE_FILE}.damaged-1700000000")
    damaged.touch()
    status, output, errors = ivy_of_node("queue", "--json")
    assert (status, errors) == (0, "")
    queue = json.loads(output)
    assert 100 <= queue.pop("oldest_seconds") <= 160
    assert 0 < queue.pop("bytes") <= queue.pop("file_bytes")
    assert queue.pop("oldest_timestamp") > 0
    assert queue == {
        "schema": 1,
        "length": 3,
        "waiting": {"data": 1, "log": 1, "config": 1},
        "dropped": {"data": 0, "log": 5, "config": 0, "archive": 0, "poison": 0},
        **{**AT_EASE, "not_yet_durable": 3},
        "damaged_files": [str(damaged)],
    }
    status, output, _ = ivy_of_node("queue")
    assert status == 0
    assert output.startswith("waiting:  3 messages, the oldest 1") and "dropped:  0 data, 5 log" in output
    assert f"damaged:  {damaged}" in output
    assert "aside:" not in output
    agent = MessagingAgent()
    agent.set_aside({1: "why"}, time.time() + 100)
    agent.teardown()
    assert json.loads(ivy_of_node("queue", "--json")[1])["set_aside"] == 1
    assert "aside:    1 that the broker does not take" in ivy_of_node("queue")[1]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (179, "179 s"), (180, "3 min"), (10_799, "180 min"), (10_800, "3 h"), (259_200, "3 d")],
)
def test_durations_are_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_long_queue_is_not_counted_to_the_last_message(ivy_of_node: Ivy) -> None:
    agent = MessagingAgent()
    body = '{"variant":"data","data":{}}'
    agent.database.transaction(
        lambda connection: connection.executemany(
            "INSERT INTO QUEUE VALUES (?, 1.5, ?)", ((number, body) for number in [*range(10_000), 30_000])
        )
    )
    agent.teardown()
    assert ivy_of_node("queue")[1].startswith("waiting:  at most 30001 messages, ")


def test_a_queue_that_is_not_there(data_dir: Path, ivy_of_node: Ivy) -> None:
    status, output, errors = ivy_of_node("queue")
    assert (status, output) == (1, "") and "nothing was queued yet" in errors
    assert list(data_dir.iterdir()) == []


def test_a_queue_that_cannot_be_read(data_dir: Path, ivy_of_node: Ivy) -> None:
    Path(schema.salvaging_path(ACTIVE_QUEUE_FILE)).touch()
    Path(ACTIVE_QUEUE_FILE).touch()
    with file_lock(schema.lock_path(ACTIVE_QUEUE_FILE), 1):
        status, output, errors = ivy_of_node("queue")
    assert (status, output) == (1, "") and ACTIVE_QUEUE_FILE in errors and "Traceback" not in errors


@pytest.fixture
def ivy_of_a_stranger(
    node: Node, data_dir: Path, ivy_of_node: Ivy, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Ivy]:
    """As `ivy_of_node`, by who may read neither config nor data, and is not root."""
    monkeypatch.chdir(node.home)  # the checkout may be where such a person could not go back to
    for name in (  # else it might not find them any more
        *("archive.messages", "archive.resend", "archive.table", "config", "doctor.command"),
        *("plot.command", "releases", "services", "status"),
    ):
        importlib.import_module(f"ivy.cli.{name}")
    releases, version = Releases(), Version("1.0.0")
    releases.config_file(version).parent.mkdir(parents=True)
    releases.write_config(version, json.dumps(CONFIG))
    releases.activate(version)
    modes = {node.home.parent: 0o711, data_dir: 0, node.release / "config": 0, releases.config_file(version): 0}
    before = {path: path.stat().st_mode for path in modes}
    was = os.geteuid()
    for path, mode in modes.items():
        path.chmod(mode)
    if was == 0:
        os.seteuid(SOMEBODY)
    yield ivy_of_node
    if was == 0:
        os.seteuid(was)
    for path, mode in before.items():
        path.chmod(mode)


@pytest.mark.parametrize(
    "arguments",
    [
        ["queue"],
        ["queue", "--json"],
        ["messages"],
        ["messages", "--since", "-1h"],
        ["messages", "--csv"],
        ["messages", "--follow"],
        ["plot", "temperature"],
        ["resend", "--since", "-1h"],
        ["resend", "--since", "-1h", "--dry-run"],
        ["resend", "--cancel"],
        ["config", "show"],
        ["config", "get", "general"],
        ["config", "validate"],
        ["releases"],
        ["run", "system-checks"],
        ["restart"],
    ],
)
def test_who_may_not_look_is_told_so(node: Node, ivy_of_a_stranger: Ivy, arguments: list[str]) -> None:
    status, output, errors = ivy_of_a_stranger(*arguments)
    assert (status, output) == (1, "")
    assert errors.startswith("ivy: not permitted, try sudo: /")


@pytest.fixture
def wary_systemd(node: Node) -> None:
    """A systemd that does nothing for those who are not root."""
    refuse = "echo 'Failed to do it: Interactive authentication required.' >&2; exit 1"
    node.fake("systemctl", {"show*": ":", "*": refuse})


@pytest.mark.parametrize("arguments", [["start"], ["stop"]])
def test_who_may_not_control_is_told_so(
    node: Node, wary_systemd: None, ivy_of_a_stranger: Ivy, arguments: list[str]
) -> None:
    status, output, errors = ivy_of_a_stranger(*arguments)
    said = "ivy: not permitted, try sudo: Failed to do it: Interactive authentication required.\n"
    assert (status, output, errors) == (1, "", said)


def test_a_doctor_who_may_not_look_sends_for_root(node: Node, wary_systemd: None, ivy_of_a_stranger: Ivy) -> None:
    status, output, errors = ivy_of_a_stranger("doctor", "--json")
    found = json.loads(output)
    assert (status, errors) == (1, "")
    refused = [finding for finding in found if finding["text"].startswith("not permitted, try sudo: /")]
    assert {"config", "access", "queue"} <= {finding["check"] for finding in refused}
    assert {finding["remedy"] for finding in refused} == {"sudo ivy doctor"}
    assert "Permission denied" not in output


def test_a_status_that_is_not_whole_says_so(node: Node, ivy_of_a_stranger: Ivy) -> None:
    status, output, errors = ivy_of_a_stranger("status")
    assert status == 1 and errors == "ivy: not permitted to see all of it, try sudo\n"
    assert "backend:  not known, as no config can be read" in output and "queue:    cannot be read" in output
    assert "none is configured" not in output


@pytest.fixture
def messages(node: Node) -> list[str]:
    """An archive of today with one message of each kind; their bodies as JSON."""
    foreign = {"general": {"config_revision": 7, "software_version": "1.0.0"}}
    bodies: list[DataMessageBody | LogMessageBody | ConfigMessageBody] = [
        DataMessageBody(data={"temperature": 21.5, "state": "ok"}),
        LogMessageBody(level="ERROR", subject="tenta - ERROR - trouble", body="details"),
        ConfigMessageBody.model_validate({"status": "accepted", "config": foreign}),
    ]
    agent = MessagingAgent()
    for body in bodies:
        agent.add_message(body)
    agent.teardown()
    return [body.model_dump_json() for body in bodies]


def test_messages_for_people(messages: list[str], ivy_of_node: Ivy) -> None:
    status, output, errors = ivy_of_node("messages")
    assert (status, errors) == (0, "")
    assert [line[21:] for line in output.splitlines()] == [
        "data   temperature=21.5, state=ok",
        "log    tenta - ERROR - trouble",
        "config revision 7 accepted",
    ]


def test_a_time_that_is_printed_is_one_that_is_understood(
    messages: list[str], ivy_of_node: Ivy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever the node is: one zone, which is named."""
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    try:
        _, output, _ = ivy_of_node("messages")
        first, last = (output.splitlines()[number].split()[0] for number in (0, -1))
        assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", first)
        assert ivy_of_node("messages", "--since", first)[1] == output
        assert ivy_of_node("messages", "--until", first)[1] == ""
        assert messages[-1] and ivy_of_node("messages", "--since", last)[1]
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("text", ["2026-11-20T14:30:00Z", "2026-11-20T14:30:00+0000", "2026-11-20T14:30:00+00:00"])
def test_times_of_the_journal_and_of_tables_are_understood(text: str) -> None:
    """`ivy logs` prints the second by itself or the third, as systemd is older or newer."""
    assert parse_time(text) == parse_time("2026-11-20T14:30")


def test_messages_of_an_unsynchronised_clock_are_marked(monkeypatch: pytest.MonkeyPatch, ivy_of_node: Ivy) -> None:
    monkeypatch.setattr(clock, "is_synchronised", lambda: False)
    agent = MessagingAgent()
    agent.add_message(DataMessageBody(data={"a": 1}))
    agent.teardown()
    assert ivy_of_node("messages")[1].endswith("a=1 (clock not synchronised)\n")
    assert json.loads(ivy_of_node("messages", "--json")[1])["message_body"]["clock_synchronised"] is False


def test_messages_for_programs(messages: list[str], ivy_of_node: Ivy) -> None:
    status, output, _ = ivy_of_node("messages", "--json")
    assert status == 0
    lines = [json.loads(line) for line in output.splitlines()]
    assert [line["message_body"] for line in lines] == [json.loads(text) for text in messages]
    assert all(isinstance(line["timestamp"], float) and line["schema"] == 1 for line in lines)


def test_messages_of_another_day(messages: list[str], ivy_of_node: Ivy) -> None:
    [today] = ARCHIVE_DIR.iterdir()
    lines = today.read_text().splitlines(keepends=True)
    (ARCHIVE_DIR / "2020-02-29.csv").write_text("".join(lines[:2]))
    assert len(ivy_of_node("messages", "--date", "2020-02-29")[1].splitlines()) == 1
    assert ivy_of_node("messages", "--date", "2020-03-01") == (0, "", "")


def test_messages_are_followed_as_they_come(node: Node, messages: list[str]) -> None:
    process = node.start("-m", "ivy", "messages", "--follow", "--json")
    assert process.stdout
    assert [json.loads(process.stdout.readline())["message_body"] for _ in messages] == [
        json.loads(text) for text in messages
    ]
    agent = MessagingAgent()
    agent.add_message(DataMessageBody(data={"new": 1}))
    agent.teardown()
    assert json.loads(process.stdout.readline())["message_body"]["data"] == {"new": 1}


def with_streams(node: Node, change: str, *arguments: str) -> tuple[int, str, str]:
    """As `node.ivy`, with standard streams that a line of Python has changed."""
    code = f"import os, sys; {change}; os.execv(sys.executable, [sys.executable, '-m', 'ivy', *sys.argv[1:]])"
    process = node.start("-c", code, *arguments)
    output, errors = process.communicate(timeout=60)
    return process.returncode, output, errors


@pytest.mark.parametrize("command", ["messages", "--help"])
def test_what_cannot_be_printed_is_an_error_in_one_line(node: Node, messages: list[str], command: str) -> None:
    node.write_config()
    full = "os.dup2(os.open('/dev/full', os.O_WRONLY), 1)"
    assert with_streams(node, full, command) == (1, "", "ivy: [Errno 28] No space left on device\n")


def test_who_may_not_make_a_pass_is_told_to_try_sudo(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise PermissionError(13, "Permission denied", "/var/lib/ivy/automation.lock")

    monkeypatch.setattr(main, "run", fail)
    monkeypatch.setattr(os, "geteuid", lambda: SOMEBODY)
    with pytest.raises(SystemExit, match="2"):
        main.run_service("updater")
    assert capsys.readouterr().err == "ivy run: not permitted, try sudo: /var/lib/ivy/automation.lock\n"


@pytest.mark.parametrize("command", ["queue", "messages", "--help"])
def test_streams_that_are_closed_are_no_error(node: Node, messages: list[str], command: str) -> None:
    node.write_config()
    assert with_streams(node, "os.closerange(0, 3)", command) == (0, "", "")


def test_a_reader_that_had_enough_is_no_error(node: Node, messages: list[str]) -> None:
    process = node.start("-m", "ivy", "messages", "--follow")
    assert process.stdout and process.stderr and process.stdout.readline()
    process.stdout.close()
    agent = MessagingAgent()
    agent.add_message(DataMessageBody(data={"new": 1}))
    agent.teardown()
    process.wait(timeout=80)
    assert process.stderr.read() == ""


@pytest.mark.parametrize("arguments", [["messages"], ["info"], ["config", "schema"], ["--help"], ["status"]])
def test_a_reader_that_is_gone_before_anything_is_said_is_none_either(
    node: Node, messages: list[str], arguments: list[str]
) -> None:
    node.write_config()
    node.fake("systemctl", {})
    node.environment["PYTHONUNBUFFERED"] = ""  # as people have it: what is little is written at the end
    code = f"input(); import sys; sys.argv = ['ivy', *{arguments!r}]; from ivy.cli.main import main; main()"
    process = node.start("-c", code)
    assert process.stdin and process.stdout and process.stderr
    process.stdout.close()
    process.stdin.write("go on\n")
    process.stdin.close()
    with process.stderr as errors:
        assert (process.wait(timeout=60), errors.read()) == (141, "")


RUNNING_BACKEND = {
    "show*Wants*ivy.target": "echo Wants=ivy-tenta.service",
    "show*ActiveState*ivy.target": "echo ActiveState=active",
    "show*ivy-tenta.service": r'printf "Id=ivy-tenta.service\\nActiveState=active\\nInvocationID=a1\\n"',
}


@pytest.mark.parametrize(
    ("connected", "run", "found"), [(True, "a1", "there"), (False, "a1", "away"), (True, "a run before", "away")]
)
def test_whether_the_link_is_away(node: Node, connected: bool, run: str, found: str) -> None:
    node.write_config(backend=BACKEND)
    node.fake("systemctl", RUNNING_BACKEND)
    LinkReport(broker="localhost:1", connected=connected, since=1.5, invocation=run).write()
    assert node.ivy("link") == (0, f"{found} 7200 43200\n", "")


@pytest.mark.parametrize("away", ["backend", "services"])
def test_without_backend_or_services_no_link_is_away(node: Node, away: str) -> None:
    node.write_config(backend=None if away == "backend" else BACKEND, node={"hours_until_reboot": None})
    state = "inactive" if away == "services" else "active"
    node.fake("systemctl", {**RUNNING_BACKEND, "show*ActiveState*ivy.target": f"echo ActiveState={state}"})
    assert node.ivy("link") == (0, "none 7200 never\n", "")


def test_a_node_that_cannot_tell_of_its_link_fails(node: Node) -> None:
    assert node.ivy("link")[:2] == (constants.EXIT_CONFIG_ERROR, "")
    node.write_config(backend=BACKEND)
    node.environment["PATH"] = str(node.programs)
    assert node.ivy("link")[:2] == (1, "")


def test_what_the_machine_did_reaches_the_operator(node: Node) -> None:
    node.write_config(backend=BACKEND)
    process = node.start("-m", "ivy", "tell", "rebooted 2 times")
    process.communicate("because of that", timeout=60)
    assert process.returncode == 0
    agent = MessagingAgent()
    [item] = agent.get_n_latest_messages(10, [])
    agent.teardown()
    assert isinstance(item.message_body, LogMessageBody) and item.message_body.level == "WARNING"
    assert item.message_body.subject == "node - WARNING - rebooted 2 times"
    assert "because of that" in item.message_body.body
