"""What is where on a card: partitions, their names, and the files that say so to boot loader and system.

Pure: nothing here reads or writes a file. All identifiers follow from version, board and architecture, so that one
image is the same each time it is made.

GPT, because systemd-repart grows nothing else. The boot ROM of a Raspberry Pi before the 4 knows only the table of
old (MBR): for that board, the sector before the GPT names the first partition, too (a "hybrid MBR").
"""

import struct
import uuid
from dataclasses import dataclass

SECTOR = 512
MIB = 1024 * 1024
ALIGNMENT = 4 * MIB  # what cards erase at once is a power of two, and seldom more
BOOT_SIZE = 512 * MIB
DATA_SIZE = 64 * MIB  # grown at the first boot
SMALLEST_ROOT = 2048 * MIB
FILESYSTEM = "ext4"  # of root and data
BOOT_MOUNT = "/boot/firmware"  # where Debian's raspi-firmware wants it
DATA_MOUNT = "/var/lib/ivy"

NAMESPACE = uuid.UUID("6f1a2bb4-3c58-5c8e-9d5e-2f3c1c6f7a10")
ESP = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
LINUX = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
ROOT_TYPES = {
    "amd64": "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709",
    "arm64": "B921B045-1DF0-41C3-AF44-4C6F280D3FAE",
}
MBR_ENTRIES = 446
MBR_FAT32 = 0x0C
MBR_PROTECTIVE = 0xEE
NO_CHS = b"\xfe\xff\xff"  # cylinders, heads and sectors that say nothing

# fsck.repair: nobody is there to answer its questions. panic: before sysctl is read, and where no root is found.
KERNEL_OPTIONS = "fsck.repair=yes panic=10 systemd.gpt_auto=no"
CONSOLES = {"amd64": "console=tty0 console=ttyS0,115200", "arm64": "console=tty0 console=ttyAMA0"}


@dataclass(frozen=True)
class Board:
    architectures: tuple[str, ...]  # the usual one first
    packages: tuple[str, ...]  # beside those of all boards and the kernel
    needs_mbr: bool = False
    boots_by_grub: bool = False


BOARDS = {
    "rpi": Board(("arm64",), ("firmware-brcm80211", "raspi-firmware"), needs_mbr=True),
    "generic": Board(("amd64", "arm64"), (), boots_by_grub=True),
}


@dataclass(frozen=True)
class Partition:
    name: str
    start: int  # bytes, as all sizes here
    size: int
    type: str  # GPT's
    id: uuid.UUID  # of the partition
    filesystem_id: uuid.UUID

    @property
    def fat_serial(self) -> str:
        """For a FAT instead, eight hexadecimal digits."""
        return self.filesystem_id.hex[:8]


@dataclass(frozen=True)
class Layout:
    version: str  # ivy's
    board_name: str
    arch: str  # as Debian calls it
    root_size: int = 4096 * MIB

    @property
    def board(self) -> Board:
        return BOARDS[self.board_name]

    @property
    def name(self) -> str:
        """Of the files, without their ends."""
        usual = self.arch == self.board.architectures[0]
        return f"ivy-{self.version}-{self.board_name}{'' if usual else f'-{self.arch}'}"

    @property
    def boot(self) -> Partition:
        return self._partition("boot", ALIGNMENT, BOOT_SIZE, ESP)

    @property
    def root(self) -> Partition:
        return self._partition("root", _end(self.boot), _aligned(self.root_size), ROOT_TYPES[self.arch])

    @property
    def data(self) -> Partition:
        """The last one, so that it can grow."""
        return self._partition("data", _end(self.root), DATA_SIZE, LINUX)

    @property
    def partitions(self) -> tuple[Partition, ...]:
        return self.boot, self.root, self.data

    @property
    def size(self) -> int:
        """Of the image, with room for the second copy of the table."""
        return _end(self.data) + MIB

    def id_of(self, what: str) -> uuid.UUID:
        return uuid.uuid5(NAMESPACE, f"{self.version} {self.board_name} {self.arch} {what}")

    def _partition(self, name: str, start: int, size: int, type: str) -> Partition:
        return Partition(name, start, size, type, self.id_of(f"partition {name}"), self.id_of(f"filesystem {name}"))


def _end(partition: Partition) -> int:
    return partition.start + partition.size


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def parse_size(text: str) -> int:
    """Bytes of a size such as "6G" or "3000M".

    Raises:
        ValueError: It is none, or less than a root needs.
    """
    units = {"M": MIB, "G": 1024 * MIB}
    number, unit = text[:-1], text[-1:].upper()
    if unit not in units or not number.isascii() or not number.isdecimal():
        raise ValueError(f"{text!r} is not a size such as 6G or 3000M")
    if (size := int(number) * units[unit]) < SMALLEST_ROOT:
        raise ValueError(f"{text} is less than the {SMALLEST_ROOT // MIB}M that the system and its upgrades need")
    return size


def partition_table(layout: Layout) -> str:
    """What sfdisk(8) reads."""
    lines = ["label: gpt", f"label-id: {layout.id_of('table')}", "unit: sectors", "sector-size: 512"]
    for part in layout.partitions:
        place = f"start={part.start // SECTOR}, size={part.size // SECTOR}"
        lines.append(f'{place}, type={part.type}, uuid={part.id}, name="ivy-{part.name}"')
    return "\n".join(lines) + "\n"


def hybrid_entries(layout: Layout) -> bytes:
    """The four entries of the MBR, to be written over the protective ones at `MBR_ENTRIES`: the boot partition, and
    what is left of the protective one, by which everybody else knows that there is a GPT."""
    boot = _mbr_entry(MBR_FAT32, layout.boot.start // SECTOR, layout.boot.size // SECTOR)
    return boot + _mbr_entry(MBR_PROTECTIVE, 1, layout.boot.start // SECTOR - 1) + bytes(32)


def _mbr_entry(type: int, start: int, count: int) -> bytes:
    return struct.pack("<B3sB3sII", 0, NO_CHS, type, NO_CHS, start, count)


def fstab(layout: Layout) -> str:
    """The mounts. A node whose boot or data partition is lost still boots, so that its operator can come in: they
    are waited for, and not required. For long, as a slow boot is not to be taken for a lost partition. Only root
    reads the first, where secrets may lie. After an error the others take nothing more, and Debian 13's kernel
    reads nothing of them. That has the machine reboot and check them, see ivy-lost and ivy-programs.service in
    packaging/ivy-node."""
    boot, root, data = layout.partitions
    serial = f"{boot.fat_serial[:4]}-{boot.fat_serial[4:]}".upper()
    lost = "nofail,x-systemd.before=local-fs.target,x-systemd.device-timeout=10min"
    grown = "x-systemd.growfs,x-systemd.after=systemd-repart.service"
    return (
        f"UUID={root.filesystem_id} / {FILESYSTEM} errors=remount-ro,noatime 0 1\n"
        f"UUID={serial} {BOOT_MOUNT} vfat umask=0077,noatime,flush,{lost} 0 2\n"
        f"UUID={data.filesystem_id} {DATA_MOUNT} {FILESYSTEM} errors=remount-ro,noatime,{lost},{grown} 0 2\n"
    )


def repart_definition() -> str:
    """repart.d(5), for the only partition of that type: it takes what the card has left."""
    return f"# The data grow to the end of the card.\n[Partition]\nType={LINUX.lower()}\nLabel=ivy-data\n"


def kernel_options(layout: Layout) -> str:
    """But for those that a board's firmware adds."""
    return f"root=UUID={layout.root.filesystem_id} ro {KERNEL_OPTIONS} {CONSOLES[layout.arch]}"


def grub_config(layout: Layout) -> str:
    """The newest kernel, and the one before where that cannot be read. They are on the root, which has a journal,
    so that an upgrade never writes to the FAT."""
    options = kernel_options(layout)
    entries = "".join(
        f'menuentry "{title}" {{\n    linux /vmlinuz{end} {options}\n    initrd /initrd.img{end}\n}}\n'
        for title, end in (("ivy", ""), ("ivy, with the kernel before", ".old"))
    )
    search = f"search --no-floppy --fs-uuid --set=root {layout.root.filesystem_id}\n"
    return f"set timeout_style=hidden\nset timeout=1\nset default=0\nset fallback=1\n{search}{entries}"
