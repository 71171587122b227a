"""A disk of its own for a node, which forgets, when its power fails, some of what nobody flushed.

The image is served by NBD (`testbed.disk_server`), shown as a file by nbdfuse, and that file is the disk: a loop
device with ext4 on it. A sync in the node becomes a commit of the journal, a flush of the loop device, a sync of
the file, and so a flush of the NBD server. Nothing between them keeps a write back: the loop device reads and
writes the file past the page cache.
"""

import json
import re
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from testbed import overlay
from testbed.disk_server import CONTROL_SOCKET, NBD_SOCKET
from testbed.forgetful_disk import Fate
from testbed.run import BedError, popen, run, tail
from testbed.tools import ensure_tools, why_no_disk
from testbed.waiting import wait_for

MEGABYTES = 1024
PACKAGING = Path(__file__).resolve().parents[1]
FSCK_FAILED = 4  # and above: see e2fsck(8)
BLOCK = 4096

START = """
cd "$1"; shift
exec setsid --fork "$@" >>log 2>&1
"""


class Disk:
    """The disk in a directory, if there is one."""

    def __init__(self, directory: Path) -> None:
        self.file_system = directory / "mounted"
        """Where it is mounted."""
        self._directory = directory
        self._image = directory / "image"
        self._shown = directory / "shown"
        self._writer: subprocess.Popen[str] | None = None

    def exists(self) -> bool:
        return self._image.exists()

    def make(self, content: Path) -> None:
        """Make it, with what a directory holds."""
        if reason := why_no_disk():
            raise BedError(f"a disk that forgets cannot be made here: {reason}")
        ensure_tools()
        beside = self._directory / "image.new"
        run(["truncate", f"--size={MEGABYTES}M", beside])
        # Nothing writes to it later on its own account.
        options = "lazy_itable_init=0,lazy_journal_init=1,nodiscard"
        run(["mkfs.ext4", "-q", "-m", "0", "-b", str(BLOCK), "-E", options, "-d", content, beside])
        beside.rename(self._image)

    def insert(self) -> None:
        """Let it be served, repaired as at a boot, and mounted, unless that is done already."""
        if overlay.is_mounted(self.file_system):
            return
        self.remove()  # what somebody left who was interrupted
        check(self._image)
        for directory in (self._shown, self.file_system):
            directory.mkdir(exist_ok=True)
        (self._directory / CONTROL_SOCKET).unlink(missing_ok=True)
        server: list[str | Path] = [sys.executable, "-m", "testbed.disk_server", self._image, self._directory]
        self._start(["env", f"PYTHONPATH={PACKAGING}", "PYTHONDONTWRITEBYTECODE=1", *server])
        self._wait_for(self._directory / CONTROL_SOCKET)
        self._start(["nbdfuse", self._shown / "disk", "--unix", NBD_SOCKET])
        self._wait_for(self._shown / "disk")
        with _loop_device(self._shown / "disk", "--direct-io=on") as device:
            run(["mount", "-t", "ext4", device, self.file_system])

    def fail_power(self, seed: int | None = None) -> tuple[int, Fate]:
        """Fail while the node's memory is being written to it; then it does nothing, and answers nobody: whoever
        waits for it, waits. Then it is `let_go` and `remove`d.

        Args:
            seed: What is left on it depends on this. Default: a random one.

        Returns: The seed, and what became of the writes that were not flushed.
        """
        seed = secrets.randbelow(10**6) if seed is None else seed
        # As the kernel does now and then. Nobody is told that it is done.
        self._writer = popen(["sync", "--file-system", self.file_system], stderr=subprocess.DEVNULL)
        return seed, Fate(*self._order("fail_power", seed=seed))

    def let_go(self) -> None:
        """Fail what waits for a disk without power. To be called once nobody is left who would take an error for a
        sick disk, and go on without it."""
        self._order("let_go")
        if self._writer:
            self._writer.wait()

    def remove(self) -> None:
        """Unmount it. With power, all is on it that was written."""
        if overlay.is_mounted(self.file_system):
            run(["umount", self.file_system])
        # Lazily: this machine's other mount namespaces may still have the file system, though nobody uses it.
        if overlay.is_mounted(self._shown):
            run(["umount", "--lazy", self._shown])

    def break_sectors(self, ranges: Iterable[tuple[int, int]], *, reads: bool = True, writes: bool = True) -> None:
        """Let reads, or writes, of some ranges fail with EIO.

        Args:
            ranges: Offset and length of each, in bytes; see `blocks`.
            reads: Whether reads fail. What is in the node's memory is not read again.
            writes: Whether writes fail.
        """
        self._order("break_sectors", ranges=list(ranges), reads=reads, writes=writes)

    def be_read_only(self) -> None:
        """Take no more writes: they fail."""
        self._order("be_read_only")

    def heal(self) -> None:
        """No more bad sectors, and writes are taken again. The file system may not come back before a boot."""
        self._order("heal")

    def record(self, directory: Path, witness: Path | None = None) -> None:
        """Record every write and flush from now on; see `testbed.forgetful_disk.Recording`."""
        self._order("record", directory=str(directory), witness=witness and str(witness))

    def instant(self) -> int:
        """How many writes and flushes are recorded so far."""
        return int(self._order("instant"))

    def stop_recording(self) -> None:
        self._order("stop_recording")

    def _order(self, order: str, **arguments: Any) -> Any:
        with socket.socket(socket.AF_UNIX) as server:
            try:
                server.connect(str(self._directory / CONTROL_SOCKET))
            except OSError as error:
                raise BedError(f"nobody serves the disk in {self._directory}: {error}", "Boot it.") from error
            with server.makefile("rw") as file:
                file.write(json.dumps({"order": order, **arguments}) + "\n")
                file.flush()
                return json.loads(file.read() or "null")

    def _start(self, argv: list[str | Path]) -> None:
        run(["sh", "-euc", START, "start", self._directory, *argv])

    def _wait_for(self, path: Path) -> None:
        wait_for(path.exists, 10, f"{path}; see {self._directory}/log")


def check(image: Path) -> None:
    """Repair a file system as a boot does (its journal is replayed); if that does not do, as a person would."""
    checked = run(["e2fsck", "-p", image], check=False)
    if checked.returncode >= FSCK_FAILED:
        print(f"testbed: e2fsck -p: {tail(checked.stdout)}", file=sys.stderr, flush=True)
        run(["e2fsck", "-y", image], check=False)


@contextmanager
def mounted(image: Path, at: Path) -> Iterator[Path]:
    """The file system in a file, which nobody else has mounted; repaired as at a boot."""
    check(image)
    at.mkdir(exist_ok=True)
    with _loop_device(image) as device:
        run(["mount", "-t", "ext4", device, at])
    try:
        yield at
    finally:
        run(["umount", at])


@contextmanager
def _loop_device(file: Path, *options: str) -> Iterator[str]:
    """It is there for as long as it is mounted then."""
    device = run(["losetup", "--find", "--show", *options, file]).stdout.strip()
    try:
        yield device
    finally:
        run(["losetup", "--detach", device])


def blocks(file: Path) -> list[tuple[int, int]]:
    """Where a file is on its disk: offset and length of each piece, in bytes."""
    said = run(["filefrag", "-e", f"-b{BLOCK}", "-s", file]).stdout
    rows = re.findall(r"^ +\d+: +\d+\.\. +\d+: +(\d+)\.\. +\d+: +(\d+):", said, re.MULTILINE)
    return [(int(start) * BLOCK, int(length) * BLOCK) for start, length in rows]
