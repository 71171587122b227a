"""What becomes of services that crash, hang, or cannot start, and how their operator hears of it."""

import json
import time

import pytest
from testbed.bed import Node
from testbed.broker import Broker

from tests.node.aftermath import wait_for_end
from tests.support.installed import read_config, unit_property, use_tenta, write_config
from tests.support.recorder import Recorder
from tests.support.sampling import procedure_unit, release_file

FAULTY = """
import ctypes

def run(config, logger):
    ctypes.string_at(0)
"""
SAMPLER = "ivy-dummy-procedure"
FAILURE = "exit status 1 (FAILURE)"
IMPATIENT = "[Service]\nWatchdogSec=2\n"


def test_every_kind_of_crash_reaches_the_operator(node: Node, broker: Broker, recorder: Recorder) -> None:
    use_tenta(node, broker, dummy_procedure={"seconds_between_datapoints": 1})
    pid = unit_property(node, "ivy-dummy-procedure", "MainPID")
    node.run(["systemctl", "kill", "--kill-whom=main", "-s", "KILL", "ivy-dummy-procedure"])
    crash = recorder.wait_for_element("logs", 15, "the crash report", "ivy-dummy-procedure", "signal KILL")
    assert crash["severity"] == "error"
    assert "time 1" in crash["message"]
    node.wait_for(lambda: unit_property(node, "ivy-dummy-procedure", "SubState") == "running", 15, "the restart")
    assert unit_property(node, "ivy-dummy-procedure", "MainPID") != pid
    # A signal that somebody sends would not do: it does not end the first process of a PID namespace.
    node.path(release_file(node, "ivy/procedures/faulty.py")).write_text(FAULTY)
    node.path(release_file(node, "units/ivy-faulty.service")).write_text(procedure_unit("faulty"))
    node.run(["systemctl", "daemon-reload"])
    node.run(["systemctl", "start", "ivy-faulty"], check=False)
    recorder.wait_for_element("logs", 15, "the second report", "ivy-faulty", "SEGV", "time 1; it said last: File")


BROKEN = """
def run(config, logger):
    raise ValueError("no sensor")
"""
REPAIRED = """
from ivy.utils import notify

def run(config, logger):
    while True:
        notify.sleep(1)
"""


@pytest.mark.thorough
def test_a_crash_loop_is_told_three_times_and_when_it_is_over(
    node: Node, broker: Broker, recorder: Recorder
) -> None:
    drop_in = node.path("/etc/systemd/system") / "ivy-report@.timer.d" / "soon.conf"
    drop_in.parent.mkdir()
    drop_in.write_text("[Timer]\nOnActiveSec=\nOnActiveSec=30s\nAccuracySec=1s\n")
    use_tenta(node, broker)
    code = node.path(release_file(node, "ivy/procedures/faulty.py"))
    code.write_text(BROKEN)
    node.path(release_file(node, "units/ivy-faulty.service")).write_text(procedure_unit("faulty"))
    node.run(["systemctl", "daemon-reload"])
    node.run(["systemctl", "start", "ivy-faulty"], check=False)
    for number in ("time 1", "time 2 in", "time 3 in"):
        recorder.wait_for_element("logs", 30, number, f"ivy-faulty.service ended unexpectedly: {FAILURE}, {number}")
    node.wait_for(lambda: int(unit_property(node, "ivy-faulty", "NRestarts")) >= 5, 60, "more crashes")
    node.wait_for(lambda: unit_property(node, "ivy-faulty", "SubState") == "auto-restart", 60, "a pause")
    code.write_text(REPAIRED)
    node.run(["systemctl", "restart", "ivy-faulty"])
    recorder.wait_for_element("logs", 90, "its end", "ivy-faulty.service has not ended for", "it is active")
    told = [found["message"] for found in recorder.elements("logs") if "ended unexpectedly" in found["message"]]
    assert len(told) == 3 and all("it said last: ValueError: no sensor" in message for message in told)
    assert "once an hour" in told[2] and "once an hour" not in told[1]


def test_a_restart_does_not_wait_for_the_report(node: Node) -> None:
    drop_in = node.path("/etc/systemd/system") / "ivy-report@.service.d" / "slow.conf"
    drop_in.parent.mkdir()
    drop_in.write_text("[Service]\nTimeoutStartSec=infinity\nExecStartPre=/bin/sleep infinity\n")
    node.run(["systemctl", "daemon-reload"])
    node.run(["systemctl", "kill", "--kill-whom=main", "-s", "KILL", SAMPLER])
    node.wait_for(lambda: unit_property(node, SAMPLER, "NRestarts") == "1", 30, "the restart")
    report = ["systemctl", "list-units", "--plain", "--no-legend", "--state=activating", f"ivy-report@{SAMPLER}*"]
    assert f"ivy-report@{SAMPLER}.service:signal:killed:KILL:1:0:" in node.run(report).stdout


def test_a_hung_service_is_restarted_by_the_watchdog(node: Node, broker: Broker, recorder: Recorder) -> None:
    drop_in = node.path("/etc/systemd/system") / "ivy-.service.d" / "90-test.conf"
    drop_in.parent.mkdir()
    drop_in.write_text(IMPATIENT)
    use_tenta(node, broker)
    node.run(["systemctl", "kill", "--kill-whom=main", "-s", "STOP", "ivy-dummy-procedure"])
    recorder.wait_for_element("logs", 30, "the watchdog's report", "ivy-dummy-procedure", "watchdog")


def test_a_backend_that_does_not_heed_the_watchdog_is_killed_soon(node: Node, broker: Broker) -> None:
    """And not when the time to drain its queue is over."""
    drop_in = node.path("/etc/systemd/system") / "ivy-tenta.service.d" / "90-test.conf"
    drop_in.parent.mkdir()
    drop_in.write_text(IMPATIENT)
    use_tenta(node, broker, backend={"max_drain_time": 600})
    before = int(unit_property(node, "ivy-tenta", "NRestarts"))  # a start may have come too early for its secrets
    node.run(["systemctl", "kill", "--kill-whom=main", "-s", "STOP", "ivy-tenta"])
    node.wait_for(lambda: int(unit_property(node, "ivy-tenta", "NRestarts")) > before, 30, "the restart")
    assert "ivy-tenta.service: Failed with result 'watchdog'" in node.journal("--unit=ivy-tenta")


def test_a_stop_that_comes_while_a_procedure_starts_is_heeded(ivy_node: Node) -> None:
    """The kernel does not deliver a signal to the first process of a PID namespace that has no handler yet."""
    wait = f"until grep -q python3 /proc/$(systemctl show --value -p MainPID {SAMPLER})/comm; do :; done"
    for _ in range(3):
        ivy_node.run(["systemctl", "stop", SAMPLER])
        ivy_node.run(
            ["sh", "-c", f"systemctl start --no-block {SAMPLER}; {wait} 2>/dev/null; systemctl stop {SAMPLER}"]
        )
        assert unit_property(ivy_node, SAMPLER, "Result") == "success"
    ivy_node.run(["systemctl", "start", SAMPLER])


VALVE_DEVICE = """
import os, shutil, tty
ours, theirs = os.openpty()
tty.setraw(theirs)
shutil.chown(os.ttyname(theirs), "root", "i2c")
os.chmod(os.ttyname(theirs), 0o660)
os.symlink(os.ttyname(theirs), "/dev/valve")
with open("/root/valve", "ab", 0) as heard:
    while True:
        heard.write(os.read(ours, 100))
"""
VALVE = """
import os
import socket
import threading
import time

from ivy.utils import notify

def say(word):
    with open(os.open("/dev/valve", os.O_WRONLY | os.O_NOCTTY), "w") as valve:
        valve.write(word)

def fail():
    raise OSError("pulled out")

def run(config, logger):
    say("open ")
    wish = "/var/lib/ivy/data/wish"
    while True:
        time.sleep(0.05)
        notify.heartbeat()
        if os.path.exists(wish):
            with open(wish) as file:
                wanted = file.read()
            os.unlink(wish)
            if wanted == "hang":
                # Only now: a machine that is busy might not run this loop for as long.
                with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
                    systemd.sendto(b"WATCHDOG_USEC=1000000", os.environ["NOTIFY_SOCKET"])
                time.sleep(1000)
            if wanted == "off":
                raise SystemExit(42)
            threading.Thread(target=fail).start()

def make_safe(config, logger):
    say("shut ")
"""
VALVE_UNIT = """\
ExecStopPost=-/usr/bin/ivy run valve --make-safe
SuccessExitStatus=42
RestartPreventExitStatus=42
ExecStopPost=-+/bin/sh -c 'test "$EXIT_STATUS" != 42 || exec systemctl poweroff'
"""
VALVE_DROP_IN = "[Service]\nPrivateDevices=no\nDeviceAllow=char-ttyUSB rw\nSupplementaryGroups=i2c\n"
RAIN = """
def run(config, logger):
    logger.warning("it has rained")
    raise SystemExit(0)
"""


def test_hardware_is_left_safe_however_a_procedure_ends_and_the_machine_may_be_too(node: Node) -> None:
    node.path("/root/device.py").write_text(VALVE_DEVICE)
    node.run(["systemd-run", "--quiet", "/usr/bin/python3", "/root/device.py"])
    node.path(release_file(node, "ivy/procedures/valve.py")).write_text(VALVE)
    unit = node.path(release_file(node, "units/ivy-valve.service"))
    unit.write_text(procedure_unit("valve") + VALVE_UNIT)
    drop_in = unit.with_name("ivy-valve.service.d") / "50-device.conf"
    drop_in.parent.mkdir()
    drop_in.write_text(VALVE_DROP_IN)
    node.path(release_file(node, "ivy/procedures/rain.py")).write_text(RAIN)
    unit.with_name("ivy-rain.service").write_text(procedure_unit("rain"))
    unit.with_name("ivy-rain.timer").write_text("[Unit]\nPartOf=ivy.target\n\n[Timer]\nOnActiveSec=1s\n")
    (unit.with_name("ivy-rain.service.d")).mkdir()
    unit.with_name("ivy-rain.service.d").joinpath("50-timer.conf").write_text("[Service]\nRestart=on-failure\n")
    node.wait_for(lambda: node.run(["test", "-e", "/dev/valve"], check=False).returncode == 0, 15, "the device")
    node.run(["ivy", "start"])

    def heard(words: str) -> None:
        valve = node.path("/root/valve")
        node.wait_for(lambda: valve.exists() and valve.read_text() == words, 30, f"the valve to be told: {words}")

    def wish(what: str) -> None:
        written = node.path("/var/lib/ivy/data/wish.new")
        written.write_text(what)
        written.rename(written.with_name("wish"))  # whole, as the valve may read it at once

    heard("open ")
    refused = node.run(["ivy", "run", "valve"], check=False)
    assert refused.returncode == 2 and "first systemctl stop ivy-valve" in refused.stderr
    node.run(["systemctl", "kill", "--kill-whom=main", "-s", "KILL", "ivy-valve"])
    heard("open shut open ")
    wish("a thread that dies")
    heard("open shut open shut open ")
    wish("hang")
    heard("open shut open shut open shut open ")
    node.run(["systemctl", "stop", "ivy-valve"])
    heard("open shut open shut open shut open shut ")
    # What has a timer is started by that, and not again.
    node.wait_for(lambda: "it has rained" in node.journal("--unit=ivy-rain"), 30, "what the timer starts")
    node.wait_for(lambda: unit_property(node, "ivy-rain", "ActiveState") == "inactive", 15, "its end")
    assert unit_property(node, "ivy-rain", "NRestarts") == "0"
    node.run(["systemctl", "start", "ivy-valve"])
    wish("off")
    node.wait_for(lambda: not node.running, 60, "the machine to be off")
    assert node.path("/root/valve").read_text().endswith("open shut ")


PUMP = """
from ivy.utils import notify

def run(config, logger):
    while True:
        notify.sleep(1)

def make_safe(config, logger):
    logger.warning("the pump is off")
"""


@pytest.mark.thorough
def test_hardware_is_left_safe_where_the_last_resort_goes_back_to_what_lacks_it(node: Node) -> None:
    wait_for_end(node)  # a pass would remove what nobody needs
    current, before = release_file(node, ""), "/var/lib/ivy/0.9.0"
    node.run(["cp", "--archive", current, before])
    node.path(release_file(node, "ivy/procedures/pump.py")).write_text(PUMP)
    unit = procedure_unit("pump") + "ExecStopPost=-/usr/bin/ivy run pump --make-safe\n"
    node.path(release_file(node, "units/ivy-pump.service")).write_text(unit)
    node.run(["ln", "-s", before.rpartition("/")[2], "/var/lib/ivy/previous"])
    node.run(["systemctl", "daemon-reload"])
    node.run(["systemctl", "start", "ivy-pump"])
    script = node.path("/usr/lib/ivy/units/ivy-rollback")  # it acts when passes have failed again and again
    script.write_text(script.read_text().replace('-ge "$enough" ] || exit 0', "-ge 0 ]"))
    node.run(["systemctl", "start", "ivy-rollback.service"], timeout=200)
    assert node.path("/var/lib/ivy/current", follow=False).readlink().name == "0.9.0"
    assert "the pump is off" in node.journal("--unit=ivy-pump")
    assert unit_property(node, "ivy-pump", "ActiveState") in ("inactive", "failed")


@pytest.mark.thorough
def test_a_restart_by_somebody_else_cancels_no_stop_for_good(node: Node) -> None:
    drop_in = node.path("/etc/systemd/system") / f"{SAMPLER}.service.d" / "slow.conf"
    drop_in.parent.mkdir()
    drop_in.write_text("[Service]\nExecStop=/bin/sleep 4\n")
    node.run(["systemctl", "daemon-reload"])
    is_stopping = f'[ "$(systemctl show --value -p ActiveState {SAMPLER})" = deactivating ]'
    canceled = (
        f"systemctl stop {SAMPLER} & until {is_stopping}; do :; done; systemctl start --no-block {SAMPLER}; wait $!"
    )
    assert "canceled" in node.run(["sh", "-c", canceled], check=False).stderr, "what it is about"
    node.wait_for(lambda: unit_property(node, SAMPLER, "ActiveState") == "active", 30, "the start")
    stop = f"ivy stop & until {is_stopping}; do :; done; systemctl restart --no-block {SAMPLER}; wait $!"
    assert node.run(["sh", "-c", stop], check=False).returncode == 0
    assert unit_property(node, SAMPLER, "ActiveState") == "inactive"


@pytest.mark.thorough
def test_a_procedure_has_its_time_to_end_whatever_systemd_takes_it_for(ivy_node: Node) -> None:
    """Of some starts systemd 257 says that the process is not its child; how many, is up to the machine's load."""
    for _ in range(15):
        ivy_node.run(["systemctl", "restart", SAMPLER])
    said = ivy_node.journal(f"--unit={SAMPLER}")
    print(said.count("which is not our child"))
    assert "SIGKILL" not in said
    assert "ended unexpectedly" not in ivy_node.journal()


@pytest.mark.thorough
def test_a_crashed_backend_reports_itself_after_its_restart(node: Node, broker: Broker, recorder: Recorder) -> None:
    use_tenta(node, broker)
    node.run(["systemctl", "kill", "--kill-whom=main", "-s", "KILL", "ivy-tenta"])
    recorder.wait_for_element("logs", 20, "the report", "ivy-tenta", "signal", "time 1")


def test_a_wrong_config_stops_with_78_says_why_and_does_not_loop(node: Node) -> None:
    """Where none was ever accepted."""
    node.path("/var/lib/ivy/current/config/config.accepted.json").unlink()
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
    began = time.time()
    node.run(["ivy", "stop"], timeout=60)  # it may drain for ten times as long, and need not
    queue = json.loads(node.run(["ivy", "status", "--json"], check=False).stdout)["queue"]
    assert queue["length"] == 0 or queue["oldest_timestamp"] > began  # a procedure may end after the backend
    assert node.run(["ivy", "is-running"], check=False).returncode == 1
