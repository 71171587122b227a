"""The node's data on a small disk of their own, which can be filled to the last byte."""

import contextlib
import os
from collections.abc import Generator
from pathlib import Path

from testbed.bed import Node
from testbed.run import run

DATA = "/var/lib/ivy/data"
MEGABYTES = 100  # enough for ivy to keep its reserve, which must be used up before the disk is full
_PIECES = (1 << 20, 1 << 12, 1)


def insert(node: Node) -> None:
    """Put the disk in, empty. The node is powered off and booted; its power may be cut later."""
    node.poweroff()
    image = node.directory / "data.img"
    run(["truncate", f"--size={MEGABYTES}M", image])
    run(["mkfs.ext4", "-q", "-m", "0", image])
    data = node.path(DATA)
    before = data.stat()
    run(["mount", "-o", "loop", image, data])
    os.chown(data, before.st_uid, before.st_gid)
    data.chmod(before.st_mode & 0o777)
    node.boot()


@contextlib.contextmanager
def filler(node: Node) -> Generator[int, None, None]:
    """The descriptor of a file for `fill`, that is gone afterwards, and with it the want of room."""
    path = node.path(DATA) / "filler"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
        path.unlink()


def fill(descriptor: int) -> None:
    """Take all the room that there is now."""
    for size in _PIECES:
        with contextlib.suppress(OSError):
            while True:
                os.write(descriptor, bytes(size))


def give_back(descriptor: int, size: int) -> None:
    """Leave some bytes of room after all."""
    os.ftruncate(descriptor, max(0, os.fstat(descriptor).st_size - size))


def fail(node: Node) -> None:
    """Let the kernel find an error on the disk that is in, which makes it read-only until it was looked after."""
    data = node.path(DATA)
    run(["mount", "-o", "remount,errors=remount-ro", data])
    device = os.path.basename(run(["findmnt", "-no", "SOURCE", data]).stdout.strip())
    Path(f"/sys/fs/ext4/{device}/trigger_fs_error").write_text("1")


def use_up_reserve(node: Node) -> None:
    """As if there had been no room before."""
    (node.path(DATA) / "reserve").unlink(missing_ok=True)
