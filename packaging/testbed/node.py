"""One node: a container with a disk that survives power cuts, and a network cable that can be pulled.

Knows nothing of ivy: what is installed in a node is the user's own affair.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from testbed import overlay
from testbed.container import Container
from testbed.disk import Disk, blocks
from testbed.forgetful_disk import Fate
from testbed.network import Port, Subnet
from testbed.run import BedError, become, popen, run, tail
from testbed.waiting import WaitedInVain, wait_for

T = TypeVar("T")

RECORD = "node.json"
BOOTED = {"running", "degraded"}
SYSTEMD_SOCKET = "/run/systemd/private"  # it is there as soon as systemctl gets answers
VOLATILE = {"dev", "proc", "run", "sys", "tmp"}  # not on the node's disk
ENVIRONMENT = {"DEBIAN_FRONTEND": "noninteractive"}
JOURNAL_LINES = 30
MOST_SYMLINKS = 40  # the kernel's own limit


@dataclass(frozen=True)
class Snapshot:
    """A frozen disk that other nodes can start from; lives as long as its bed."""

    name: str
    layers: tuple[Path, ...]  # the topmost first


class Node:
    """`directory` holds all there is to know; another process can make its own Node from it."""

    def __init__(self, bed: str, subnet: Subnet, directory: Path) -> None:
        self.name = directory.name
        self.directory = directory
        self.root = directory / "root"
        self.disk = Disk(directory / "disk")
        record = json.loads((directory / RECORD).read_text())
        self._layers = tuple(Path(layer) for layer in record["layers"])
        self._port = Port(subnet, record["index"])
        self._container = Container(f"{bed}-{self.name}", self.name, self.root, directory, self._port.namespace)

    @classmethod
    def create(cls, bed: str, subnet: Subnet, directory: Path, layers: Sequence[Path], index: int) -> "Node":
        directory.mkdir(parents=True)
        _write_record(directory, index, layers)
        node = cls(bed, subnet, directory)
        node._write_identity()
        return node

    @property
    def address(self) -> str:
        return self._port.address

    @property
    def index(self) -> int:
        return self._port.index

    @property
    def network_namespace(self) -> str:
        """For `ip netns exec`: the machine's own tools (nft, tc, tcpdump) in the node's network."""
        return self._port.namespace

    @property
    def layers(self) -> tuple[Path, ...]:
        return self._layers

    @property
    def running(self) -> bool:
        return self._container.leader() is not None

    def is_linked(self) -> bool:
        return self._port.is_linked()

    # Power

    def boot(self, timeout: float = 60) -> None:
        """Returns when systemd in the node has finished booting, with or without failed units."""
        if not self.running:
            self._insert_disk()
            self._port.plug()
            self._container.start()
        self.wait_for(lambda: self._has_booted(timeout), timeout, "systemd to finish booting")

    def cut(self) -> None:
        """A power cut: everything dies at once, unwarned. The disk keeps what was written."""
        self._container.kill()

    def forget(self, seed: int | None = None) -> tuple[int, Fate]:
        """A power cut of a node with a forgetful disk: of what nobody flushed, a random share is left.

        Args:
            seed: For `random.Random`: the same writes have the same fate. Default: a random one.

        Returns: The seed, and what became of the writes that were not flushed.
        """
        if not self.disk.exists():
            raise BedError(f"the disk of {self.name} forgets nothing", f"testbed disk {self.name} forgetful")
        self._insert_disk()
        # The disk goes first and answers nothing, then all processes, and only then is it told to those that wait
        # for it. Nobody lives to see an error, and to promise something upon it.
        fate = self.disk.fail_power(seed)
        self._container.doom()
        self.disk.let_go()
        self._container.kill()
        self._remove_disk()
        return fate

    def be_forgetful(self) -> None:
        """Put all that is on the node's disk onto one that forgets; see `forget`. The node has no power then."""
        if self.disk.exists():
            return
        if self.running:
            self.poweroff()
        overlay.unmount(self.root)
        content = self.directory / "disk" / "content"
        content.mkdir(parents=True)
        (self.directory / "upper").rename(content / "upper")
        self.disk.make(content)
        overlay.remove_tree(content)
        overlay.remove_tree(self.directory / "work")

    def break_file(self, inside: str, *, reads: bool = True, writes: bool = True) -> None:
        """Let the sectors of a file on a forgetful disk be bad, and let nobody have its content in memory."""
        self._insert_disk()
        file = self.disk.file_system / "upper" / inside.lstrip("/")
        if not self.disk.exists() or not file.is_file():
            raise BedError(f"{inside} is not on a disk that can fall ill", "See testbed disk --help")
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        self.disk.break_sectors(blocks(file), reads=reads, writes=writes)

    def poweroff(self, timeout: float = 60) -> None:
        """A clean shutdown."""
        self._container.poweroff(timeout)

    def reboot(self, timeout: float = 60) -> None:
        self.poweroff(timeout)
        self.boot(timeout)

    def link(self, up: bool) -> None:
        """Plug the network cable in or out."""
        self._port.link(up)

    def destroy(self) -> None:
        self._container.kill()
        self._container.remove_traces()
        self._port.unplug()
        self._remove_disk()
        overlay.remove_tree(self.directory)

    def snapshot(self, name: str) -> Snapshot:
        """Power off and freeze the disk. When booted again, this node goes on upon the snapshot, too."""
        frozen = self.directory.parent.parent / "snapshots" / name
        if frozen.exists():
            raise BedError(f"there is a snapshot {name} already", "Choose another name.")
        if self.disk.exists():
            raise BedError(f"{self.name} has a disk that forgets, which cannot be frozen")
        self.poweroff()
        overlay.unmount(self.root)
        frozen.parent.mkdir(exist_ok=True)
        (self.directory / "upper").rename(frozen)
        overlay.remove_tree(self.directory / "work")
        self._layers = (frozen, *self._layers)
        _write_record(self.directory, self.index, self._layers)
        return Snapshot(name, self._layers)

    # Programs

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        check: bool = True,
        timeout: float | None = 60,
        input: str | None = None,
        env: Mapping[str, str] | None = None,
        hint: str = "",
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in the node, as root, in a clean environment, outside of all units."""
        environment = {**ENVIRONMENT, **(env or {})}
        inside = self._inside(argv)
        return run(inside, check=check, timeout=timeout, input=input, env=environment, hint=hint)

    def popen(
        self, argv: Sequence[str | Path], *, env: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.Popen[str]:
        """Start a program in the node. Ending the returned process, by any signal, *kills* the program."""
        return popen(self._inside(argv), env={**ENVIRONMENT, **(env or {})}, **options)

    def become(self, argv: Sequence[str | Path]) -> NoReturn:
        """Replace this process by a program in the node."""
        become(self._inside(argv), {**ENVIRONMENT, "TERM": os.environ.get("TERM", "dumb")})

    def journal(self, *arguments: str) -> str:
        """What journalctl says, with all that was said before this call; also of a node without power."""
        if self.running:  # journald may not have read yet what is in its sockets; a stopped one is not waited for
            self.run(["timeout", "30", "journalctl", "--sync"], check=False)
        return run(self._journalctl(arguments)).stdout

    def become_journal(self, arguments: Sequence[str]) -> NoReturn:
        become(self._journalctl(arguments))

    def _journalctl(self, arguments: Sequence[str]) -> list[str | Path]:
        if self.running:
            return self._inside(["journalctl", "--no-pager", *arguments])
        self._insert_disk()
        return ["chroot", self.root, "journalctl", "--no-pager", "--directory=/var/log/journal", *arguments]

    def _inside(self, argv: Sequence[str | Path]) -> list[str | Path]:
        leader = self._container.leader()
        if leader is None:
            raise BedError(f"{self.name} has no power", f"Boot it first: testbed boot {self.name}")
        # nsenter waits outside for the program inside: should it be killed, the program must not stay behind.
        enter = ["nsenter", f"--target={leader}", "--all", "--root", "--wd"]
        return [*enter, "--", "setpriv", "--pdeathsig=KILL", "--", *argv]

    def wait_for(self, condition: Callable[[], T | None], timeout: float, what: str) -> T:
        """The first truthy result of `condition`; the error shows what the node's journal said last."""
        try:
            return wait_for(condition, timeout, f"{self.name}: {what}")
        except WaitedInVain as error:
            last = self.journal(f"--lines={JOURNAL_LINES}") if self.running else "(no power)"
            raise WaitedInVain(error.message, f"The last of its journal:\n{tail(last)}") from None

    def _has_booted(self, timeout: float) -> bool:
        self._container.check_alive()
        if not self.path(SYSTEMD_SOCKET).exists():
            return False
        # It waits itself: to ask again and again would take a fifth of the time that a boot takes.
        wait = ["timeout", f"{timeout:g}", "systemctl", "is-system-running", "--wait"]
        return self.run(wait, check=False, timeout=None).stdout.strip() in BOOTED

    # Files

    def path(self, inside: str | Path, *, follow: bool = True) -> Path:
        """Where a file of the node is to be found on this machine.

        Symbolic links are followed as the node would follow them (an absolute one would otherwise lead into
        this machine's files); with `follow=False` not the last one, so that the link itself can be looked at.
        What is not on the disk (/run, /tmp) is there only while the node has power.
        """
        self._insert_disk()
        parts = _resolve(self._base_of, Path("/", inside), follow)
        return self._base_of(parts) / Path(*parts)

    def copy_in(self, source: str | Path, inside: str | Path) -> Path:
        """Copy a file or a directory into the node, owned by root. Into a directory, if `inside` is one."""
        target = self.path(inside)
        if target.is_dir():
            target = target / Path(source).name
        target.parent.mkdir(parents=True, exist_ok=True)
        if Path(source).is_dir():
            shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)
        else:
            shutil.copy2(source, target)
        return target

    def _base_of(self, parts: Sequence[str]) -> Path:
        if not parts or parts[0] not in VOLATILE:
            return self.root
        leader = self._container.leader()
        if leader is None:
            inside = "/" + "/".join(parts)
            raise BedError(f"{inside} is not on the disk, and {self.name} has no power", "Boot it first.")
        return Path(f"/proc/{leader}/root")

    def _insert_disk(self) -> None:
        if overlay.is_mounted(self.root):
            return
        place = self.directory
        if self.disk.exists():
            self.disk.insert()
            place = self.disk.file_system
        overlay.mount(self._layers, place / "upper", place / "work", self.root)

    def _remove_disk(self) -> None:
        overlay.unmount(self.root)
        self.disk.remove()

    def _write_identity(self) -> None:
        """The node's own name, and no machine id: it gets one when it boots."""
        self._insert_disk()
        gateway = self._port.subnet.gateway
        (self.root / "etc/machine-id").write_text("")
        (self.root / "etc/hostname").write_text(f"{self.name}\n")
        hosts = f"127.0.0.1 localhost\n::1 localhost\n127.0.1.1 {self.name}\n{gateway} gateway\n"
        (self.root / "etc/hosts").write_text(hosts)


def _write_record(directory: Path, index: int, layers: Sequence[Path]) -> None:
    beside = directory / f".{RECORD}.new"
    beside.write_text(json.dumps({"index": index, "layers": [str(layer) for layer in layers]}))
    beside.rename(directory / RECORD)


def _resolve(base_of: Callable[[Sequence[str]], Path], path: Path, follow: bool) -> list[str]:
    """The parts of `path` after its symbolic links, none of which leads out of the node."""
    done: list[str] = []
    todo = list(path.parts[1:])
    links = 0
    while todo:
        part = todo.pop(0)
        if part == "..":
            done = done[:-1]
            continue
        here = base_of([*done, part]).joinpath(*done, part)
        if not here.is_symlink() or (not todo and not follow):
            done.append(part)
            continue
        links += 1
        if links > MOST_SYMLINKS:
            raise BedError(f"{path}: too many symbolic links")
        target = here.readlink()
        done = [] if target.is_absolute() else done
        todo = [*(target.parts[1:] if target.is_absolute() else target.parts), *todo]
    return done
