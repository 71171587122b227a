"""What becomes of services that crash, hang, or cannot start, and how their operator hears of it."""

import json
import time

from testbed.bed import Node
from testbed.broker import Broker

from tests.support.installed import read_config, unit_property, use_tenta, write_config
from tests.support.recorder import Recorder

IMPATIENT = "[Service]\nWatchdogSec=2\nTimeoutAbortSec=1\n"


def test_every_kind_of_crash_reaches_the_operator(node: Node, broker: Broker, recorder: Recorder) -> None:
    use_tenta(node, broker, dummy_procedure={"seconds_between_datapoints": 1})
    pid = unit_property(node, "ivy-dummy-procedure", "MainPID")
    node.run(["systemctl", "kill", "--kill-whom=main", "-s", "KILL", "ivy-dummy-procedure"])
    crash = recorder.wait_for_element("logs", 15, "the crash report", "ivy-dummy-procedure", "signal", "killed")
    assert crash["severity"] == "error"
    assert "time 1" in crash["message"]
    node.wait_for(lambda: unit_property(node, "ivy-dummy-procedure", "SubState") == "running", 15, "the restart")
    assert unit_property(node, "ivy-dummy-procedure", "MainPID") != pid
    node.run(["systemctl", "kill", "--kill-whom=main", "-s", "SEGV", "ivy-system-checks"])
    recorder.wait_for_element("logs", 15, "the second report", "ivy-system-checks", "SEGV", "time 1")


def test_a_hung_service_is_restarted_by_the_watchdog(node: Node, broker: Broker, recorder: Recorder) -> None:
    drop_in = node.path("/etc/systemd/system") / "ivy-.service.d" / "90-test.conf"
    drop_in.parent.mkdir()
    drop_in.write_text(IMPATIENT)
    use_tenta(node, broker)
    node.run(["systemctl", "kill", "--kill-whom=main", "-s", "STOP", "ivy-dummy-procedure"])
    recorder.wait_for_element("logs", 30, "the watchdog's report", "ivy-dummy-procedure", "watchdog")


def test_a_crashed_backend_reports_itself_after_its_restart(node: Node, broker: Broker, recorder: Recorder) -> None:
    use_tenta(node, broker)
    node.run(["systemctl", "kill", "--kill-whom=main", "-s", "KILL", "ivy-tenta"])
    recorder.wait_for_element("logs", 20, "the report", "ivy-tenta", "signal", "time 1")


def test_a_wrong_config_stops_with_78_says_why_and_does_not_loop(node: Node) -> None:
    config = read_config(node)
    config["dummy_procedure"]["seconds_between_datapoints"] = 0
    write_config(node, config)
    refused = node.run(["ivy", "restart"], check=False)
    assert refused.returncode == 78
    assert "dummy_procedure.seconds_between_datapoints" in refused.stderr
    assert unit_property(node, "ivy-dummy-procedure", "SubState") == "running", "it should sample on"
    node.run(["systemctl", "restart", "ivy.target"], check=False)
    for service in ("ivy-dummy-procedure", "ivy-system-checks"):
        node.wait_for(lambda s=service: unit_property(node, s, "ActiveState") == "failed", 10, "it to give up")  # type: ignore[misc]
        assert unit_property(node, service, "ExecMainStatus") == "78"
        assert unit_property(node, service, "NRestarts") == "0"
        status = node.run(["systemctl", "status", "--no-pager", service], check=False).stdout
        assert "dummy_procedure.seconds_between_datapoints" in status
    assert node.run(["ivy", "status"], check=False).returncode == 1
    assert node.run(["ivy", "config", "validate"], check=False).returncode == 78
    config["dummy_procedure"]["seconds_between_datapoints"] = 10
    write_config(node, config)
    node.run(["ivy", "start"])
    node.wait_for(lambda: node.run(["ivy", "status"], check=False).returncode == 0, 10, "all to be well")


def test_stop_sends_what_is_queued(node: Node, broker: Broker, recorder: Recorder) -> None:
    use_tenta(node, broker, dummy_procedure={"seconds_between_datapoints": 1})
    recorder.wait_for_element("measurements", 10, "a sample")
    started = time.monotonic()
    node.run(["ivy", "stop"])
    assert time.monotonic() - started < 5
    status = json.loads(node.run(["ivy", "status", "--json"], check=False).stdout)
    assert status["queue"]["length"] <= 1  # a procedure may end after the backend
    assert node.run(["ivy", "is-running"], check=False).returncode == 1
