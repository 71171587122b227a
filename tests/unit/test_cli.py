"""The `ivy` command, as people and scripts call it."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from ivy import constants, main
from ivy.cli.status import duration
from ivy.types.config import Config
from ivy.types.link_report import LinkReport
from ivy.types.messages import ConfigMessageBody, DataMessageBody, LogMessageBody
from ivy.utils.host import clock, mounts
from ivy.utils.messaging_agent import ACTIVE_QUEUE_FILE, LAST_SAMPLE, MessagingAgent
from tests.support.helpers import ARCHIVE_DIR, BACKEND, UPDATER, Node, NotifySocket, wait_until
from tests.unit.archives import Ivy


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


def test_the_help_fits_on_a_screen(node: Node) -> None:
    status, output, _ = node.ivy("--help")
    assert status == 0
    assert len(output.splitlines()) <= 40
    assert max(map(len, output.splitlines())) <= 80


@pytest.mark.parametrize("command", ["report-exit", "install"])
def test_the_help_lists_nothing_internal(node: Node, command: str) -> None:
    assert command not in node.ivy("--help")[1]


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
    ],
)
def test_wrong_use_exits_with_2_and_a_reason(node: Node, arguments: list[str]) -> None:
    node.write_config()
    status, output, errors = node.ivy(*arguments)
    assert (status, output) == (2, "")
    assert errors.strip() and "Traceback" not in errors


def test_an_unknown_service_names_those_that_there_are(node: Node) -> None:
    _, _, errors = node.ivy("run", "surprise")
    assert "no service 'surprise'" in errors and ", ".join(main.service_names()) in errors


def test_the_version(node: Node) -> None:
    assert node.ivy("--version")[1] == f"ivy {constants.VERSION}\n"


def test_info_names_the_places(node: Node, root_dir: Path) -> None:
    node.fake("dpkg-query", {"*": "printf 1:2.3.4"})
    status, output, _ = node.ivy("info")
    assert status == 0
    for text in (str(constants.VERSION), node.release, root_dir, f"{root_dir}/data", "1:2.3.4"):
        assert str(text) in output


def test_status_of_a_well_node(node: Node) -> None:
    node.write_config()
    wants(node, system_checks=RUNNING, updater=unit("inactive", "dead", "on its way", kind="oneshot"))
    MessagingAgent().teardown()
    status, output, errors = node.ivy("status", "--json")
    assert (status, errors) == (0, "")
    service = {"restarts": 2, "well": True, "watched": True, "confined": False, "invocation": "a1"}
    service["last_sample_seconds"] = None
    found = json.loads(output)
    disk = found.pop("disk")
    assert 0 <= disk["used_percent"] <= 100 and disk["free_megabytes"] >= 0
    assert found.pop("clock_synchronised") in (True, False, None)
    assert found["queue"].pop("file_bytes") >= found["queue"].pop("bytes") > 0
    for kind, name in enumerate(["ivy-system-checks.service", "ivy-updater.service"]):
        assert found["units"][kind].pop("name") == name
    assert found == {
        "well": True,
        "problems": [],
        "version": str(constants.VERSION),
        "system_identifier": "node-1",
        "config_revision": 3,
        "units": [
            {**service, "state": "active (running)", "status": "sampling every 10 s"},
            {**service, "state": "done", "status": ""},
        ],
        "queue": {
            "length": 0,
            "waiting": {"data": 0, "log": 0, "config": 0},
            "dropped": {"data": 0, "log": 0, "config": 0},
            "oldest_seconds": None,
            "oldest_timestamp": None,
        },
        "backend": None,
        "lost_at_boot": mounts.lost_places(),
    }


def test_status_for_people(node: Node, ivy_of_node: Ivy) -> None:
    node.write_config()
    wants(node, system_checks=RUNNING)
    MessagingAgent().teardown()
    status, output, _ = ivy_of_node("status")
    assert status == 0
    assert output.splitlines()[0] == f"ivy {constants.VERSION} on node-1, config revision 3"
    assert "sampling every 10 s" in output and output.endswith("all is well\n")


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


def problems(ivy_of_node: Ivy) -> list[str]:
    """What the status complains about; the exit status must agree."""
    status, output, errors = ivy_of_node("status", "--json")
    found: dict[str, Any] = json.loads(output)
    assert (status == 0) is found["well"] is (not found["problems"]) and status in (0, 1), errors
    readable = ivy_of_node("status")
    assert readable[0] == status and all(f"PROBLEM:  {problem}" in readable[1] for problem in found["problems"])
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
    Path(ACTIVE_QUEUE_FILE).mkdir()
    [problem] = problems(ivy_of_node)
    assert problem.startswith(f"queue: {ACTIVE_QUEUE_FILE}: ")


def test_status_with_a_backend(node: Node, data_dir: Path, ivy_of_node: Ivy) -> None:
    node.write_config(backend=BACKEND)
    wants(node, tenta=RUNNING)
    assert problems(ivy_of_node) == ["backend: not connected: it has not started yet"]
    (data_dir / "run").mkdir()
    report = LinkReport(broker="localhost:1", connected=False, since=1.5, reason="refused")
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
    }


@pytest.mark.parametrize("changes", [{"invocation": "of before"}, {"broker": "elsewhere:1"}])
def test_what_another_run_said_of_its_connection_is_not_believed(
    node: Node, changes: dict[str, str], ivy_of_node: Ivy
) -> None:
    node.write_config(backend=BACKEND)
    wants(node, tenta=RUNNING)
    Path(constants.IVY_RUN_DIR).mkdir()
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
    process.communicate(timeout=20)  # no further sample while the last one is looked at
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
    note.parent.mkdir()
    note.touch()
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    os.utime(note, (now, max(0.0, now - 1000)))
    assert "sampling every 10 s (last sample 17 min ago)" in ivy_of_node("status")[1]
    os.utime(note, (now, now + 100_000))
    assert "last sample" not in ivy_of_node("status")[1]


def test_a_damaged_report_of_the_link_is_none(node: Node, data_dir: Path, ivy_of_node: Ivy) -> None:
    node.write_config(backend=BACKEND)
    wants(node, tenta=RUNNING)
    (data_dir / "run").mkdir()
    (data_dir / "run" / "link.json").write_bytes(b"\xff")
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
        ([], "journalctl --unit=ivy-*.service"),
        (["tenta"], "journalctl --unit=ivy-tenta.service"),
        (["system_checks", "-f"], "journalctl --unit=ivy-system-checks.service --follow"),
    ],
)
def test_logs_are_the_journals(node: Node, arguments: list[str], call: str) -> None:
    node.fake("journalctl", {"*": "exit 5"})
    assert node.ivy("logs", *arguments)[0] == 5
    assert node.calls() == [call]


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
        "length": 3,
        "waiting": {"data": 1, "log": 1, "config": 1},
        "dropped": {"data": 0, "log": 5, "config": 0},
        "damaged_files": [str(damaged)],
    }
    status, output, _ = ivy_of_node("queue")
    assert status == 0
    assert output.startswith("waiting:  3 messages, the oldest 1") and "dropped:  0 data, 5 log" in output
    assert f"damaged:  {damaged}" in output


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
    Path(ACTIVE_QUEUE_FILE).mkdir()
    status, output, errors = ivy_of_node("queue")
    assert (status, output) == (1, "") and ACTIVE_QUEUE_FILE in errors and "Traceback" not in errors


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
    assert [line[20:] for line in output.splitlines()] == [
        "data   temperature=21.5, state=ok",
        "log    tenta - ERROR - trouble",
        "config revision 7 accepted",
    ]


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
    assert all(isinstance(line["timestamp"], float) for line in lines)


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


def test_a_reader_that_had_enough_is_no_error(node: Node, messages: list[str]) -> None:
    process = node.start("-m", "ivy", "messages", "--follow")
    assert process.stdout and process.stderr and process.stdout.readline()
    process.stdout.close()
    agent = MessagingAgent()
    agent.add_message(DataMessageBody(data={"new": 1}))
    agent.teardown()
    process.wait(timeout=20)
    assert process.stderr.read() == ""


def test_the_end_of_a_service_reaches_the_operator(node: Node) -> None:
    node.write_config(backend=BACKEND)
    node.fake("systemctl", {"show*": "echo NRestarts=4"})
    assert node.ivy("report-exit", "ivy-tenta.service:watchdog:killed:ABRT")[0] == 0
    agent = MessagingAgent()
    [item] = agent.get_n_latest_messages(10, [])
    agent.teardown()
    assert isinstance(item.message_body, LogMessageBody) and item.message_body.level == "ERROR"
    for part in ("ivy-tenta.service", "watchdog", "killed ABRT", "time 5"):
        assert part in item.message_body.subject


def test_the_end_of_a_service_is_reported_without_systemd_too(node: Node) -> None:
    node.write_config(backend=BACKEND)
    node.environment["PATH"] = str(node.programs)
    status, output, _ = node.ivy("report-exit", "ivy-tenta.service")
    assert status == 0 and "ended unexpectedly: unknown" in output


def test_without_a_config_there_is_nobody_to_report_to(node: Node, data_dir: Path) -> None:
    assert node.ivy("report-exit", "ivy-tenta.service") == (0, "", "")
    assert list(data_dir.iterdir()) == []
