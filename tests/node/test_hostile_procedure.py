"""A procedure that was taken over, as a parser of a serial line may be: it can spoil samples, and nothing else.

It has the sandbox of all procedures, without a network. One node for all attacks, one after the other.
"""

import hashlib
import itertools
import json
import textwrap
import time
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import pytest
from testbed.bed import Bed, Node, Snapshot

from tests.support.backend_node import PASSWORD
from tests.support.cases import with_few
from tests.support.installed import read_config, unit_property, wait_until_connected
from tests.support.sampling import let_edit, procedure_unit, release_file
from tests.support.update_site import SHORTEST_PROBATION, UpdateSite, with_tenta

PROCEDURE = Path(__file__).parents[1] / "support" / "hostile_procedure.py"
ORDERS = "/run/ivy/orders"
OTHERS = ("ivy-dummy-procedure", "ivy-system-checks", "ivy-tenta")
PLACES = ("/run/ivy", "/run/ivy-backend", "/run/ivy-updater", "/var/lib/ivy/data", "/var/lib/ivy/backend")

_number = itertools.count(1)


@pytest.fixture(scope="module")
def site(
    bed: Bed, installed: Snapshot, tmp_path_factory: pytest.TempPathFactory
) -> Generator[UpdateSite, None, None]:
    node = bed.node("n1", base=installed)
    node.boot()
    with closing(with_tenta(bed, node, tmp_path_factory.mktemp("hostile"))) as site:
        node.copy_in(PROCEDURE, release_file(node, "ivy/procedures/hostile_procedure.py"))
        node.path(release_file(node, "units/ivy-hostile-procedure.service")).write_text(
            procedure_unit("hostile-procedure")
        )
        site.connect(updater=SHORTEST_PROBATION)
        wait_for_pass(node)
        node.run(["systemctl", "reset-failed", *OTHERS])  # a start may have come too early for its secrets
        yield site
    node.destroy()


@pytest.fixture(autouse=True)
def unharmed(site: UpdateSite) -> Generator[None, None, None]:
    """Whatever an attack does: the others go on, and the operator can reach the node."""
    yield
    for kept in site.node.path(ORDERS).glob("kept-*"):
        kept.unlink()
    site.node.run(["systemctl", "restart", "ivy-hostile-procedure"])
    assert {unit: unit_property(site.node, unit, "NRestarts") for unit in OTHERS} == dict.fromkeys(OTHERS, "0")
    wait_until_connected(site.node)
    site.wait_for_samples()


def order(node: Node, code: str, *, kept: bool = False) -> str:
    """Let the procedure run code, at each start if it is `kept`. Returns what it left in `found`."""
    directory, name = node.path(ORDERS), f"{'kept-' if kept else ''}{next(_number):03}"
    node.wait_for(directory.is_dir, 20, "the hostile procedure to run")
    beside = directory / f"{name}.written"
    beside.write_text(textwrap.dedent(code))
    beside.chmod(0o644)
    beside.rename(directory / f"{name}.py")
    answer = directory / f"{name}.found"
    node.wait_for(answer.exists, 20, "the hostile procedure's answer")
    return answer.read_text()


def wait_for_pass(node: Node) -> None:
    node.wait_for(lambda: unit_property(node, "ivy-updater", "SubState") == "dead", 60, "the pass to end")


def offer_what_is_rejected(site: UpdateSite) -> None:
    """At once: a version that there is not would be waited for."""
    site.offer(dummy_procedure={"seconds_between_datapoints": "often"})


def make_pass(node: Node) -> None:
    """Start a pass of the updater, and wait for its end."""
    node.run(["systemctl", "start", "ivy-updater"])
    wait_for_pass(node)


def test_an_offer_that_it_plants_is_none(site: UpdateSite) -> None:
    wait_for_pass(site.node)  # which takes the password out of the file
    config = read_config(site.node)
    offer = {**config, "general": {**config["general"], "config_revision": 1000}}
    offer["dummy_procedure"] = {"seconds_between_datapoints": 3}
    found = order(
        site.node,
        f"""
        import json, os, pathlib
        found = []
        for place in {PLACES}:
            try:
                path = pathlib.Path(place, "state.json")
                beside = path.with_suffix(".new")
                beside.write_text(json.dumps({{"pending_configs": [json.loads({json.dumps(offer)!r})]}}))
                beside.rename(path)
                found.append(str(path))
            except OSError:
                pass
            for name in ("pending-config", "packages-changed"):
                try:
                    pathlib.Path(place, name).touch()
                except OSError:
                    pass
        """,
    )
    assert "/var/lib/ivy/data/state.json" in found
    make_pass(site.node)
    assert read_config(site.node) == config
    assert "revision 1000" not in site.node.journal("--unit=ivy-updater")
    site.accepts(dummy_procedure={"seconds_between_datapoints": 2})


OF_THE_BACKEND = """subprocess.run(
    ["systemctl", "show", "--value", "--property=InvocationID", "ivy-tenta"], capture_output=True, text=True
).stdout.strip()"""


@pytest.mark.parametrize("invocation", with_few(["''", OF_THE_BACKEND]), ids=["of no run", "of the backend's run"])
def test_no_link_report_of_its_own_passes_a_probation(site: UpdateSite, invocation: str) -> None:
    order(
        site.node,
        f"""
        import json, os, pathlib, subprocess, threading, time
        report = {{"broker": "{site.platform.address}:{site.platform.port}", "connected": True, "since": 1.0}}
        def write():
            while True:
                for place in {PLACES}:
                    try:
                        beside = pathlib.Path(place, ".report")
                        beside.write_text(json.dumps({{**report, "invocation": {invocation}}}))
                        beside.rename(pathlib.Path(place, "link.json"))
                    except OSError:
                        pass
                time.sleep(0.05)
        threading.Thread(target=write, daemon=True).start()
        """,
        kept=True,
    )
    config = site.config()
    config["backend"]["mqtt_connection"]["password"] = "wrong"
    said = site.apply(config, 1)
    assert "no connection" in said or "has said nothing of its connection" in said


@pytest.mark.thorough
def test_no_python_of_others_runs_what_it_plants(site: UpdateSite) -> None:
    planted = order(
        site.node,
        """
        import os, pathlib, pwd, site
        code = (
            "import os, pathlib\\n"
            "cgroup = pathlib.Path('/proc/self/cgroup').read_text().strip().split('/')[-1]\\n"
            "pathlib.Path('/run/ivy/orders', f'ran-in-{cgroup}-{os.geteuid()}').touch()\\n"
        )
        found = []
        homes = {os.environ.get("HOME", "/nowhere"), pwd.getpwuid(os.geteuid()).pw_dir, "/var/lib/ivy/data"}
        for home in homes:
            packages = pathlib.Path(home, ".local/lib", f"python{site.sys.version_info.major}."
                f"{site.sys.version_info.minor}", "site-packages")
            try:
                packages.mkdir(parents=True, exist_ok=True)
                (packages / "usercustomize.py").write_text(code)
                (packages / "evil.pth").write_text("import usercustomize\\n")
                found.append(str(packages))
            except OSError:
                pass
        """,
    )
    assert "/var/lib/ivy/data/.local" in planted
    for unit in OTHERS:
        site.node.run(["systemctl", "restart", unit])
    make_pass(site.node)
    for command in (["ivy", "status"], ["runuser", "-u", "ivy", "--", "ivy", "status"]):
        site.node.run(command, check=False)
    wait_until_connected(site.node)
    assert [path.name for path in site.node.path(ORDERS).glob("ran-in-*")] == []


def test_its_signals_reach_nobody(site: UpdateSite) -> None:
    order(
        site.node,
        """
        import contextlib, os, signal
        for number in [-1, *range(2, 1 << 17)]:
            if number != os.getpid():
                with contextlib.suppress(OSError):
                    os.kill(number, signal.SIGKILL)
        """,
    )


@pytest.mark.thorough
def test_no_flag_of_its_own_restarts_anything(site: UpdateSite) -> None:
    before = {unit: unit_property(site.node, unit, "InvocationID") for unit in OTHERS}
    order(
        site.node,
        f"""
        import contextlib, os, pathlib
        for place in {PLACES}:
            for name in ("restart-system-checks", "restart-dummy-procedure"):
                with contextlib.suppress(OSError):
                    pathlib.Path(place, name).touch()
            with contextlib.suppress(OSError):
                os.mkdir(os.path.join(place, "packages-changed"))
        """,
    )
    make_pass(site.node)
    assert {unit: unit_property(site.node, unit, "InvocationID") for unit in OTHERS} == before


@pytest.mark.thorough
def test_no_directory_of_others_can_be_exchanged(site: UpdateSite) -> None:
    found = order(
        site.node,
        """
        import os
        found = []
        for place in ("/run/ivy-backend", "/run/ivy-updater", "/var/lib/ivy/backend", "/var/lib/ivy/data"):
            for target in (place + ".old", "/run/ivy/taken", "/var/lib/ivy/data/taken"):
                try:
                    os.rename(place, target)
                    found.append(place)
                except OSError:
                    pass
        """,
    )
    assert found == "[]"


@pytest.mark.thorough
def test_what_the_backend_writes_for_others_follows_no_link(site: UpdateSite) -> None:
    """It writes its report where version 1.0 looks for it, too, and appends to the archive."""
    offer_what_is_rejected(site)  # one that is known, and so a file that is there
    node = site.node
    node.wait_for(node.path("/var/lib/ivy/backend/state.json").exists, 30, "the file of offers")
    wait_for_pass(node)
    order(
        node,
        """
        import os
        for name in ("/run/ivy/link.json", "/run/ivy/pending-config", "/var/lib/ivy/data/messages.lock"):
            if os.path.lexists(name):
                os.unlink(name)
            os.symlink("/var/lib/ivy/backend/state.json", name)
        """,
    )
    known = node.path("/var/lib/ivy/backend/state.json").read_text()
    node.run(["systemctl", "restart", "ivy-tenta"])
    wait_until_connected(node)
    order(node, "import os; os.unlink('/var/lib/ivy/data/messages.lock')")
    assert node.path("/var/lib/ivy/backend/state.json").read_text() == known


def test_what_else_it_could_try(site: UpdateSite) -> None:
    found = order(
        site.node,
        """
        import glob, os, subprocess
        found = []
        for command in (
            ["ivy", "stop"],
            ["ivy", "restart"],
            ["systemctl", "restart", "ivy-system-checks"],
            ["systemctl", "set-environment", "PYTHONPATH=/var/lib/ivy/data"],
            ["busctl", "call", "org.freedesktop.systemd1", "/org/freedesktop/systemd1",
             "org.freedesktop.systemd1.Manager", "StopUnit", "ss", "ivy-tenta.service", "replace"],
            ["systemd-run", "--wait", "touch", "/run/ivy/orders/as-root"],
        ):
            if subprocess.run(command, capture_output=True).returncode == 0:
                found.append(command)
        for path in glob.glob("/proc/[0-9]*/cmdline"):
            if b"ivy-tenta" in (text := open(path, "rb").read()) or b"run\\0tenta" in text:
                found.append(path)
        for path in ("/var/lib/ivy/backend/state.json", "/var/lib/ivy/updates.json"):
            try:
                found.append(open(path).read())
            except OSError:
                pass
        """,
    )
    assert found == "[]"


def test_it_reads_no_secret_of_others(site: UpdateSite) -> None:
    token = "a-token-of-the-node"
    before = site.config(updater={"access_token": token})
    before["backend"]["mqtt_connection"]["password"] = PASSWORD
    site.apply(before)
    found = order(
        site.node,
        f"""
        import os
        found = []
        for top in ("/etc/ivy", "/run", "/var/lib/ivy", "/tmp", "/proc"):
            for directory, _, names in os.walk(top):
                for name in names:
                    if name.endswith((".json", ".key", ".previous", "environ", ".new")):
                        try:
                            with open(os.path.join(directory, name), "rb") as file:
                                content = file.read(1 << 20)
                        except OSError:
                            continue
                        if {PASSWORD.encode()!r} in content or {token.encode()!r} in content:
                            found.append(os.path.join(directory, name))
        """,
    )
    orders = [path for path in json.loads(found.replace("'", '"')) if not path.startswith(ORDERS)]
    assert orders == []
    shown = read_config(site.node)
    assert (shown["updater"]["access_token"], shown["backend"]["mqtt_connection"]["password"]) == ("***", "***")
    # What the platform has without secrets is taken as it is.
    site.accepts(dummy_procedure={"seconds_between_datapoints": 2})
    wrong = {**shown["backend"]["mqtt_connection"], "host": "evil.example"}
    assert "backend.mqtt_connection.host is another one" in site.rejects(backend={"mqtt_connection": wrong})


def test_each_service_runs_as_its_user(site: UpdateSite) -> None:
    users = {unit: unit_property(site.node, unit, "User") for unit in OTHERS}
    assert users == {"ivy-dummy-procedure": "ivy", "ivy-system-checks": "ivy", "ivy-tenta": "ivy-backend"}
    assert unit_property(site.node, "ivy-dummy-procedure", "PrivatePIDs") == "yes"
    modes = {"/var/lib/ivy/data": 0o2770, "/var/lib/ivy/data/messages": 0o2770, "/var/lib/ivy/backend": 0o750}
    for place, mode in {**modes, "/run/ivy-backend": 0o2755}.items():
        assert site.node.path(place).stat().st_mode & 0o7777 == mode, place


def test_no_sample_of_another_is_forged(site: UpdateSite) -> None:
    """Neither its time, nor that there was one; nor that another is not to be disturbed."""
    changed = order(
        site.node,
        f"""
        import contextlib, glob, os
        found = []
        for place in {(*PLACES, "/run/ivy-samples", "/run/ivy-busy")}:
            for path in sorted(glob.glob(f"{{place}}/*")):
                if "last-sample-" in path or "ivy-samples" in path or "ivy-busy" in path:
                    with contextlib.suppress(OSError):
                        os.utime(path, (1e9, 1e9))
                        found.append(path)
                    with contextlib.suppress(OSError):
                        os.rename(path, path + ".old")
                        found.append(path)
        """,
    )
    assert changed == "['/run/ivy-samples/ivy-hostile-procedure', '/run/ivy-busy/ivy-hostile-procedure']"
    found = json.loads(site.node.run(["ivy", "status", "--json"], check=False).stdout)["units"]
    ages = {unit["name"]: unit["last_sample_seconds"] for unit in found}
    assert ages["ivy-system-checks.service"] is not None and ages["ivy-dummy-procedure.service"] is not None


NO_TIME = "[Service]\nEnvironment=PATH=/etc/no-time:/usr/bin:/bin\n"


@pytest.fixture
def without_time(site: UpdateSite) -> Generator[None, None, None]:
    """The dummy procedure asks for the clock, and hears that nobody has set it."""
    asked = site.node.path("/etc/no-time/timedatectl")
    asked.parent.mkdir()
    asked.write_text("#!/bin/sh\necho no\n")
    asked.chmod(0o755)
    site.node.run(["systemctl", "edit", "--runtime", "--stdin", "ivy-dummy-procedure.service"], input=NO_TIME)
    yield
    site.node.run(["systemctl", "revert", "ivy-dummy-procedure.service"])
    site.node.run(["systemctl", "restart", "ivy-dummy-procedure"])


@pytest.mark.usefixtures("without_time")
@pytest.mark.thorough
def test_no_note_of_its_own_takes_the_mark_of_the_clock_from_samples(site: UpdateSite) -> None:
    """By which an operator knows whether to believe their times."""
    node = site.node
    node.run(["rm", "-f", *(f"{place}/clock-synchronised" for place in PLACES)])  # of those who may say so
    written = order(
        node,
        f"""
        import contextlib, pathlib
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        found = []
        for place in {(*PLACES, "/run/ivy-samples", "/run/systemd/timesync", "/run")}:
            with contextlib.suppress(OSError):
                pathlib.Path(place, "clock-synchronised").write_text(boot)
                found.append(place)
        """,
    )
    assert written == "['/run/ivy', '/var/lib/ivy/data']"
    node.run(["systemctl", "restart", "ivy-dummy-procedure"])
    since = f"{time.time():.3f}"
    sampled = ["ivy", "messages", "--key", "random_walk_position", "--since", since]
    first = node.wait_for(lambda: node.run(sampled).stdout, 30, "a sample").splitlines()[-1]
    assert first.endswith("(clock not synchronised)")
    order(node, "import os; os.unlink('/run/ivy/clock-synchronised')")
    order(node, "import os; os.unlink('/var/lib/ivy/data/clock-synchronised')")


@pytest.mark.parametrize("target", with_few(["/var/lib/ivy/backend/state.json", "/etc/shadow", "/dev/zero"]))
def test_no_file_beside_the_queue_leads_elsewhere(site: UpdateSite, target: str) -> None:
    node = site.node
    if not node.path("/var/lib/ivy/backend/state.json").exists():
        offer_what_is_rejected(site)
    node.wait_for(node.path("/var/lib/ivy/backend/state.json").exists, 30, "the file of offers")
    shadow = node.path("/etc/shadow").read_bytes()
    order(
        node,
        f"""
        import os
        for suffix in ("-wal", "-shm", "-journal", ".lock", ".salvaging"):
            path = "/var/lib/ivy/data/active-message-queue.sqlite3" + suffix
            if os.path.lexists(path):
                os.unlink(path)
            os.symlink("{target}", path)
        """,
    )
    for unit in OTHERS:
        node.run(["systemctl", "restart", unit])
    for command in (["ivy", "status"], ["ivy", "queue"], ["ivy", "doctor"]):
        said = node.run(["timeout", "--signal=KILL", "90", *command], check=False, timeout=120)
        assert said.returncode != 137 and "root:" not in said.stdout + said.stderr
    make_pass(node)
    assert node.path("/etc/shadow").read_bytes() == shadow
    assert "pending_configs" in json.loads(node.path("/var/lib/ivy/backend/state.json").read_text())


@pytest.mark.thorough
def test_no_module_in_roots_directory_is_run(site: UpdateSite) -> None:
    order(
        site.node,
        """
        import pathlib
        place = pathlib.Path("/var/lib/ivy/data")
        code = "import os, pathlib; pathlib.Path('/run/ivy/orders', f'ran-{os.geteuid()}').touch()\\n"
        for name in ("json", "sqlite3", "pydantic", "argparse", "ivy", "sitecustomize", "usercustomize"):
            (place / f"{name}.py").write_text(code)
        (place / "ivy.pth").write_text(code)
        (place / "pyvenv.cfg").write_text("home = /var/lib/ivy/data\\n")
        """,
    )
    for command in ("ivy status", "ivy doctor", "ivy config show", "ivy releases", "ivy messages"):
        site.node.run(["sh", "-c", f"cd /var/lib/ivy/data && {command}"], check=False, timeout=120)
    assert [path.name for path in site.node.path(ORDERS).glob("ran-*")] == []
    order(
        site.node,
        """
        import pathlib
        for path in pathlib.Path("/var/lib/ivy/data").glob("*.py"):
            path.unlink()
        """,
    )


def test_the_doctor_says_who_may_what(site: UpdateSite) -> None:
    said = site.node.run(["ivy", "doctor"], check=False, timeout=120).stdout
    users = next(line for line in said.splitlines() if " users " in line)
    assert "ivy (groups: ivy): dummy-procedure, hostile-procedure, system-checks" in users
    assert "ivy-backend (groups: ivy-backend, ivy): tenta" in users
    access = next(line for line in said.splitlines() if " access " in line)
    assert access.startswith("ok") and "their groups have no other member" in access


def test_no_procedure_reaches_systemd_by_its_bus(site: UpdateSite) -> None:
    """By the socket itself, without a program of systemd's that would ask politely."""
    found = order(
        site.node,
        """
        import ctypes, os, socket, subprocess
        found = []
        for path in ("/run/systemd/private", "/run/systemd/io.systemd.Manager", "/run/systemd/fsck.progress"):
            try:
                with socket.socket(socket.AF_UNIX) as manager:
                    manager.connect(path)
                    found.append(path)
            except OSError:
                pass
        for argv in (
            ["busctl", "call", "org.freedesktop.systemd1", "/org/freedesktop/systemd1",
             "org.freedesktop.systemd1.Manager", "KillUnit", "ssi", "ivy-tenta.service", "all", "9"],
            ["busctl", "call", "org.freedesktop.systemd1", "/org/freedesktop/systemd1",
             "org.freedesktop.systemd1.Manager", "Reload"],
            ["loginctl", "terminate-user", "root"],
            ["timedatectl", "set-time", "2001-01-01"],
            ["hostnamectl", "set-hostname", "owned"],
            ["systemd-run", "--user", "true"],
            ["pkexec", "true"], ["sudo", "-n", "true"], ["su", "-c", "true"],
        ):
            try:
                if subprocess.run(argv, capture_output=True, timeout=10).returncode == 0:
                    found.append(argv)
            except (OSError, subprocess.TimeoutExpired):
                pass
        for name in ("environ", "maps", "mem", "root", "cwd", "fd"):
            for number in (1, 2, os.getppid()):
                if number not in (0, os.getpid(), 1):
                    try:
                        os.listdir(f"/proc/{number}/{name}") if name in ("root", "cwd", "fd") else open(
                            f"/proc/{number}/{name}", "rb").read(1)
                        # What is in its own name space is a thread of its own, or what it has started.
                        if os.readlink(f"/proc/{number}/ns/pid") != os.readlink("/proc/self/ns/pid"):
                            found.append((number, name))
                    except OSError:
                        pass
        """,
    )
    assert found == "[]"


OF_ITS_OWN = "wet-and-secret"
GAUGE = """
import hashlib

from ivy.types.messages import DataMessageBody
from ivy.utils import notify
from ivy.utils.messaging_agent import MessagingAgent


def run(config, logger):
    own, of_others = config.rain_gauge.password, config.backend.mqtt_connection.password
    seen = {"own": hashlib.sha256(own.encode()).hexdigest(), "of_others": of_others}
    MessagingAgent().add_message(DataMessageBody(data=seen))
    while True:
        notify.sleep(60)
"""
OWN_SECRETS = """
SetCredential=secrets.json:{}
LoadCredential=secrets.json:/var/lib/ivy/current/config/secrets-rain-gauge.json
"""  # as the README says
SECTION = """
class RainGaugeConfig(_Section):
    password: secrets.Secret = ""


class Config(_Section):
"""


def _add_rain_gauge(node: Node) -> None:
    """A procedure with a secret in its section, as a release brings it."""
    node.path(release_file(node, "ivy/procedures/rain_gauge.py")).write_text(GAUGE)
    unit = node.path(release_file(node, "units/ivy-rain-gauge.service"))
    unit.write_text(procedure_unit("rain-gauge") + OWN_SECRETS)
    schema = let_edit(node) / "ivy" / "types" / "config.py"
    field = "    system_checks: SystemChecksConfig\n"
    text = schema.read_text().replace("class Config(_Section):\n", SECTION)
    schema.write_text(text.replace(field, f"{field}    rain_gauge: RainGaugeConfig = RainGaugeConfig()\n"))
    node.run(["ivy", "restart"])  # whoever runs on knows the schema that it has loaded


# The last one: the release has a procedure more after it.
@pytest.mark.thorough
def test_a_procedure_reads_the_secrets_of_its_own_section_and_no_other_one_does(site: UpdateSite) -> None:
    node = site.node
    _add_rain_gauge(node)
    site.apply(site.config(rain_gauge={"password": OF_ITS_OWN}))
    seen = {"own": hashlib.sha256(OF_ITS_OWN.encode()).hexdigest(), "of_others": "***"}

    def has_seen() -> bool:
        said = node.run(["ivy", "messages", "--key", "own", "of_others", "--json"]).stdout
        return any(json.loads(line)["message_body"]["data"] == seen for line in said.splitlines())

    node.wait_for(has_seen, 30, "what it has read")
    found = order(
        node,
        f"""
        import os
        from ivy.types.config import Config
        found = [Config.load().rain_gauge.password]
        for top in ("/etc/ivy", "/run", "/var/lib/ivy", "/tmp", "/proc"):
            for directory, _, names in os.walk(top):
                if top == "/proc" or directory == {ORDERS!r}:
                    names = {{"environ"}}.intersection(names)
                for path in [os.path.join(directory, name) for name in names]:
                    try:
                        if os.path.isfile(path) and {OF_ITS_OWN.encode()!r} in open(path, "rb").read(1 << 20):
                            found.append(path)
                    except OSError:
                        pass
        """,
    )
    assert found == "['***']"
    shown = node.run(["ivy", "config", "show"]).stdout
    assert OF_ITS_OWN not in shown and json.loads(shown)["rain_gauge"] == {"password": "***"}
