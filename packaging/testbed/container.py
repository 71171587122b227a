"""Booting and killing one systemd container with systemd-nspawn.

Works where PID 1 is not systemd: nothing is registered anywhere, the container's control group is made here.
All state is on disk and in /proc, so a later process finds the container again. Knows nothing of beds and
networks.
"""

import contextlib
import errno
import os
import signal
from dataclasses import dataclass
from pathlib import Path

from testbed.overlay import unmount
from testbed.run import BedError, run, tail
from testbed.waiting import wait_for

# Each container gets a control group of its own: left in its starter's, all containers would share one tree,
# and stopping a unit in one of them would kill the unit of the same name in the others.
LAUNCH = """
echo $$ >"$1"; echo $$ >"$2/cgroup.procs"; shift 2
exec "$@"
"""
# What a real machine's systemd has, too: without it PrivateNetwork=, IPAddressDeny= and DeviceAllow= are
# accepted, but do nothing. (A container is a node to try things on, and not a wall against its root.)
SANDBOXING = ("--capability=CAP_NET_ADMIN,CAP_BPF", "--system-call-filter=bpf")
CLEAN_POWEROFF = signal.SIGRTMIN + 4  # see systemd(1)


def cgroup_mounts(*types: str) -> list[Path]:
    rows = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [Path(row[1]) for row in rows if row[2] in types]


def unified_cgroup() -> Path | None:
    return next(iter(cgroup_mounts("cgroup2")), None)


@dataclass(frozen=True)
class Container:
    name: str  # unique on this machine
    hostname: str
    root: Path
    state: Path  # a directory for the console's output and the process id
    network_namespace: str

    @property
    def console(self) -> Path:
        return self.state / "console.log"

    @property
    def _group(self) -> str:
        return f"ivy-testbed-{self.name}"

    @property
    def _pid_file(self) -> Path:
        return self.state / "supervisor.pid"

    def supervisor(self) -> int | None:
        """The systemd-nspawn process. Its arguments are compared because process ids come around again."""
        try:
            pid = int(self._pid_file.read_text())
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes()  # a zombie has none
        except (FileNotFoundError, ProcessLookupError, ValueError):
            return None
        return pid if f"--directory={self.root}\0".encode() in arguments else None

    def leader(self) -> int | None:
        """The container's PID 1, as seen from outside."""
        pid = self.supervisor()
        if pid is None:
            return None
        try:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            return next((int(child) for child in children if _is_init(child)), None)
        except (FileNotFoundError, ProcessLookupError):
            return None  # it ended while we looked

    def start(self) -> None:
        """Returns as soon as there is a PID 1; booting goes on."""
        self.kill()
        self.remove_traces()
        group = self._make_cgroup()
        self._pid_file.unlink(missing_ok=True)
        launcher = ["setsid", "--fork", "sh", "-euc", LAUNCH, "launch", str(self._pid_file), str(group)]
        self.console.unlink(missing_ok=True)
        environment = {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}
        run([*launcher, *self._nspawn()], env=environment, log=self.console)
        wait_for(self._has_come_or_gone, 10, f"{self.name} to start")
        self.check_alive()

    def check_alive(self) -> None:
        if self.leader() is None:
            said = tail(self.console.read_text(errors="replace"))
            raise BedError(f"{self.name} ended while booting:\n{said}", f"All of it: {self.console}")

    def _nspawn(self) -> list[str]:
        return [
            "systemd-nspawn",
            "--quiet",
            "--boot",
            "--register=no",
            "--keep-unit",
            f"--directory={self.root}",
            f"--machine={self.name}",
            f"--hostname={self.hostname}",
            f"--network-namespace-path=/run/netns/{self.network_namespace}",
            *SANDBOXING,
            "--console=pipe",
            "--resolv-conf=off",
            "--timezone=off",
            "--link-journal=no",
        ]

    def _has_come_or_gone(self) -> bool:
        if self.leader() is not None:
            return True
        return self.console.exists() and self.console.stat().st_size > 0 and self.supervisor() is None

    def doom(self) -> None:
        """Send all in it a signal that none survives, at once. Who waits for a disk dies when that answers."""
        for mount in cgroup_mounts("cgroup2"):
            for group in (mount / self._group).glob("payload*"):
                (group / "cgroup.kill").write_text("1")

    def kill(self) -> None:
        """Everything in it dies at once: a process id namespace does not outlive its first process."""
        # systemd-nspawn is left alone to tidy up after its container, unless there is no container yet.
        pid = self.leader() or self.supervisor()
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):  # it was faster
                os.kill(pid, signal.SIGKILL)
        wait_for(lambda: self.supervisor() is None, 10, f"{self.name} to die")
        self._kill_orphans()

    def _kill_orphans(self) -> None:
        """Should systemd-nspawn have been killed, its container runs on."""
        for mount in cgroup_mounts("cgroup2"):
            with contextlib.suppress(FileNotFoundError):
                (mount / self._group / "cgroup.kill").write_text("1")

    def poweroff(self, timeout: float) -> None:
        pid = self.leader()
        if pid is not None:
            os.kill(pid, CLEAN_POWEROFF)
        wait_for(lambda: self.supervisor() is None, timeout, f"{self.name} to power off")

    def _make_cgroup(self) -> Path:
        unified = unified_cgroup()
        if unified is None:
            raise BedError("no cgroup2 file system is mounted", "mount -t cgroup2 cgroup2 /sys/fs/cgroup")
        group = unified / self._group
        group.mkdir()
        return group

    def remove_traces(self) -> None:
        """What systemd-nspawn leaves behind on this machine: all of it if it was killed, else the groups."""
        for kind in ("propagate", "unix-export"):
            directory = Path("/run/systemd/nspawn", kind, self.name)
            unmount(directory)
            with contextlib.suppress(FileNotFoundError):
                directory.rmdir()
        if self.root.exists():
            root = self.root.stat()
            Path(f"/run/systemd/nspawn/locks/inode-{root.st_dev}:{root.st_ino}").unlink(missing_ok=True)
        self._remove_cgroups()

    def _remove_cgroups(self) -> None:
        """systemd-nspawn mirrors the group into the old hierarchies, where there are any."""
        for mount in cgroup_mounts("cgroup", "cgroup2"):
            _remove_cgroup(mount / self._group)


def _is_init(pid: str) -> bool:
    """Not as long as it is systemd-nspawn's own child that prepares the container: whoever entered it then
    would still see this machine's files, and ask this machine's systemd how it is."""
    if Path(f"/proc/{pid}/exe").readlink().name == "systemd-nspawn":
        return False
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    numbers = next(line for line in lines if line.startswith("NSpid:")).split()[1:]
    return len(numbers) > 1 and numbers[-1] == "1"


def _remove_cgroup(group: Path) -> None:
    """A dead process may keep its group busy until this machine's PID 1 takes notice of it."""
    wait_for(lambda: _try_remove(group), 10, f"the control group {group} to become free")


def _try_remove(group: Path) -> bool:
    try:
        for directory, _, _ in os.walk(group, topdown=False):
            Path(directory).rmdir()
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return False
    return True
