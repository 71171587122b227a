"""An interpreter that ivy cannot run with, files that a power cut left empty, and packages that change under it."""

import itertools
import re

import pytest
from testbed.bed import Node
from testbed.broker import Broker

from tests.node.aftermath import SERVICES, wait_for_end
from tests.support.installed import unit_property, use_tenta
from tests.support.recorder import Recorder
from tests.support.sampling import release_file
from tests.support.update_site import wait_for_sample

OLD = """
mkdir -p /opt/old/bin /opt/old/lib
python=$(readlink /usr/bin/python3)
cp "/usr/bin/$python" /opt/old/bin
ln -s "/usr/lib/$python" /opt/old/lib
cd /var/lib/ivy/current/.venv
sed -i 's|^home = .*|home = /opt/old/bin|' pyvenv.cfg
ln -sfn "/opt/old/bin/$python" bin/python3
"""
REINSTALL = ["apt-get", "install", "--yes", "--reinstall", "python3-psutil"]
FLAG = "/run/ivy-updater/packages-changed"


@pytest.fixture
def sampling(node: Node, broker: Broker) -> Node:
    """A node that samples each second, and whose updater has nothing to do."""
    use_tenta(node, broker, dummy_procedure={"seconds_between_datapoints": 1})
    wait_for_end(node)
    return node


def runs_with(node: Node) -> str:
    """The Python that the command runs with."""
    return node.run(["ivy", "info"]).stdout.split("python:")[1].split()[0]


def starts(node: Node, service: str) -> int:
    """How often systemd has started a service since the boot."""
    command = ["journalctl", "--boot", "--output=cat", f"--unit={service}", "_PID=1"]
    return len(re.findall("^Started ", node.run(command).stdout, re.MULTILINE))


def test_an_interpreter_that_has_none_of_the_libraries(sampling: Node, recorder: Recorder) -> None:
    """As the old one of Debian, which stays behind after an upgrade."""
    node = sampling
    assert runs_with(node).startswith("/var/lib/ivy/")
    node.run(["sh", "-ec", OLD])
    for service in SERVICES:
        node.run(["systemctl", "restart", service])
    wait_for_sample(node, recorder)
    assert runs_with(node) == "/usr/bin/python3"
    assert [unit_property(node, service, "NRestarts") for service in SERVICES] == ["0"] * len(SERVICES)
    said = node.run(["ivy", "status"], check=False)
    assert "Traceback" not in said.stderr and "all is well" in said.stdout
    assert "pydantic" not in node.run(["ivy", "doctor"], check=False).stderr
    node.run(["systemctl", "start", "ivy-updater"])
    wait_for_end(node)
    assert runs_with(node).startswith("/var/lib/ivy/")
    recorder.wait_for_element("logs", 20, "word of the repair", "cannot run it: making it again")
    wait_for_sample(node, recorder)
    for service in SERVICES:
        process = unit_property(node, service, "MainPID")
        assert "/var/lib/ivy/" in node.run(["cat", f"/proc/{process}/cmdline"]).stdout


@pytest.mark.thorough
def test_what_a_power_cut_has_emptied(sampling: Node, recorder: Recorder) -> None:
    node = sampling
    environment = node.path(release_file(node, ".venv"))
    [mark] = environment.glob("lib/python3.*/site-packages/ivy.pth")
    files = [environment / "pyvenv.cfg", mark, environment / "fits"]
    assert all(file.stat().st_size for file in files)
    node.cut()
    for file in files:
        file.write_text("")
    node.boot()
    wait_for_sample(node, recorder)
    node.wait_for(lambda: all(file.exists() and file.stat().st_size for file in files), 60, "the repair")
    wait_for_end(node)
    assert runs_with(node).startswith("/var/lib/ivy/")
    assert not node.run(["systemctl", "list-units", "--failed", "--no-legend"]).stdout


@pytest.mark.thorough
def test_packages_that_are_changed_under_it(sampling: Node, recorder: Recorder) -> None:
    node = sampling
    stopped, *running = ["ivy-system-checks", "ivy-dummy-procedure", "ivy-tenta"]
    node.run(["systemctl", "stop", stopped])
    before = {service: starts(node, service) for service in SERVICES}
    node.run([*REINSTALL, "python3-sdnotify"], timeout=120)
    wait_for_restart(node, running, before)
    wait_for_sample(node, recorder)
    assert {service: starts(node, service) - before[service] for service in SERVICES} == {
        stopped: 0,
        **dict.fromkeys(running, 1),
    }
    assert unit_property(node, stopped, "ActiveState") == "inactive"
    assert node.path(release_file(node, ".venv/fits")).exists()
    print("longest gap", longest_gap(recorder))

    node.run(["systemctl", "stop", "ivy.target"])
    before = {service: starts(node, service) for service in SERVICES}
    node.run(REINSTALL, timeout=120)
    wait_for_restart(node, [], before)
    assert {service: starts(node, service) for service in SERVICES} == before
    assert [unit_property(node, service, "ActiveState") for service in SERVICES] == ["inactive"] * len(SERVICES)


def wait_for_restart(node: Node, services: list[str], before: dict[str, int]) -> None:
    """Wait until services were started again, and what the package's script left is dealt with."""

    def is_over() -> bool:
        flags = [node.path(flag).exists() for flag in (FLAG, f"{FLAG}.taken")]
        return not any(flags) and all(starts(node, service) > before[service] for service in services)

    node.wait_for(is_over, 90, "the restart of the services")
    wait_for_end(node)


def longest_gap(recorder: Recorder) -> float:
    """Between two samples of all that arrived, in seconds."""
    times: list[float] = sorted(element["timestamp"] for element in recorder.elements("measurements"))
    return max(later - earlier for earlier, later in itertools.pairwise(times))
