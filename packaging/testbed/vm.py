"""A machine with a kernel of its own: the image of a card, booted by qemu.

    machine = bed.machine("m1", image, {"ivy.json": b"…"})
    machine.boot()
    machine.run(["ivy", "status"])

Only here a power cut is one (what the kernel had not written is lost), a kernel panics, and a watchdog bites. On
the bed's network it has a place like a node's, behind qemu's own router; programs run in it by SSH.
"""

import base64
import fcntl
import json
import os
import shlex
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from testbed.emulation import native
from testbed.network import Port, Subnet
from testbed.overlay import remove_tree
from testbed.run import BedError, become, popen, run
from testbed.waiting import wait_for

MEMORY = 1024  # MiB
CARD_SIZE = "8G"
BOOT_OFFSET = 4 * 1024 * 1024  # of the FAT, see packaging/card/layout.py
SECONDS_TO_BOOT = 240  # without a processor's help
SECONDS_TO_SAY_SOMETHING = 10
SOFTWARE = "tcg,thread=multi"
RECORD = "machine.json"
DISK = "disk"
RESETS = {"WATCHDOG", "RESET"}  # events, as qemu calls them


@dataclass(frozen=True)
class Hardware:
    """What a machine is made of, as qemu calls it."""

    program: str
    board: str
    firmware: str
    processor: str
    processor_of_kvm: str


HARDWARE = {
    "amd64": Hardware("qemu-system-x86_64", "q35", "/usr/share/ovmf/OVMF.fd", "qemu64", "qemu64"),
    # That of a Raspberry Pi 5, whose pages may have 16 KiB. KVM has none but the machine's own.
    "arm64": Hardware(
        "qemu-system-aarch64", "virt", "/usr/share/qemu-efi-aarch64/QEMU_EFI.fd", "cortex-a76", "host"
    ),
}
"""By architecture, as Debian calls it."""


class Machine:
    """`directory` holds all there is to know; another process can make its own Machine from it."""

    def __init__(self, subnet: Subnet, directory: Path) -> None:
        self.name = directory.name
        self.directory = directory
        self.console = directory / "console.log"
        record = json.loads((directory / RECORD).read_text())
        self.arch: str = record["arch"]
        self._port = Port(subnet, record["index"])

    @classmethod
    def create(cls, subnet: Subnet, directory: Path, index: int, arch: str) -> "Machine":
        """Without a card yet; `directory` must not be there."""
        directory.mkdir(parents=True)
        (directory / RECORD).write_text(json.dumps({"index": index, "arch": arch}))
        return cls(subnet, directory)

    def insert_card(self, image: Path, files: Mapping[str, bytes]) -> None:
        """Write a card, and put it in. With a key, by which this machine comes in.

        Args:
            image: `ivy-*.img.xz`, or not compressed.
            files: What somebody puts on the FAT of the card, by name.
        """
        card = self.directory / "card.raw"
        _write_card(image, card)
        for name, content in files.items():
            (self.directory / name).write_bytes(content)
            run(["mcopy", "-o", "-i", f"{card}@@{BOOT_OFFSET}", self.directory / name, f"::{name}"])
        disk = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", card.name]
        run([*disk, self.directory / "disk.qcow2", CARD_SIZE])
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.directory / "key"])

    @property
    def index(self) -> int:
        return self._port.index

    @property
    def address(self) -> str:
        return self._port.address

    @property
    def running(self) -> bool:
        return self._pid() is not None

    # Power

    def start(self, snapshot: str | None = None) -> None:
        """Switch it on; or go on where it was when `save` was called."""
        if self.running:
            return
        (self.directory / "qmp").unlink(missing_ok=True)
        self._port.plug()
        again = ["-loadvm", snapshot] if snapshot else []
        inside = ["ip", "netns", "exec", self._port.namespace]
        run([*inside, HARDWARE[self.arch].program, *self._arguments(), *again, "-daemonize"], timeout=120)

    def boot(self, snapshot: str | None = None, timeout: float = SECONDS_TO_BOOT) -> None:
        """Returns when systemd has finished booting, with or without failed units."""
        self.start(snapshot)
        self.wait_booted(timeout)
        if snapshot is not None:  # in whose memory it is as late as it was then
            self.run(["date", "--set", f"@{time.time():.3f}"])

    def wait_booted(self, timeout: float = SECONDS_TO_BOOT, but_not: str = "") -> str:
        """Until somebody can come in, and systemd has finished booting.

        Args:
            timeout: Seconds.
            but_not: The id of a boot that does not count.

        Returns: The id of this boot.
        """
        asked = ["sh", "-c", "cat /proc/sys/kernel/random/boot_id; systemctl is-system-running"]

        def booted() -> str | None:
            if not self.running:
                raise BedError(f"{self.name} went off", f"What it said last is in {self.console}.")
            answer = self.run(asked, check=False).stdout.split()
            done = len(answer) == 2 and answer[1] in {"running", "degraded"} and answer[0] != but_not
            return answer[0] if done else None

        return wait_for(booted, timeout, f"{self.name} to boot; see {self.console}", interval=1)

    def boot_id(self) -> str:
        return self.run(["cat", "/proc/sys/kernel/random/boot_id"]).stdout.strip()

    def cut(self) -> None:
        """A power cut: the processors and the memory are gone at once. The card has what had been written to it."""
        if (pid := self._pid()) is not None:
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda: not self.running, 10, f"{self.name} to end")

    def destroy(self) -> None:
        self.cut()
        self._port.unplug()
        remove_tree(self.directory)

    def link(self, up: bool) -> None:
        """Plug the network cable of its router in or out."""
        self._port.link(up)

    def save(self, snapshot: str) -> None:
        """Memory and disk as they are now, for `start`."""
        with Monitor(self.directory / "qmp") as monitor:
            monitor.command_line(f"savevm {snapshot}")

    def hang_disk_until_reset(self, timeout: float) -> str:
        """The disk answers nothing any more, and refuses nothing; until it is well again at the reset."""
        limit = f"block_set_io_throttle {DISK}"
        with Monitor(self.directory / "qmp") as monitor:
            monitor.command_line(f"{limit} 1 0 0 0 0 0")  # byte/s; 0: no limit
            try:
                return monitor.wait_for_event(RESETS, timeout)
            finally:
                monitor.command_line(f"{limit} 0 0 0 0 0 0")

    def freeze_until_reset(self, timeout: float = 600) -> str:
        """PID 1 does nothing any more, so that nobody feeds the watchdog. (It ignores SIGSTOP.)"""
        return self.run_until_reset("echo 1 >/sys/fs/cgroup/init.scope/cgroup.freeze", timeout)

    def panic_until_reset(self, timeout: float = 120) -> str:
        """The kernel panics, and reboots by itself or is reset."""
        return self.run_until_reset("echo 1 >/proc/sys/kernel/sysrq; echo c >/proc/sysrq-trigger", timeout)

    def wait_for_reset(self, timeout: float) -> str:
        """Of a machine into which nobody can come just now. Returns: What came first, as `run_until_reset` does."""
        with Monitor(self.directory / "qmp") as monitor:
            return monitor.wait_for_event(RESETS, timeout)

    def run_until_reset(self, script: str, timeout: float) -> str:
        """Run a shell script that leads to a reset, whether or not it comes to its end.

        Returns: What came first, in qemu's words: WATCHDOG, where that bit; or RESET.
        """
        with (
            Monitor(self.directory / "qmp") as monitor,
            self.popen(["sh", "-c", script], stdin=subprocess.DEVNULL) as running,
        ):
            try:
                return monitor.wait_for_event(RESETS, timeout)
            finally:
                running.kill()

    # Programs

    def run(
        self, argv: Sequence[str], *, check: bool = True, timeout: float | None = 120, input: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in the machine, as root."""
        return run([*self._ssh(), shlex.join(argv)], check=check, timeout=timeout, input=input)

    def popen(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[str]:
        return popen([*self._ssh(), shlex.join(argv)], **options)

    def become(self, argv: Sequence[str]) -> NoReturn:
        """Replace this process by a program in the machine."""
        become([*self._ssh(), shlex.join(argv)])

    def _ssh(self) -> list[str | Path]:
        options = {
            "BatchMode": "yes",
            "ConnectTimeout": "20",
            "LogLevel": "ERROR",
            "ServerAliveInterval": "15",
            "StrictHostKeyChecking": "accept-new",
            "UserKnownHostsFile": str(self.directory / "known_hosts"),
        }
        given = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        return ["ssh", *given, "-i", self.directory / "key", f"root@{self.address}", "--"]

    def _accelerator(self) -> str:
        """Tried once for each machine."""
        known = self.directory / "accelerator"
        if not known.exists():
            known.write_text(accelerator(self.arch))
        return known.read_text()

    def _arguments(self) -> list[str | Path]:
        hardware, accelerator = HARDWARE[self.arch], self._accelerator()
        processor = hardware.processor_of_kvm if accelerator == "kvm" else hardware.processor
        key = base64.b64encode((self.directory / "key.pub").read_bytes()).decode()
        credential = f"type=11,value=io.systemd.credential.binary:ssh.authorized_keys.root={key}"
        return [
            *("-name", self.name, "-machine", hardware.board, "-accel", accelerator, "-cpu", processor),
            *("-smp", "2", "-m", str(MEMORY)),
            *("-bios", hardware.firmware, "-display", "none", "-nodefaults"),
            *("-drive", f"file={self.directory / 'disk.qcow2'},if=virtio,format=qcow2,id={DISK}"),
            *(
                "-netdev",
                "user,id=net,hostfwd=tcp::22-:22",
                "-device",
                "virtio-net-pci,netdev=net",
                "-device",
                "virtio-rng-pci",
            ),
            *("-device", "i6300esb", "-action", "watchdog=reset"),
            *("-chardev", f"file,id=console,path={self.console},append=on", "-serial", "chardev:console"),
            *("-qmp", f"unix:{self.directory / 'qmp'},server=on,wait=off"),
            *("-smbios", credential, "-pidfile", self.directory / "pid"),
        ]

    def _pid(self) -> int | None:
        """Of the qemu that has this machine's disk. It locks the file with its number until its last thread ended.
        A number alone may be another program's by now, and a process that is dying may still hold the disk."""
        try:
            with (self.directory / "pid").open("r+") as file:
                try:
                    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    return int(file.read())
        except FileNotFoundError:
            pass
        return None


class Monitor:
    """qemu's own door, see QMP in its documentation. It takes one caller at a time."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        self._lines = self._socket.makefile("r")
        self._events: list[str] = []
        self._answer()
        self._call("qmp_capabilities")

    def __enter__(self) -> "Monitor":
        return self

    def __exit__(self, *error: object) -> None:
        self._lines.close()
        self._socket.close()

    def command_line(self, line: str) -> None:
        """A command of the monitor for people. It says nothing if all went well."""
        if said := self._call("human-monitor-command", {"command-line": line}):
            raise BedError(f"qemu: {line}: {said}")

    def wait_for_event(self, names: set[str], timeout: float) -> str:
        """The first one of these names, from now on."""
        until = time.monotonic() + timeout
        while not (found := [event for event in self._events if event in names]):
            self._socket.settimeout(max(0.1, until - time.monotonic()))
            try:
                self._answer()
            except TimeoutError:
                raise BedError(f"qemu told of no {' or '.join(sorted(names))} within {timeout} s") from None
        return found[0]

    def _call(self, command: str, arguments: Mapping[str, str] | None = None) -> Any:
        request = {"execute": command, "arguments": dict(arguments or {})}
        self._socket.sendall(json.dumps(request).encode())
        while "return" not in (answer := self._answer()):
            if "error" in answer:
                raise BedError(f"qemu: {command}: {answer['error'].get('desc')}")
        return answer["return"]

    def _answer(self) -> dict[str, Any]:
        line = self._lines.readline()
        if not line:
            raise BedError("qemu has ended")
        answer: dict[str, Any] = json.loads(line)
        if "event" in answer:
            self._events.append(answer["event"])
        return answer


def accelerator(arch: str) -> str:
    """For machines of an architecture: kvm where it works, else tcg, which is software. That /dev/kvm is there, and
    opens, does not mean that a machine runs by it: so its firmware must say something."""
    if arch != native() or not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return SOFTWARE
    hardware = HARDWARE[arch]
    with tempfile.TemporaryDirectory() as directory:
        said = Path(directory, "said")
        machine = ["-machine", hardware.board, "-accel", "kvm", "-cpu", hardware.processor_of_kvm, "-m", "256"]
        firmware = ["-bios", hardware.firmware, "-serial", f"file:{said}"]
        without = ["-display", "none", "-nodefaults"]
        with popen([hardware.program, *machine, *firmware, *without], stderr=subprocess.DEVNULL) as trial:
            until = time.monotonic() + SECONDS_TO_SAY_SOMETHING
            while trial.poll() is None and time.monotonic() < until and not _has_content(said):
                time.sleep(0.1)
            trial.kill()
        return "kvm" if _has_content(said) else SOFTWARE


def _has_content(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


def _write_card(image: Path, card: Path) -> None:
    if not image.exists():
        raise BedError(f"there is no {image}", "Make it: packaging/image --board generic")
    if image.suffix == ".xz":
        with card.open("wb") as target, popen(["xz", "--decompress", "--stdout", image], stdout=target) as xz:
            if xz.wait() != 0:
                raise BedError(f"{image} cannot be unpacked")
    else:
        run(["cp", "--sparse=always", image, card], timeout=300)
