"""`ivy.prom`: every line is one that Prometheus understands, and says what is."""

import json
import math
import os
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
from ivy.types.config import MetricsConfig
from ivy.types.link_report import LinkReport
from ivy.types.messages import DataMessageBody
from ivy.utils.host import clock, mounts, units
from ivy.utils.host.commands import CommandError
from ivy.utils.logger import Logger
from ivy.utils.messaging_agent import LAST_SAMPLE, MessagingAgent
from tests.support.helpers import BACKEND, CONFIG, Node, make_config, wait_until
from tests.support.validators.prometheus import Parsed, parse


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
    monkeypatch.setattr(units, "wanted_by_target", lambda **_: list(blocks))
    monkeypatch.setattr(units, "show_each", lambda names, *properties, timeout: blocks)
    return blocks


Written = Callable[..., Parsed]


@pytest.fixture
def written(agent: MessagingAgent, make_logger: type[Logger], tmp_path: Path) -> Written:
    """Writes the file for a config, some of whose sections are given. Returns what stands there."""

    def write(**sections: Any) -> Parsed:
        config = make_config(**sections)
        MetricsFile(config, str(tmp_path), make_logger(config), agent).write()
        return parse((tmp_path / "ivy.prom").read_text())

    return write


def test_a_node_without_backend(systemd: dict[str, Mapping[str, str]], written: Written) -> None:
    metrics = written()
    assert metrics.pop(("ivy_disk_free_bytes", ())) > 0 < metrics.pop(("ivy_queue_bytes", ()))
    assert metrics.pop(("ivy_disk_lost_at_boot", ())) == bool(mounts.lost_places())
    labels = (("version", str(constants.VERSION)), ("config_revision", "3"), ("system_identifier", "node-1"))
    assert metrics == {
        ("ivy_info", labels): 1,
        ("ivy_queue_messages", ()): 0,
        ("ivy_queue_oldest_age_seconds", ()): 0,
        ("ivy_dropped_messages_total", (("kind", "data"),)): 0,
        ("ivy_dropped_messages_total", (("kind", "log"),)): 0,
        ("ivy_dropped_messages_total", (("kind", "config"),)): 0,
        ("ivy_unit_restarts_total", (("unit", "ivy-system-checks.service"),)): 0,
        ("ivy_unit_restarts_total", (("unit", "ivy-tenta.service"),)): 3,
        ("ivy_clock_synchronised", ()): 1,
    }


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
        ({"connected": True}, {}, 1),
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
    Path(constants.IVY_RUN_DIR).mkdir()
    systemd["ivy-tenta.service"] = {**systemd["ivy-tenta.service"], **state}
    if report is not None:
        LinkReport(broker="localhost:1", since=1.5, last_acknowledged=1.7e9, **report).write()
    metrics = written(backend=BACKEND)
    assert metrics["ivy_backend_connected", ()] == connected
    acknowledged = metrics.get(("ivy_backend_last_acknowledged_timestamp_seconds", ()))
    assert acknowledged == (None if report is None else 1.7e9)


def test_the_last_sample_of_each_procedure(systemd: dict[str, Mapping[str, str]], written: Written) -> None:
    note = Path(f"{LAST_SAMPLE}system-checks")
    note.parent.mkdir()
    note.touch()
    now, boot = time.time(), time.clock_gettime(time.CLOCK_BOOTTIME)
    os.utime(note, (boot, max(0.0, boot - 100)))
    metrics = written()
    [(labels, value)] = [(key[1], value) for key, value in metrics.items() if "last_sample" in key[0]]
    assert labels == (("unit", "ivy-system-checks.service"),)
    assert value == pytest.approx(now - min(100, boot), abs=30)


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

    monkeypatch.setattr(units, "wanted_by_target", fail)
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
    metrics = MetricsFile(config, "/nowhere", Logger(config, "test"), agent)
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
    Path(constants.IVY_RUN_DIR).mkdir()
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    reporter = LinkReporter("b:1", make_logger(make_config()))
    reporter.changed(True)
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
    inode = Path(constants.IVY_RUN_DIR, "link.json").stat().st_ino
    now += 60
    reporter.renew()
    assert Path(constants.IVY_RUN_DIR, "link.json").stat().st_ino == inode, "there is no news"
    assert json.loads(Path(constants.IVY_RUN_DIR, "link.json").read_text())["broker"] == "b:1"
