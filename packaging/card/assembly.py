"""From the tar of a Debian to an image: three file systems at their places in one file, without a loop device.

What writes them are Debian 13's own tools, for older ones cannot make an ext4 of a tar, with its owners and times
and without any rights. As root they come from a Debian of their own, so that a build on Debian 12 makes the same
bytes; otherwise they must be on this machine.
"""

import os
import re
import shutil
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from testbed.overlay import run_confined, throwaway
from testbed.roots import tools_root
from testbed.run import PATH, BedError, run

from card import layout
from card.layout import Layout, Partition

TOOLS = {
    "bmaptool": "bmap-tools",
    "mcopy": "mtools",
    "mke2fs": "e2fsprogs",
    "mkfs.vfat": "dosfstools",
    "sfdisk": "fdisk",
    "xz": "xz-utils",
}
LIBRARIES = ("libarchive13t64",)  # by which mke2fs reads a tar
OLDEST_MKE2FS = (1, 47, 1)
TIMEOUT = 1800
BLOCK = 4096
ROOT_JOURNAL = 64  # MiB
DATA_JOURNAL = 16
HERE = PurePosixPath(".")
WORKSHOP = "srv/card"  # in the tools' Debian
Run: TypeAlias = Callable[[Sequence[str | Path]], None]


@dataclass(frozen=True)
class Workshop:
    """A directory to work in, and by what. Names are relative to it."""

    directory: Path
    run: Run


@contextmanager
def workshop(epoch: int, scratch: Path) -> Iterator[Workshop]:
    """For one image; gone afterwards, but for what failed.

    Raises:
        BedError: Without root, and a tool is missing here, or too old.
    """
    environment = {"SOURCE_DATE_EPOCH": str(epoch), "TZ": "UTC", "MTOOLS_SKIP_CHECK": "1"}
    if os.geteuid() == 0:
        with throwaway(tools_root((*TOOLS.values(), *LIBRARIES))) as root:
            directory = root / WORKSHOP
            directory.mkdir()

            def confined(argv: Sequence[str | Path]) -> None:
                log = directory / "tools.log"
                run_confined(root, argv, "root", f"/{WORKSHOP}", env=environment, log=log, timeout=TIMEOUT)

            yield Workshop(directory, confined)
    else:
        _check_tools()

        def here(argv: Sequence[str | Path]) -> None:
            run(["env", f"--chdir={scratch}", *argv], env=environment, timeout=TIMEOUT)

        yield Workshop(scratch, here)


def _check_tools() -> None:
    missing = {TOOLS[tool] for tool in TOOLS if shutil.which(tool, path=PATH) is None}
    if not any(Path("/usr/lib").glob("*/libarchive.so.13")):
        missing.update(LIBRARIES)
    if missing:
        raise BedError(f"not installed: {', '.join(sorted(missing))}", "Install them, or try again with sudo.")
    found = re.search(r"\d+(\.\d+)+", run(["mke2fs", "-V"]).stderr)
    if found is None or tuple(map(int, found[0].split("."))) < OLDEST_MKE2FS:
        raise BedError("mke2fs is too old to make a file system of a tar", "Use Debian 13, or try again with sudo.")


def assemble(card: Layout, system: Path, shop: Workshop) -> tuple[Path, Path]:
    """Make the image of a Debian's tar, which is in the workshop.

    Returns: The compressed image, and its bmap.

    Raises:
        BedError: A tool failed.
    """
    image = shop.directory / f"{card.name}.img"
    boot = shop.directory / "boot"
    split(system, shop.directory / "root.tar", shop.directory / "data.tar", boot)
    system.unlink()
    with image.open("wb") as new:
        new.truncate(card.size)
    (shop.directory / "table").write_text(layout.partition_table(card))
    shop.run(["sh", "-c", f"sfdisk --quiet --no-reread --no-tell-kernel {image.name} <table"])
    if card.board.needs_mbr:
        with image.open("r+b") as opened:
            opened.seek(layout.MBR_ENTRIES)
            opened.write(layout.hybrid_entries(card))
    for name, partition, journal in (("root", card.root, ROOT_JOURNAL), ("data", card.data, DATA_JOURNAL)):
        shop.run(mke2fs(partition, image.name, f"{name}.tar", journal))
        (shop.directory / f"{name}.tar").unlink()
    for command in fat(card.boot, image.name, boot):
        shop.run(command)
    bmap = image.with_suffix(".img.bmap")
    shop.run(["bmaptool", "--quiet", "create", "--output", bmap.name, image.name])
    shop.run(["xz", "--threads=0", "-3", image.name])
    return image.with_suffix(".img.xz"), bmap


def split(system: Path, root: Path, data: Path, boot: Path) -> None:
    """One tar into those of two file systems, and a directory for the FAT. Where they are mounted, the root keeps
    empty directories."""
    boot.mkdir()
    with tarfile.open(system) as whole, _writing(root) as rest, _writing(data) as moved:
        for entry in whole:
            path = PurePosixPath(entry.name)
            if inside := _below(path, layout.DATA_MOUNT):
                _take_over(entry, whole, moved, inside)
            elif inside := _below(path, layout.BOOT_MOUNT):
                _extract(entry, whole, boot / inside)
            if not inside or inside == HERE:
                _take_over(entry, whole, rest, path)


def _writing(tar: Path) -> tarfile.TarFile:
    return tarfile.open(tar, "w", format=tarfile.PAX_FORMAT)


def _below(path: PurePosixPath, mount: str) -> PurePosixPath | None:
    """The path as seen from a mount point; None for all that is not at or below it."""
    return path.relative_to(mount[1:]) if path.is_relative_to(mount[1:]) else None


def _take_over(
    entry: tarfile.TarInfo, source: tarfile.TarFile, target: tarfile.TarFile, path: PurePosixPath
) -> None:
    content = source.extractfile(entry) if entry.isreg() else None
    entry.name = f"./{path}" if path != HERE else "."
    entry.pax_headers = {name: value for name, value in entry.pax_headers.items() if name != "path"}
    target.addfile(entry, content)


def _extract(entry: tarfile.TarInfo, source: tarfile.TarFile, path: Path) -> None:
    """What a FAT can hold."""
    if entry.isdir():
        path.mkdir(exist_ok=True)
    elif (content := source.extractfile(entry)) is not None:
        with path.open("wb") as copy:
            shutil.copyfileobj(content, copy)
        os.utime(path, (entry.mtime, entry.mtime))


def mke2fs(partition: Partition, image: str, tar: str, journal: int) -> list[str]:
    """The file system of a tar, at its place in the image.

    Args:
        partition: Where.
        image: The file.
        tar: What is in it.
        journal: Its size in MiB.
    """
    # By the size of its blocks and inodes as on a large disk: it will be one.
    usual = ["-t", layout.FILESYSTEM, "-b", str(BLOCK), "-i", "16384", "-J", f"size={journal}", "-m", "1"]
    extended = f"offset={partition.start},hash_seed={partition.filesystem_id}"
    named = ["-L", partition.name, "-U", str(partition.filesystem_id), "-E", extended]
    return ["mke2fs", "-q", "-F", *usual, *named, "-d", tar, image, f"{partition.size // 1024}k"]


def fat(partition: Partition, image: str, content: Path) -> Iterator[list[str]]:
    """The commands that make the FAT at its place in the image, and fill it in an order that is always the same.

    Args:
        partition: Where.
        image: The file, in the directory above `content`.
        content: What is in it.
    """
    place = ["--offset", str(partition.start // layout.SECTOR)]
    name = ["-i", partition.fat_serial, "-n", "BOOT"]
    yield ["mkfs.vfat", "-F", "32", *place, *name, image, str(partition.size // 1024)]
    for directory in [content, *sorted(path for path in content.rglob("*") if path.is_dir())]:
        inside = directory.relative_to(content)
        where = ["-i", f"{image}@@{partition.start}"]
        if directory != content:
            yield ["mmd", *where, f"::{inside}"]
        files = sorted(str(path.relative_to(content.parent)) for path in directory.iterdir() if path.is_file())
        if files:
            yield ["mcopy", "-m", *where, *files, f"::{inside}"]
