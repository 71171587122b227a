"""Whoever is not root holds root up: by locks, pipes, links, floods. Each is an attack that succeeded once.

One node for all of them, one after the other: whatever one does to it, the next ones see.
"""

import contextlib
import json
import re
import subprocess
import time
from collections.abc import Callable, Generator, Sequence

import pytest
from testbed.bed import Bed, Node, Snapshot

from ivy import constants
from tests.support.cases import with_few
from tests.support.installed import read_config, unit_property, write_config
from tests.support.sampling import let_edit
from tests.support.update_site import REPOSITORY, SHORTEST_PROBATION

DATA = "/var/lib/ivy/data"
QUEUE = f"{DATA}/active-message-queue.sqlite3"
SECONDS_OF_PATIENCE = 60
"""For what takes a second: this machine may be slow, but nobody waits for ever."""

STUBBORN = """
import os, signal, socket, time

from ivy.utils import notify


def run(config, logger):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    while True:
        notify.heartbeat()
        channel.sendto(b"EXTEND_TIMEOUT_USEC=600000000", os.environ["NOTIFY_SOCKET"])
        time.sleep(0.2)
"""
NEWER_PACKAGE = """
rm -rf /root/newer
dpkg-deb --raw-extract /root/ivy_*.deb /root/newer
sed -i 's/^Version: .*/&+newer/' /root/newer/DEBIAN/control
dpkg-deb --root-owner-group --build /root/newer /root/newer.deb
"""
HOLD = "import fcntl, sys, time; f = open(sys.argv[1]); fcntl.flock(f, fcntl.LOCK_EX); time.sleep(600)"
VIEW = """
import sqlite3, sys
queue = sqlite3.connect(sys.argv[1])
queue.executescript("DROP TABLE IF EXISTS QUEUE; DROP VIEW IF EXISTS QUEUE; CREATE VIEW QUEUE AS"
    " WITH RECURSIVE c(x) AS (VALUES (1) UNION ALL SELECT x + 1 FROM c)"
    " SELECT x AS internal_id, x AS timestamp, x AS message_body FROM c")
"""


@pytest.fixture(scope="module")
def node(bed: Bed, installed: Snapshot) -> Generator[Node, None, None]:
    node = bed.node("held", base=installed)
    updater = {"repository": REPOSITORY, "provider": "github", "provider_host": "github.com", **SHORTEST_PROBATION}
    changes = {"updater": updater, "dummy_procedure": {"seconds_between_datapoints": 1}}
    write_config(node, {**read_config(node), **changes})
    node.boot()
    node.wait_for(lambda: _is_at_rest(node), 60, "the pass at boot")
    yield node
    node.destroy()


@pytest.fixture(autouse=True)
def well_again(node: Node) -> Generator[None, None, None]:
    """Whatever a test does: the node samples on, and a pass comes to its end."""
    yield
    _as_ivy(node, f"cd {DATA} && rm -rf *.pipe state.lock", check=False)
    _make_a_pass(node)
    since = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
    # Waits for it, some seconds at a time: to ask three times takes longer than all else here.
    first = f"timeout 10 ivy messages --kind data --since {since} --json --follow | head --lines=1"
    node.wait_for(lambda: node.run(["sh", "-c", first]).stdout, SECONDS_OF_PATIENCE, "new samples")


def _is_at_rest(node: Node) -> bool:
    return unit_property(node, "ivy-updater", "ActiveState") == "inactive"


def _make_a_pass(node: Node) -> None:
    node.run(["systemctl", "stop", "ivy-updater.service"])
    node.run(["systemctl", "reset-failed", "ivy-updater.service"], check=False)
    before = unit_property(node, "ivy-updater", "InvocationID")
    node.run(["systemctl", "start", "--no-block", "ivy-updater.service"])

    def is_over() -> bool:
        return unit_property(node, "ivy-updater", "InvocationID") != before and _is_at_rest(node)

    node.wait_for(is_over, 2 * SECONDS_OF_PATIENCE, "a pass to succeed")


@contextlib.contextmanager
def _held(node: Node, lock: str, *become: str) -> Generator[str, None, None]:
    """A lock is held, by a process that is somebody else by the command `become`. Yields its number."""
    hold = [*become, "/usr/bin/python3", "-c", HOLD, lock]
    node.run(["systemd-run", "--quiet", "--collect", "--unit=holder", *hold])
    try:
        holder = node.wait_for(lambda: unit_property(node, "holder", "MainPID").lstrip("0"), 20, "the holder")
        is_free = ["flock", "--nonblock", lock, "true"]
        node.wait_for(lambda: node.run(is_free, check=False).returncode != 0, 20, "the lock to be held")
        yield holder
    finally:
        node.run(["systemctl", "stop", "holder.service"])


def _as_ivy(node: Node, *commands: str, check: bool = True, user: str = "ivy") -> str:
    become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"]
    return node.run([*become, "sh", "-ec", "\n".join(commands)], check=check).stdout


def _as_backend(node: Node, *commands: str) -> str:
    return _as_ivy(node, *commands, user="ivy-backend")


def _ends(node: Node, command: Sequence[str], **how: object) -> "subprocess.CompletedProcess[str]":
    """A command of root's that comes to its end."""
    return node.run(["timeout", "--signal=KILL", str(SECONDS_OF_PATIENCE), *command], check=False, timeout=120)


def test_no_local_user_can_hold_the_lock_of_the_installation(node: Node) -> None:
    node.run(["useradd", "--create-home", "mallory"])
    mallory = ["setpriv", "--reuid=mallory", "--regid=mallory", "--clear-groups"]
    for lock in ("/var/lib/ivy/automation.lock",):
        done = node.run([*mallory, "flock", "--nonblock", lock, "true"], check=False)
        assert done.returncode != 0, f"{lock} can be held by anybody"


@pytest.mark.thorough
def test_who_waits_for_the_installation_says_for_whom(node: Node) -> None:
    config = json.dumps(read_config(node))
    node.path("/root/same.json").write_text(config)
    with _held(node, "/var/lib/ivy/automation.lock") as holder:
        node.run(["systemctl", "start", "--no-block", "ivy-updater.service"])

        def names_it() -> bool:
            return f"process {holder} (/usr/bin/python3" in unit_property(node, "ivy-updater", "StatusText")

        node.wait_for(names_it, 30, "the pass to say whom it waits for")


COMMANDS = [["ivy", "status"], ["ivy", "queue"], ["ivy", "messages"], ["ivy", "doctor"], ["ivy", "releases"]]


def put(kind: str, path: str, instead_of: str = "") -> str:
    """Shell that makes a pipe or a directory of what is there, though a service may make that again meanwhile."""
    return f"until rm -rf {instead_of or path}; {kind} {path}; do :; done"


ATTACKS = {
    "a pipe as the queue": put("mkfifo", QUEUE, instead_of=f"{QUEUE}*"),
    "a pipe as its log": put("mkfifo", f"{QUEUE}-wal"),
    "a pipe as its journal": put("mkfifo", f"{QUEUE}-journal"),
    "a pipe that is being salvaged": put("mkfifo", f"{QUEUE}.salvaging"),
    "a pipe as its lock": put("mkfifo", f"{QUEUE}.lock"),
    "a directory as the queue": put("mkdir", QUEUE, instead_of=f"{QUEUE}*"),
    "a pipe as the state": put("mkfifo", f"{DATA}/state.json"),
    "a pipe as its lock, too": put("mkfifo", f"{DATA}/state.lock"),
    "a pipe as a day": f"cd {DATA}/messages; mkfifo 2020-01-01.csv; " + put("mkfifo", "$(date -u +%F).csv"),
    "a pipe as the reserve": put("mkfifo", f"{DATA}/reserve"),
    "pipes as notes": f"{put('mkfifo', '/run/ivy/announced')}; {put('mkfifo', '/run/ivy/link.json')}",
    "a flag of 1.0 that is a directory": "mkdir -m 000 /run/ivy/pending-config",
}
ATTACKS_OF_BACKENDS = {
    "a pipe as what it knows": put("mkfifo", "/var/lib/ivy/backend/state.json"),
    "a pipe as the lock of that": put("mkfifo", "/var/lib/ivy/backend/state.lock"),
    "a pipe as its report": put("mkfifo", "/run/ivy-backend/link.json"),
    "a flag that is a directory": "mkdir -m 000 /run/ivy-backend/pending-config",
}


@pytest.mark.parametrize("attack", with_few([*ATTACKS, *ATTACKS_OF_BACKENDS]))
def test_neither_commands_nor_a_pass_wait_for_what_others_own(node: Node, attack: str) -> None:
    if attack in ATTACKS:
        _as_ivy(node, ATTACKS[attack])
    else:
        _as_backend(node, ATTACKS_OF_BACKENDS[attack])
    for command in COMMANDS:
        done = _ends(node, command)
        assert done.returncode not in (124, 137), f"{command} waits"
        assert "Traceback" not in done.stderr
    _make_a_pass(node)


@pytest.mark.thorough
def test_a_view_in_place_of_the_queue_is_set_aside(node: Node) -> None:
    _as_ivy(node, f"cat > {DATA}/attack.pipe <<'EOF'\n{VIEW}\nEOF", f"/usr/bin/python3 {DATA}/attack.pipe {QUEUE}")
    assert _ends(node, ["ivy", "status"]).returncode not in (124, 137)
    _make_a_pass(node)
    assert "active-message-queue.sqlite3.damaged-" in node.run(["ivy", "queue"]).stdout


def test_a_state_that_is_locked_for_ever_stops_no_pass(node: Node) -> None:
    before = int(unit_property(node, "ivy-updater", "NRestarts"))
    lock = "/var/lib/ivy/backend/state.lock"
    _as_backend(node, f"touch {lock}")
    with _held(node, lock, "setpriv", "--reuid=ivy-backend", "--regid=ivy-backend", "--clear-groups"):
        _as_backend(node, "touch /run/ivy-backend/pending-config")
        node.run(["systemctl", "start", "--no-block", "ivy-updater.service"])
        restarted = f"unit ivy-updater {before}"
        node.wait_for(
            lambda: int(unit_property(node, "ivy-updater", "NRestarts")) > before, SECONDS_OF_PATIENCE, restarted
        )
        assert unit_property(node, "ivy-updater", "Result") == "success", "a trial would be undone for that"


@pytest.mark.thorough
def test_a_day_that_is_a_link_is_not_printed(node: Node) -> None:
    _as_ivy(
        node,
        f"ln -sf /etc/shadow {DATA}/messages/2020-01-02.csv",
        f"ln -sf /etc/passwd {DATA}/messages/2020-01-03.csv",
    )
    for date in ("2020-01-02", "2020-01-03"):
        done = _ends(node, ["ivy", "messages", "--date", date])
        assert "root:" not in done.stdout + done.stderr


def test_a_day_of_a_hundred_gigabytes_takes_no_memory(node: Node) -> None:
    _as_ivy(node, f"truncate --size=100G {DATA}/messages/2020-01-04.csv")
    limited = ["sh", "-c", "ulimit -v 600000; exec ivy messages --date 2020-01-04"]
    done = _ends(node, limited)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    _as_ivy(node, f"rm {DATA}/messages/2020-01-04.csv")


SILENT_BROKER = """
import socket
connections = []
with socket.create_server(("127.0.0.1", 1884)) as server:
    while True:
        connections.append(server.accept())
"""


@pytest.fixture
def silent_broker(node: Node) -> Generator[None, None, None]:
    """One that is in the config, and does not answer; no service asks it."""
    config = read_config(node)
    there = {"host": "127.0.0.1", "port": 1884, "client_id": "n", "username": "n", "password": "n"}
    node.run(["systemd-run", "--quiet", "--collect", "--unit=silent", "/usr/bin/python3", "-c", SILENT_BROKER])
    knock = ["bash", "-c", "</dev/tcp/127.0.0.1/1884"]
    node.wait_for(lambda: node.run(knock, check=False).returncode == 0, 20, "the broker to listen")
    write_config(node, {**config, "backend": {"provider": "tenta", "mqtt_connection": there}})
    yield
    write_config(node, config)
    node.run(["systemctl", "stop", "silent.service"])


@pytest.mark.usefixtures("silent_broker")
@pytest.mark.parametrize("command", with_few([["messages", "--follow"], ["doctor"]]), ids=" ".join)
def test_what_only_reads_has_no_rights_of_root(node: Node, command: list[str]) -> None:
    """Seen while it follows the archive, or waits for a broker."""
    node.run(["systemd-run", "--quiet", "--collect", "--unit=reader", "/usr/bin/ivy", *command])
    try:
        pid = node.wait_for(lambda: unit_property(node, "reader", "MainPID").lstrip("0"), 20, "the reader")

        def said(name: str) -> list[str]:
            status = node.run(["cat", f"/proc/{pid}/status"]).stdout
            return next(line for line in status.splitlines() if line.startswith(f"{name}:")).split()[1:]

        uid, gid = (node.run(["id", option, "ivy"]).stdout.strip() for option in ("-u", "-g"))
        node.wait_for(lambda: said("Uid") == [uid] * 4, 20, "it to give up its rights")
        assert said("Gid") == [gid] * 4 and set(said("Groups")) <= {gid}
        assert int(said("CapEff")[0], 16) == int(said("CapPrm")[0], 16) == 0
    finally:
        node.run(["systemctl", "stop", "reader.service"])


@pytest.fixture
def stubborn(node: Node) -> Generator[str, None, None]:
    """A procedure that ignores SIGTERM, and asks systemd for ever more time."""
    release = let_edit(node) / "ivy" / "procedures"
    (release / "dummy_procedure.py").rename(release / "dummy_procedure.kept")
    (release / "dummy_procedure.py").write_text(STUBBORN)
    node.run(["systemctl", "restart", "ivy-dummy-procedure.service"])
    yield "ivy-dummy-procedure"
    if (release / "dummy_procedure.kept").exists():  # else another release has replaced it
        let_edit(node)
        (release / "dummy_procedure.kept").rename(release / "dummy_procedure.py")
    node.run(["systemctl", "kill", "--signal=KILL", "ivy-dummy-procedure.service"], check=False)


def _by_the_pass(node: Node) -> None:
    config = read_config(node)
    config["general"]["config_revision"] += 1
    config["archive"] = {"max_days": 99}  # which concerns all services
    node.path("/root/other.json").write_text(json.dumps(config))
    node.run(["ivy", "config", "apply", "/root/other.json"], check=False, timeout=200)


def _by_a_flag(node: Node) -> None:
    _ask_for_a_restart(node)


def _ask_for_a_restart(node: Node) -> None:
    """As a backend does for its operator."""
    _as_backend(node, "touch /run/ivy-backend/restart-dummy-procedure")


def _by_the_last_resort(node: Node) -> None:
    script = node.path("/usr/lib/ivy/units/ivy-rollback")
    text = script.read_text()
    script.write_text(text.replace('-ge "$enough" ] || exit 0', "-ge 0 ]"))
    node.run(
        ["ln", "-sfn", node.path("/var/lib/ivy/current", follow=False).readlink().name, "/var/lib/ivy/previous"]
    )
    try:
        node.run(["systemctl", "start", "ivy-rollback.service"], check=False, timeout=200)
    finally:
        script.write_text(text)
        node.run(["rm", "-f", "/var/lib/ivy/previous"])


def _by_the_command(node: Node) -> None:
    node.run(["ivy", "restart"], timeout=200)


def _by_stop_and_start(node: Node) -> None:
    node.run(["ivy", "stop"], timeout=200)
    assert unit_property(node, "ivy-dummy-procedure", "ActiveState") in ("inactive", "failed")
    node.run(["ivy", "start"])


def _by_the_package(node: Node) -> None:
    """An upgrade: of a package that says that it is newer."""
    node.run(["sh", "-ec", NEWER_PACKAGE], timeout=120)
    node.run(["apt-get", "install", "--yes", "/root/newer.deb"], timeout=300)
    assert "installed" in node.run(["dpkg-query", "--show", "--showformat=${Status}", "ivy"]).stdout


@pytest.mark.parametrize(
    "stop",
    with_few([_by_a_flag, _by_the_pass, _by_the_last_resort, _by_the_command, _by_stop_and_start, _by_the_package]),
)
def test_a_procedure_that_asks_for_ever_more_time_is_killed(
    node: Node, stubborn: str, stop: Callable[[Node], None]
) -> None:
    node.run(["rm", "-rf", "/run/ivy-restarted/dummy-procedure"])
    before = unit_property(node, stubborn, "MainPID")
    began = time.monotonic()
    stop(node)

    def is_another() -> bool:
        return unit_property(node, stubborn, "MainPID") not in (before, "0")

    node.wait_for(is_another, 120, "it to be killed and started again")
    print(f"{stop.__name__}: {time.monotonic() - began:.0f} s")


@pytest.mark.thorough
def test_many_requests_to_restart_end_neither_the_asking_nor_the_sampling(node: Node) -> None:
    node.run(["rm", "-rf", "/run/ivy-restarted/dummy-procedure"])
    began = time.time()
    for _ in range(30):
        _ask_for_a_restart(node)
        time.sleep(0.2)
    flags = node.path("/run/ivy-backend")
    node.wait_for(lambda: not list(flags.glob("restart-*")), 30, "all flags to be taken away")
    state = node.run(["systemctl", "show", "--value", "--property=ActiveState", "ivy-restart.path"]).stdout.strip()
    assert state == "active"
    journal = node.journal("--unit=ivy-dummy-procedure", f"--since=@{began:.3f}")
    pauses = (time.time() - began) / constants.SECONDS_BETWEEN_RESTARTS
    assert journal.count("Stopping ivy-dummy-procedure") <= 2 + pauses, "there is no pause"


def _as_a_service(node: Node, *commands: str, drop_ins: str = "", unit: str = "ivy-attacker") -> str:
    """Run a shell as a procedure that was taken over: its unit has all that their drop-ins say.

    Args:
        drop_ins: The directory of another service's, to be that one.
    """
    script = "\n".join(commands)
    node.path("/etc/attack").write_text(script)
    node.path("/etc/systemd/system").joinpath(f"{unit}.service").write_text(
        "[Service]\nType=oneshot\nExecStart=/bin/sh /etc/attack\nPrivateNetwork=yes\n"
    )
    drop_in = node.path("/etc/systemd/system").joinpath(f"{unit}.service.d")
    drop_in.mkdir(exist_ok=True)
    drop_in.joinpath("99-once.conf").write_text(
        "[Service]\nType=oneshot\nRestart=no\nWatchdogSec=0\nExecStopPost=\n"
    )
    drop_in.joinpath("15-backend.conf").unlink(missing_ok=True)
    if drop_ins:
        node.run(["cp", f"{drop_ins}/15-backend.conf", f"/etc/systemd/system/{unit}.service.d/"])
    node.run(["systemctl", "daemon-reload"])
    cursor = str(time.time())
    node.run(["systemctl", "start", f"{unit}.service"], check=False, timeout=120)
    return node.journal(f"--unit={unit}", f"--since=@{cursor}", "--output=cat")


def test_a_procedure_leaves_nothing_in_run_and_shared_memory(node: Node) -> None:
    said = _as_a_service(
        node,
        "for d in /run /run/lock /run/systemd /dev/shm /dev/mqueue /run/user; do",
        "touch $d/canary 2>/dev/null && echo wrote $d",
        "done",
        "head -c 300000000 /dev/zero > /dev/shm/big; wc -c < /dev/shm/big",
        "exit 0",
    )
    assert "wrote /run" not in said and "wrote /dev/mqueue" not in said
    found = node.run(["find", "/run", "/dev/shm", "/dev/mqueue", "-name", "canary"], check=False).stdout
    assert found == ""
    sizes = [int(line) for line in said.split() if line.isdecimal()]
    assert sizes and max(sizes) <= 1 << 20


FILL = """
import contextlib, os, sys
place = sys.argv[1]
with contextlib.suppress(OSError), open(os.path.join(place, "filling"), "wb", buffering=0) as file:
    while file.tell() < 200_000_000:
        file.write(bytes(100_000))
with contextlib.suppress(OSError):
    for number in range(20_000):
        os.close(os.open(os.path.join(place, f"filling-{number}"), os.O_CREAT | os.O_WRONLY))
print("wrote", os.path.getsize(os.path.join(place, "filling")), "and", number)
"""


@pytest.mark.parametrize(
    ("place", "owner", "drop_ins", "megabytes", "files"),
    with_few(
        [
            ("/run/ivy", "ivy 2775", "", 32, 4000),
            ("/run/ivy-backend", "ivy-backend 2755", "/usr/lib/systemd/system/ivy-tenta.service.d", 4, 1000),
        ]
    ),
)
def test_no_service_can_fill_run(
    node: Node, place: str, owner: str, drop_ins: str, megabytes: int, files: int
) -> None:
    """Without room there systemd does not even read its units again, and so activates no release."""
    node.path("/etc/fill.py").write_text(FILL)
    before = _room_in_run(node)
    try:
        said = _as_a_service(node, f"/usr/bin/python3 -P -s /etc/fill.py {place}", drop_ins=drop_ins)
        [[written, made]] = re.findall(r"wrote (\d+) and (\d+)", said)
        assert 0 < int(written) <= megabytes << 20 and 0 < int(made) < files
        blocks, inodes = (then - now for then, now in zip(before, _room_in_run(node), strict=True))
        assert blocks < 8 << 20 and inodes < 100, "what it wrote is in /run itself"
        node.run(["systemctl", "daemon-reload"])
    finally:
        node.run(["sh", "-c", f"rm -f {place}/filling {place}/filling-*"])
    assert node.run(["findmnt", "--noheadings", "--output=FSTYPE", place]).stdout.strip() == "tmpfs"
    assert node.run(["stat", "--format=%U %a", place]).stdout.strip() == owner


def _room_in_run(node: Node) -> tuple[int, int]:
    """Bytes and files that still fit."""
    blocks, size, inodes = node.run(["stat", "--file-system", "--format=%a %S %d", "/run"]).stdout.split()
    return int(blocks) * int(size), int(inodes)


FORKS = """
import os, signal, time
children = []
try:
    for _ in range(3000):
        child = os.fork()
        if child == 0:
            time.sleep(600)
            os._exit(0)
        children.append(child)
except OSError:
    pass
print("forked", len(children), flush=True)
time.sleep(3)
for child in children:
    os.kill(child, signal.SIGKILL)
"""
GREED = """
import time
taken = []
for megabytes in range(100, 1600, 100):
    taken.append(bytearray(100_000_000))
    print("took", megabytes, flush=True)
time.sleep(3)
"""


def _limits_bite(node: Node, controller: str) -> bool:
    """Whether this bed can show it: a kernel without cgroup v2 controllers has the settings only, see below."""
    return controller in node.run(["cat", "/sys/fs/cgroup/cgroup.controllers"], check=False).stdout.split()


@pytest.mark.parametrize(
    ("attack", "controller", "most"),
    with_few([(FORKS, "pids", 64), (GREED, "memory", 256)]),
    ids=["forks", "memory"],
)
def test_the_others_sample_on_while_a_procedure_takes_what_it_can(
    node: Node, attack: str, controller: str, most: int
) -> None:
    """What it gets is looked at only where the kernel has that controller; the samples are, everywhere."""
    node.path("/etc/attack.py").write_text(attack)
    began = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
    said = _as_a_service(node, "/usr/bin/python3 -P -s /etc/attack.py")
    numbers = [int(word) for word in said.split() if word.isdecimal()]
    assert numbers, said
    sampled = f"timeout 10 ivy messages --kind data --since {began} --json | head --lines=1"
    assert node.wait_for(lambda: node.run(["sh", "-c", sampled]).stdout, SECONDS_OF_PATIENCE, "a sample meanwhile")
    assert unit_property(node, "ivy-dummy-procedure", "ActiveState") == "active"
    if _limits_bite(node, controller):
        assert max(numbers) <= most


ESCAPE = "\033]0;owned\a\033[2J"


def test_nothing_that_others_wrote_commands_the_terminal(node: Node) -> None:
    say = "import sys; sys.path.insert(0, '/usr/lib/ivy'); from ivy.utils.messaging_agent import *\n"
    say += "MessagingAgent().add_message(DataMessageBody(data={'a\\x1b[2J\\x9b31m': 'b\\nPROBLEM: none'}))"
    node.path("/etc/say.py").write_text(say)
    _as_ivy(node, "/usr/bin/python3 /etc/say.py")
    _as_backend(
        node,
        "rm -f /run/ivy-backend/link.json",
        "cat > /run/ivy-backend/link.json <<'EOF'\n"
        + json.dumps({"broker": "x:1", "connected": False, "since": 1, "reason": f"{ESCAPE}\nall is well"})
        + "\nEOF",
    )
    for command in (["ivy", "status"], ["ivy", "messages"], ["ivy", "messages", "--json"], ["ivy", "doctor"]):
        done = _ends(node, ["script", "--quiet", "--return", "--command", " ".join(command), "/dev/null"])
        ours = done.stdout.replace("\033[32m", "").replace("\033[31m", "").replace("\033[0m", "")
        assert "\033" not in ours and "\x9b" not in ours and "\a" not in ours, command
