"""`ivy.prom`: every line is one that Prometheus understands, and says what is."""

import json
import math
import os
import re
import sqlite3
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivy import constants
from ivy.backend.link_reporter import LinkReporter
from ivy.procedures._metrics import Metric, MetricsFile, render
from ivy.types import accepted_config
from ivy.types.config import MetricsConfig
from ivy.types.link_report import LinkReport
from ivy.types.messages import DataMessageBody
from ivy.utils.host import clock, hold, mounts, units
from ivy.utils.host.commands import CommandError
from ivy.utils.logger import Logger
from ivy.utils.messaging_agent import MessagingAgent
from ivy.utils.storage.last_sample import LAST_SAMPLE
from ivy.utils.updates import decisions
from tests.support.helpers import BACKEND, CONFIG, Node, make_config, wait_until
from tests.support.validators.prometheus import Parsed, parse
from tests.unit.offers import offer
from tests.unit.procedures import say_busy


@given(st.text(min_size=1), st.text(), st.floats() | st.integers(-(2**53), 2**53))
def test_whatever_a_label_or_value_is_can_be_read_back(help_text: str, label: str, value: float) -> None:
    help_text = f"Help {help_text!r}"
    text = render([Metric("ivy_x", "gauge", help_text, [({"a": label, "b": "\n"}, value)])])
    [(key, found)] = parse(text).items()
    assert key == ("ivy_x", (("a", label), ("b", "\n")))
    assert found == value or (math.isnan(found) and math.isnan(value))


def test_a_metric_without_samples_is_left_out() -> None:
    assert parse(render([Metric("ivy_x", "gauge", "Help.", [])])) == {}


@pytest.fixture
def systemd(monkeypatch: pytest.MonkeyPatch) -> dict[str, Mapping[str, str]]:
    """What systemd says of the units that the target wants; may be changed."""
    blocks: dict[str, Mapping[str, str]] = {
        "ivy-system-checks.service": {"NRestarts": "0", "ActiveState": "active", "InvocationID": "a"},
        "ivy-tenta.service": {"NRestarts": "3", "ActiveState": "active", "InvocationID": "b"},
    }
    monkeypatch.setattr(units, "target", lambda **_: (list(blocks), "enabled"))
    monkeypatch.setattr(units, "show_each", lambda names, *properties, timeout: blocks)
    return blocks


Written = Callable[..., Parsed]


@pytest.fixture
def written(
    agent: MessagingAgent, make_logger: type[Logger], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Written:
    """Writes the file for a config, some of whose sections are given. Returns what stands there."""

    def write(**sections: Any) -> Parsed:
        config = make_config(**sections)
        monkeypatch.setattr(accepted_config, "load", lambda: (config, None))
        MetricsFile(str(tmp_path), make_logger(config), agent).write()
        return parse((tmp_path / "ivy.prom").read_text())

    return write


def test_a_node_without_backend(systemd: dict[str, Mapping[str, str]], written: Written) -> None:
    metrics = written()
    assert metrics.pop(("ivy_disk_free_bytes", ())) > 0 < metrics.pop(("ivy_queue_bytes", ()))
    assert metrics.pop(("ivy_disk_free_files", ()), 1) > 0  # where that has a limit
    assert metrics.pop(("ivy_disk_lost_at_boot", ())) == bool(mounts.lost_places())
    labels = (("version", str(constants.VERSION)), ("config_revision", "3"), ("system_identifier", "node-1"))
    assert metrics == {
        ("ivy_info", labels): 1,
        ("ivy_queue_messages", ()): 0,
        ("ivy_queue_oldest_age_seconds", ()): 0,
        ("ivy_dropped_messages_total", (("kind", "data"),)): 0,
        ("ivy_dropped_messages_total", (("kind", "log"),)): 0,
        ("ivy_dropped_messages_total", (("kind", "config"),)): 0,
        ("ivy_dropped_messages_total", (("kind", "archive"),)): 0,
        ("ivy_dropped_messages_total", (("kind", "poison"),)): 0,
        ("ivy_queue_set_aside", ()): 0,
        ("ivy_queue_spare_messages", ()): 0,
        ("ivy_queue_trouble_seconds", ()): 0,
        ("ivy_queue_salvaging", ()): 0,
        ("ivy_unit_restarts_total", (("unit", "ivy-system-checks.service"),)): 0,
        ("ivy_unit_restarts_total", (("unit", "ivy-tenta.service"),)): 3,
        ("ivy_unit_well", (("unit", "ivy-system-checks.service"),)): 1,
        ("ivy_unit_well", (("unit", "ivy-tenta.service"),)): 1,
        ("ivy_procedure_silent", (("unit", "ivy-system-checks.service"),)): 0,
        ("ivy_problems", ()): 1 if mounts.lost_places() else 0,
        ("ivy_unit_busy_seconds", (("unit", "ivy-system-checks.service"),)): 0,
        ("ivy_unit_busy_seconds", (("unit", "ivy-tenta.service"),)): 0,
        ("ivy_update_waits", ()): 0,
        ("ivy_hold_seconds", ()): 0,
        ("ivy_clock_synchronised", ()): 1,
    }


def test_who_is_not_to_be_disturbed(systemd: dict[str, Mapping[str, str]], written: Written) -> None:
    say_busy("system-checks", 600)
    busy = {key[1]: value for key, value in written().items() if key[0] == "ivy_unit_busy_seconds"}
    assert 0 < busy.pop((("unit", "ivy-system-checks.service"),)) <= 600 and set(busy.values()) == {0}


def test_a_node_that_somebody_holds(systemd: dict[str, Mapping[str, str]], written: Written) -> None:
    hold.write("paint", 600, stop=False)
    assert 0 < written()["ivy_hold_seconds", ()] <= 600


def test_queue_and_drops(systemd: dict[str, Mapping[str, str]], agent: MessagingAgent, written: Written) -> None:
    agent.add_message(DataMessageBody(data={"a": 1}))
    agent.database.execute("UPDATE QUEUE SET timestamp = timestamp - 100")
    agent.database.execute("INSERT INTO DROPPED (variant, count) VALUES ('log', 12)")
    metrics = written()
    assert metrics["ivy_queue_messages", ()] == 1
    assert 100 <= metrics["ivy_queue_oldest_age_seconds", ()] <= 160
    assert metrics["ivy_dropped_messages_total", (("kind", "log"),)] == 12


@pytest.mark.parametrize(
    ("report", "state", "connected"),
    [
        (None, {}, 0),
        ({"connected": False}, {}, 0),
        ({"connected": True}, {}, 0),
        ({"connected": True, "invocation": "b"}, {}, 1),
        ({"connected": True, "invocation": "killed"}, {}, 0),
        ({"connected": True, "invocation": "b"}, {"ActiveState": "failed"}, 0),
    ],
)
def test_a_backend(
    systemd: dict[str, Mapping[str, str]],
    written: Written,
    report: dict[str, Any] | None,
    state: dict[str, str],
    connected: int,
) -> None:
    systemd["ivy-tenta.service"] = {**systemd["ivy-tenta.service"], **state}
    if report is not None:
        LinkReport(broker="localhost:1", since=1.5, last_acknowledged=1.7e9, **report).write()
    metrics = written(backend=BACKEND)
    assert metrics["ivy_backend_connected", ()] == connected
    acknowledged = metrics.get(("ivy_backend_last_acknowledged_timestamp_seconds", ()))
    assert acknowledged == (None if report is None else 1.7e9)


def test_a_broker_that_has_nobody_to_give_messages_to(written: Written) -> None:
    report = LinkReport(
        broker="localhost:1", since=1.5, connected=True, invocation="b", troubles=["t: nobody"], nobody_listens=True
    )
    report.write()
    metrics = written(backend=BACKEND)
    assert metrics["ivy_backend_nobody_listens", ()] == 1
    assert metrics["ivy_backend_troubles", ()] == 1


def test_the_last_sample_of_each_procedure(systemd: dict[str, Mapping[str, str]], written: Written) -> None:
    note = Path(f"{LAST_SAMPLE}system-checks")
    note.parent.mkdir(parents=True, exist_ok=True)
    note.touch()
    now, boot = time.time(), time.clock_gettime(time.CLOCK_BOOTTIME)
    os.utime(note, (boot, max(0.0, boot - 100)))
    metrics = written()
    [(labels, value)] = [(key[1], value) for key, value in metrics.items() if "last_sample" in key[0]]
    assert labels == (("unit", "ivy-system-checks.service"),)
    assert value == pytest.approx(now - min(100, boot), abs=30)


CHECKS = (("unit", "ivy-system-checks.service"),)
LIMITED = {"system_checks": {"max_silent_seconds": 1}}


def sampled_long_ago() -> None:
    note = Path(f"{LAST_SAMPLE}system-checks")
    note.parent.mkdir(parents=True, exist_ok=True)
    note.touch()
    long_ago = time.clock_gettime(time.CLOCK_BOOTTIME) - 5
    os.utime(note, (long_ago, long_ago))


def test_a_silent_procedure(systemd: dict[str, Mapping[str, str]], written: Written) -> None:
    sampled_long_ago()
    metrics = written(procedures=LIMITED)
    assert metrics["ivy_procedure_silent", CHECKS] == metrics["ivy_procedure_max_silent_seconds", CHECKS] == 1
    assert metrics["ivy_problems", ()] >= 1
    masked = {"NRestarts": "0", "LoadState": "masked", "ActiveState": "inactive"}
    systemd["ivy-system-checks.service"] = masked
    metrics = written(procedures=LIMITED)
    assert not {name for name, _ in metrics} & {"ivy_procedure_silent", "ivy_procedure_max_silent_seconds"}
    assert metrics["ivy_unit_well", CHECKS] == 1


@pytest.mark.parametrize(("failure", "accepted"), [(None, 1), ("it crashed", 0)])
def test_how_the_last_offer_was_decided(written: Written, failure: str | None, accepted: int) -> None:
    assert not any(name.startswith(("ivy_update_accepted", "ivy_update_decided")) for name, _ in written())
    Path(constants.UPDATER_RUN_DIR).mkdir()
    decisions.record(offer(3), "too old")
    decisions.record(offer(4), failure)
    metrics = written()
    assert metrics["ivy_update_accepted", ()] == accepted
    assert metrics["ivy_update_decided_timestamp_seconds", ()] == pytest.approx(time.time(), abs=60)


@pytest.mark.parametrize("note", ["", "{", "[]", "7", '{"accepted": true}', '{"accepted": 1, "time": "x"}'])
def test_a_note_of_a_decision_that_says_nothing(written: Written, note: str) -> None:
    Path(constants.UPDATER_RUN_DIR).mkdir()
    Path(constants.UPDATER_RUN_DIR, "last-decision").write_text(note)
    assert not any(name.startswith(("ivy_update_accepted", "ivy_update_decided")) for name, _ in written())


def test_reboots_are_counted_where_a_machine_makes_some(written: Written) -> None:
    assert not any(name == "ivy_reboots_total" for name, _ in written())
    Path(constants.MACHINE_DIR).mkdir()
    assert written()["ivy_reboots_total", (("reason", "link"),)] == 0
    Path(constants.MACHINE_DIR, "all-reboots").write_text("link\ncheck\nlink\n")
    metrics = written()
    assert metrics["ivy_reboots_total", (("reason", "link"),)] == 2
    assert metrics["ivy_reboots_total", (("reason", "check"),)] == 1


PROMETHEUS = Path(__file__).parents[2] / "packaging" / "prometheus"
OF_NODE_EXPORTER = {"node_textfile_mtime_seconds"}
USED = re.compile(r"\b(?:ivy|node)_[a-z_]+\b")


def used_by_dashboard() -> set[str]:
    dashboard = json.loads((PROMETHEUS / "ivy.dashboard.json").read_text())
    panels = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    variables = [variable["query"] for variable in dashboard["templating"]["list"]]
    assert len(panels) > 10 and len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    return set(USED.findall("\n".join([*panels, *variables])))


def alerts() -> list[str]:
    return re.findall(r"- alert: (\w+)", (PROMETHEUS / "ivy.rules.yml").read_text())


def test_all_metrics_that_alerts_and_dashboard_use_exist(
    systemd: dict[str, Mapping[str, str]], written: Written
) -> None:
    LinkReport(broker="localhost:1", since=1.5, last_acknowledged=1.7e9, connected=True, invocation="b").write()
    sampled_long_ago()
    Path(constants.UPDATER_RUN_DIR).mkdir()
    decisions.record(offer(4), None)
    Path(constants.MACHINE_DIR).mkdir()
    metrics = {name for name, _ in written(backend=BACKEND, procedures=LIMITED)} | {"ivy_disk_free_files"}
    in_rules = set(USED.findall("\n".join(re.findall(r"expr: (.*)", (PROMETHEUS / "ivy.rules.yml").read_text()))))
    assert len(in_rules) >= len(alerts()) and in_rules - metrics == OF_NODE_EXPORTER
    assert used_by_dashboard() - metrics == set()


def test_each_alert_is_seen_to_fire() -> None:
    tested = re.findall(r"- alertname: (\w+)\n.*\n +exp_alerts:\n", (PROMETHEUS / "ivy.rules.test.yml").read_text())
    assert set(tested) == set(alerts()) and len(set(alerts())) == len(alerts())


def test_a_queue_that_cannot_be_read_keeps_nothing_else_from_being_told(
    systemd: dict[str, Mapping[str, str]], agent: MessagingAgent, written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_work: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(agent.database, "run", fail)
    names = {name for name, _ in written()}
    assert "ivy_disk_free_bytes" in names and not any(name.startswith("ivy_queue") for name in names)


def test_what_is_not_known_is_left_out(monkeypatch: pytest.MonkeyPatch, written: Written) -> None:
    def fail(**_: float) -> list[str]:
        raise CommandError("no systemd here")

    monkeypatch.setattr(units, "target", fail)
    monkeypatch.setattr(clock, "is_synchronised", lambda: None)
    metrics = written(backend=BACKEND)
    assert not {name for name, _ in metrics} & {"ivy_unit_restarts_total", "ivy_clock_synchronised"}
    assert ("ivy_queue_messages", ()) in metrics


def test_the_file_is_for_all_to_read_and_replaced_in_one_step(
    systemd: dict[str, Mapping[str, str]], written: Written, tmp_path: Path
) -> None:
    written()
    first = (tmp_path / "ivy.prom").stat()
    written()
    assert (tmp_path / "ivy.prom").stat().st_ino != first.st_ino and first.st_mode & 0o777 == 0o644
    assert [path.name for path in tmp_path.glob("*prom*")] == ["ivy.prom"]


def test_a_directory_that_is_not_there_is_reported_once(
    systemd: dict[str, Mapping[str, str]], agent: MessagingAgent, capfd: pytest.CaptureFixture[str]
) -> None:
    config = make_config(logging_verbosity={**CONFIG["logging_verbosity"], "message_sending": "DEBUG"})
    metrics = MetricsFile("/nowhere", Logger(config, "test"), agent)
    metrics.write()
    metrics.write()
    output, errors = capfd.readouterr()
    assert (output + errors).count("/nowhere/ivy.prom could not be written") == 1
    assert agent.get_queue_length() == 0, "nothing for the operator at the other end"


@pytest.mark.parametrize("directory", ["relative", "", 5])
def test_the_directory_is_a_path_from_the_root(directory: Any) -> None:
    with pytest.raises(ValueError):
        MetricsConfig(textfile_directory=directory)


def test_system_checks_write_it(node: Node, tmp_path: Path) -> None:
    node.write_config(metrics={"textfile_directory": str(tmp_path)})
    node.start("-m", "ivy", "run", "system-checks")
    wait_until((tmp_path / "ivy.prom").exists)
    assert ("ivy_queue_messages", ()) in parse((tmp_path / "ivy.prom").read_text())


def test_acknowledgements_are_published_once_a_minute(
    make_logger: type[Logger], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    reporter = LinkReporter("b:1", make_logger(make_config()))
    reporter.changed(True)
    reporter.acknowledged()  # the first one is told at once
    before = time.time()
    reporter.acknowledged()
    reporter.renew()
    report = LinkReport.load()
    assert report and (report.last_acknowledged or 0) >= before
    for _ in range(100):
        reporter.acknowledged()
        reporter.renew()
    assert LinkReport.load() == report
    now += 60
    reporter.renew()
    renewed = LinkReport.load()
    assert renewed and (renewed.last_acknowledged or 0) > (report.last_acknowledged or 0)
    assert renewed.model_copy(update={"last_acknowledged": report.last_acknowledged}) == report
    inode = Path(constants.BACKEND_RUN_DIR, "link.json").stat().st_ino
    now += 60
    reporter.renew()
    assert Path(constants.BACKEND_RUN_DIR, "link.json").stat().st_ino == inode, "there is no news"
    assert json.loads(Path(constants.BACKEND_RUN_DIR, "link.json").read_text())["broker"] == "b:1"
