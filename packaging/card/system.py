"""The Debian that is on a card, as one tar: made by mmdebstrap with a kernel, an SSH server, a network, and ivy.

What makes a card its own (machine-id, SSH host keys) is not in there; each makes it at its first boot. Nobody can
log in: there is no password, and SSH takes keys only.
"""

import hashlib
import io
import os
import re
import shlex
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path

from testbed import emulation, roots
from testbed.run import BedError, run

from card import layout
from card.layout import Layout

HOST_NAME = "ivy-node"
SECONDS_TO_MAKE = 1800
SECONDS_OF_EMULATION = 5400
PACKAGES_INSIDE = "tmp/ivy-packages"
# What every card has. NetworkManager rather than systemd-networkd: it is what reads a wifi.nmconnection, and what
# ModemManager tells of LTE sticks.
PACKAGES = (
    "ca-certificates",
    "dbus",
    "dosfstools",
    "e2fsprogs",
    "initramfs-tools",
    "iproute2",
    "iputils-ping",
    "kmod",
    "less",
    "man-db",
    "modemmanager",
    "nano",
    "network-manager",
    "openssh-server",
    "procps",
    "python3",
    "systemd",
    "systemd-repart",
    "systemd-sysv",
    "systemd-timesyncd",
    "udev",
    "unattended-upgrades",
    "usb-modeswitch",
    "wireless-regdb",
    "wpasupplicant",
    "zstd",
)
# GRUB as one file, which reads its configuration in EFI/debian. Not as a package, which would have to be told at
# each upgrade where to write.
GRUB = {
    "amd64": ("x86_64-efi/monolithic/grubx64.efi", "BOOTX64.EFI"),
    "arm64": ("arm64-efi/monolithic/grubaa64.efi", "BOOTAA64.EFI"),
}
OFFICIAL = "http://deb.debian.org/debian"
SSH = """\
# By key only. Whose, is said by authorized_keys on the boot partition.
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
"""
APT = """\
// A card has little room.
APT::Install-Recommends "false";
Acquire::Languages "none";
"""
RASPI_FIRMWARE = """\
# Read by the hooks of Debian's raspi-firmware, which write cmdline.txt and config.txt.
ROOTPART={root}
CONSOLES="ttyS1,115200 tty0"
# With any other value a Pi 4 does not boot, and no other board needs memory for a screen.
CMA=0
"""
INITRAMFS = """\
# Its fsck is for this; where the card is made there is no root that could be asked.
FSTYPE={type}
"""
SOURCES = "etc/apt/sources.list.d/debian.sources"
# One stanza for each archive: deb822, see sources.list(5).
DEBIAN_SOURCES = """\
Types: deb
URIs: {official}
Suites: {suite} {suite}-updates
Components: {components}
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: {security}
Suites: {suite}-security
Components: {components}
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""


def packages(card: Layout) -> list[str]:
    """What Debian gives."""
    return sorted({*PACKAGES, *card.board.packages, f"linux-image-{card.arch}"})


def files(card: Layout) -> dict[str, str]:
    """What is written before the packages come, path to content: the kernel's hooks read some of it."""
    components = _components(card)
    written = {
        "etc/apt/apt.conf.d/60ivy-image": APT,
        f"{SOURCES}.new": DEBIAN_SOURCES.format(
            official=OFFICIAL, security=_security(OFFICIAL), suite=roots.suite(), components=components
        ),
        "etc/fstab": layout.fstab(card),
        "etc/hostname": f"{HOST_NAME}\n",
        "etc/hosts": f"{roots.HOSTS}127.0.1.1 {HOST_NAME}\n",
        "etc/initramfs-tools/conf.d/ivy-image": INITRAMFS.format(type=layout.FILESYSTEM),
        "etc/repart.d/50-data.conf": layout.repart_definition(),
        "etc/ssh/sshd_config.d/ivy-image.conf": SSH,
    }
    if card.board.boots_by_grub:
        written[f"{layout.BOOT_MOUNT[1:]}/EFI/debian/grub.cfg"] = layout.grub_config(card)
    else:
        root = f"UUID={card.root.filesystem_id}"
        written["etc/default/raspi-firmware"] = RASPI_FIRMWARE.format(root=root)
        written["etc/default/raspi-extra-cmdline"] = f"{layout.KERNEL_OPTIONS}\n"
    return written


def make(card: Layout, ivy: Sequence[Path], epoch: int, target: Path) -> None:
    """Make the tar. As root, or as somebody who has subordinate ids (see subuid(5)).

    Args:
        card: Which.
        ivy: The packages that were built here.
        epoch: No file is younger, in Unix seconds.
        target: The tar; what mmdebstrap says is beside it, in `mmdebstrap.log`.

    Raises:
        BedError: It could not be made.
    """
    own = target.with_name("own.tar")
    write_own(card, ivy, epoch, own)
    kept = _kept_packages(card.arch)
    fetched = target.with_name("fetched")
    fetched.mkdir()
    hooks = [
        '--setup-hook=mkdir -p "$1"/var/cache/apt/archives',
        f"--setup-hook=sync-in {kept} /var/cache/apt/archives",
        f"--essential-hook=tar-in {own} /",
        f"--customize-hook=sync-out /var/cache/apt/archives {fetched}",
        *(f"--customize-hook={hook}" for hook in finishing(card, epoch)),
    ]
    command: list[str | Path] = [
        "mmdebstrap",
        "--variant=minbase",
        f"--architectures={card.arch}",
        "--format=tar",
        "--skip=essential/unlink",  # of the packages, which are kept for the next time
        '--aptopt=APT::Install-Recommends "false"',
        '--aptopt=Acquire::Languages "none"',
        "--dpkgopt=force-confold",
        "--dpkgopt=force-unsafe-io",  # it does not wait for the disk after each file
        f"--include={','.join(packages(card))}",
        *hooks,
        roots.suite(),
        target,
        *sources(card),
    ]
    log = target.with_name("mmdebstrap.log")
    environment = {
        "SOURCE_DATE_EPOCH": str(epoch),
        "TMPDIR": str(target.parent),
        "DEBIAN_FRONTEND": "noninteractive",
    }
    limit = SECONDS_TO_MAKE if card.arch == emulation.native() else SECONDS_OF_EMULATION
    hint = f"All of it: {log}\nThis needs the network; IVY_DEBIAN_MIRROR names another mirror."
    run(command, env=environment, timeout=limit, log=log, hint=hint)
    for package in kept.glob("*.deb"):
        if not (fetched / package.name).exists():
            package.unlink()
    for package in fetched.glob("*.deb"):
        shutil.move(package, kept / package.name)


def digests(tar: Path) -> dict[str, str]:
    """A digest of each file in a tar: of its content, owner, mode, time, and where a link leads."""
    found = dict[str, str]()
    with tarfile.open(tar) as opened:
        for entry in opened:
            about = (entry.type, entry.mode, entry.uid, entry.gid, entry.mtime, entry.linkname, entry.size)
            content = opened.extractfile(entry) if entry.isreg() else None
            digest = hashlib.sha256(repr(about).encode())
            digest.update(content.read() if content else b"")
            found[entry.name] = digest.hexdigest()
    return found


def finishing(card: Layout, epoch: int) -> list[str]:
    """Shell commands of mmdebstrap's, with the root as $1: ivy, and then away with what is this machine's, or one
    card's. What packages built, the first boot need not build again (ConditionNeedsUpdate= in systemd.unit(5)).
    """
    built = f"TIMESTAMP_NSEC={epoch}000000000"
    return [
        *([_fetch_grub(card.arch)] if card.board.boots_by_grub else []),
        _install_ivy(),
        'rm -f "$1"/etc/ssh/ssh_host_* "$1"/etc/resolv.conf "$1"/etc/apt/sources.list',
        'rm -f "$1"/etc/apt/sources.list.d/0000* "$1"/etc/apt/apt.conf.d/99mmdebstrap',
        'rm -f "$1"/etc/dpkg/dpkg.cfg.d/99mmdebstrap "$1"/var/lib/systemd/random-seed',
        'rm -rf "$1"/var/cache/man/*',
        'rm -f "$1"/var/lib/ivy/*/.venv/fits',  # inodes and times of this disk; the node asks again
        f'mv "$1/{SOURCES}.new" "$1/{SOURCES}"',
        f'echo {built} >"$1/etc/.updated" && echo {built} >"$1/var/.updated"',
    ]


def _install_ivy() -> str:
    """On a machine of the card's name, which ivy takes for the node's until there is a better one."""
    install = f'chroot "$1" sh -c "apt-get install --yes /{PACKAGES_INSIDE}/*.deb"'
    inside = shlex.quote(f"hostname {HOST_NAME}; {install}")
    return f'unshare --uts sh -ec {inside} install "$1" && rm -r "$1/{PACKAGES_INSIDE}"'


def _fetch_grub(arch: str) -> str:
    found, name = GRUB[arch]
    steps = (
        "cd /tmp",
        f"apt-get download grub-efi-{arch}-unsigned",
        f"dpkg-deb --extract grub-efi-{arch}-unsigned_*.deb grub",
        f"install -D -m 644 grub/usr/lib/grub/{found} {layout.BOOT_MOUNT}/EFI/BOOT/{name}",
        "rm -r grub grub-efi-*",
    )
    return f'chroot "$1" sh -c {shlex.quote(" && ".join(steps))}'


def sources(card: Layout) -> list[str]:
    """Lines of sources.list(5) by which it is made: the mirror, and its security updates if it has them at the
    usual place beside."""
    mirror, components = roots.mirror(), _components(card)
    lines = [f"deb {mirror} {roots.suite()}{updates} {components}" for updates in ("", "-updates")]
    if (security := _security(mirror)) != mirror:
        lines.append(f"deb {security} {roots.suite()}-security {components}")
    return lines


def _components(card: Layout) -> str:
    return "main" if card.board.boots_by_grub else "main non-free-firmware"


def _security(mirror: str) -> str:
    return re.sub(r"/debian(?=/|$)", "/debian-security", mirror)


def write_own(card: Layout, ivy: Sequence[Path], epoch: int, target: Path) -> None:
    """A tar of `files`, and of the packages."""
    contents = {name: text.encode() for name, text in files(card).items()}
    contents |= {f"{PACKAGES_INSIDE}/{package.name}": package.read_bytes() for package in ivy}
    with tarfile.open(target, "w") as tar:
        for directory in _new_directories(contents):
            _add(tar, directory, epoch)
        for name, content in sorted(contents.items()):
            _add(tar, name, epoch, content)


def _new_directories(names: dict[str, bytes]) -> list[str]:
    """But for those that are there anyhow, whose rights are Debian's."""
    above = {str(parent) for name in names for parent in Path(name).parents}
    return sorted(name for name in above if name not in {".", "etc", "tmp", "boot", "etc/default"})


def _add(tar: tarfile.TarFile, name: str, epoch: int, content: bytes | None = None) -> None:
    entry = tarfile.TarInfo(name)
    entry.mtime = epoch
    entry.type, entry.mode = (tarfile.DIRTYPE, 0o755) if content is None else (tarfile.REGTYPE, 0o644)
    entry.size = len(content or b"")
    tar.addfile(entry, io.BytesIO(content or b""))


def _kept_packages(arch: str) -> Path:
    """What was downloaded the last time."""
    above = roots.CACHE if os.geteuid() == 0 else Path.home() / ".cache/ivy-testbed"
    kept = above / f"image-packages-{arch}"
    kept.mkdir(parents=True, exist_ok=True)
    return kept


def find_packages(version: str) -> list[Path]:
    """What packaging/build-deb made.

    Raises:
        BedError: It did not, of this version.
    """
    dist = roots.PROJECT / "dist"
    wanted = [dist / f"{name}_{version}_all.deb" for name in ("ivy", "ivy-node")]
    if missing := [package for package in wanted if not package.exists()]:
        raise BedError(f"there is no {missing[0]}", "Make it first: packaging/build-deb")
    return wanted
