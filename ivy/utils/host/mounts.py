"""The disk of the data: its room, and whether what is stored is still there after a boot. Mounts nothing."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from ivy import constants

LOST = "what is stored here is lost at the next boot"
"""What to say where `lost_places` finds any, in front of them."""

WAY_OUT = f"give {constants.IVY_ROOT_DIR} a partition of its own, see the README, On a Raspberry Pi"
"""What to do about it."""

FEW_FILES = 1000
"""Where fewer than so many more files are possible, there is little room."""

_IN_MEMORY = {"tmpfs", "ramfs"}


@dataclass(frozen=True)
class Mount:
    """A line of the table, see proc_pid_mountinfo(5)."""

    kind: str
    source: str
    options: Sequence[str]


@dataclass(frozen=True)
class Disk:
    """The file system of the data, as services may use it."""

    used_percent: float
    free_bytes: int
    free_megabytes: int
    free_files: int | None
    """How many files more are possible; None where that has no limit."""
    read_only: bool

    @property
    def has_few_files(self) -> bool:
        """Whether there is no room, whatever bytes are free: each file needs an inode."""
        return self.free_files is not None and self.free_files < FEW_FILES


def disk(path: str = constants.IVY_DATA_DIR) -> Disk:
    """Ask for the room.

    Raises:
        OSError: The path cannot be reached.
    """
    status = os.statvfs(path)
    used, free = status.f_blocks - status.f_bfree, status.f_bavail * status.f_frsize
    return Disk(
        used_percent=round(100 * used / max(1, used + status.f_bavail), 1),
        free_bytes=free,
        free_megabytes=round(free / 1e6),
        free_files=status.f_favail if status.f_files > 0 else None,
        read_only=bool(status.f_flag & os.ST_RDONLY),
    )


def lost_places() -> list[str]:
    """Where ivy stores what the next boot will not find: `/var/lib/ivy/data (overlay)`. Empty if all is kept.

    Raises:
        OSError: The table of mounts cannot be read.
    """
    places = dict.fromkeys([constants.IVY_DATA_DIR, constants.IVY_ROOT_DIR])  # each once, the data first
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        table = file.read()
    found = ((place, lost_on(number_of(place), table)) for place in places)
    return [f"{place} ({kind})" for place, kind in found if kind is not None]


def lost_on(number: str, table: str, *, is_machine: bool | None = None) -> str | None:
    """The kind of file system that is mounted, if a boot loses what is stored there; None if it is kept.

    Args:
        number: That of the mount, see `number_of`.
        table: The content of the table of mounts.
        is_machine: Whether systemd booted this as a machine and not as a container; found out if None.
    """
    mounts = dict(_parse(line) for line in table.splitlines())
    mount = mounts.get(number)
    if mount is None:
        return None
    if mount.kind == "overlay":
        if is_machine is None:
            is_machine = os.path.isdir("/run/systemd/system") and not os.path.exists("/run/systemd/container")
        lost = _is_lost_overlay(mount, mounts, is_machine)
    else:
        lost = _is_in_memory(mount)
    return mount.kind if lost else None


def _is_lost_overlay(mount: Mount, mounts: dict[str, Mount], is_machine: bool) -> bool:
    """Whether the changes to an overlay are kept in memory, where they can be seen.

    Where they cannot: the initramfs of a machine has mounted a tmpfs for them that nothing leads to any more.
    Containers have them on the disk of a machine that they do not see, as a rule.
    """
    upper = next((option[9:] for option in mount.options if option.startswith("upperdir=")), None)
    if upper is None:  # it takes no changes at all
        return False
    below = mounts.get(number_of(upper))
    # No overlay can be the upper layer of another one, so that is some other directory with the same name.
    return is_machine if below is None or below.kind == "overlay" else _is_in_memory(below)


def _is_in_memory(mount: Mount) -> bool:
    return mount.kind in _IN_MEMORY or mount.source.startswith("/dev/zram")


def number_of(path: str) -> str:
    """The number of the mount that a path leads to; empty if there is no such path.

    Where it is hidden from us, that of what is above it.
    """
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except PermissionError:
        return number_of(os.path.dirname(path))
    except OSError:
        return ""
    try:
        with open(f"/proc/self/fdinfo/{descriptor}", encoding="ascii") as file:
            return dict(line.split(":", 1) for line in file)["mnt_id"].strip()
    finally:
        os.close(descriptor)


def _parse(line: str) -> tuple[str, Mount]:
    mount, _, file_system = line.partition(" - ")
    kind, source, options = file_system.split(" ")[:3]
    return mount.split(" ")[0], Mount(kind, source, [_plain(part) for part in options.split(",")])


def _plain(text: str) -> str:
    r"""A field without the kernel's escapes: `\040` is a space."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
