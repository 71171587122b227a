"""What this machine must have to boot nodes: found out by trying, and installed if it is a Debian package."""

import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from testbed.container import unified_cgroup
from testbed.overlay import mounts_below
from testbed.run import PATH, BedError, progress, run

STATE = Path(os.environ.get("IVY_TESTBED_DIR", "/var/lib/ivy-testbed")).absolute()

PACKAGES = {
    "apt-ftparchive": "apt-utils",
    "gpg": "gnupg",
    "mmdebstrap": "mmdebstrap",
    "systemd-nspawn": "systemd-container",
    "nft": "nftables",
    "ip": "iproute2",
    "git": "git",
    "lighttpd": "lighttpd",
    "nbdfuse": "libnbd-bin",
    "mkfs.ext4": "e2fsprogs",
    "losetup": "mount",
    "openssl": "openssl",
    "ssh-keygen": "openssh-client",
    "mosquitto": "mosquitto",
    "mosquitto_passwd": "mosquitto",
    "mosquitto_sub": "mosquitto-clients",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "setpriv": "util-linux",
    "setsid": "util-linux",
}
# For machines with a kernel of their own, see vm.py.
VM_PACKAGES = {
    "mcopy": "mtools",
    "qemu-img": "qemu-utils",
    "ssh": "openssh-client",
    "xz": "xz-utils",
}
EMULATORS = {
    "arch-test": "arch-test",
    "qemu-system-aarch64": "qemu-system-arm qemu-efi-aarch64",
    "qemu-system-x86_64": "qemu-system-x86 ovmf",
}
SERVICES = {"lighttpd", "mosquitto"}  # each bed starts servers of its own; Debian's would only take the ports
NAMESPACES = ["--mount", "--net", "--pid", "--ipc", "--uts", "--cgroup", "--fork"]
PRIVILEGED = "In a container, it must be a privileged one; or use a virtual machine."


def why_not() -> str | None:
    """The reason why nodes cannot boot here, None if they can. Tries it out, in about 50 ms."""
    if os.geteuid() != 0:
        return "the test bed needs root: try again with sudo"
    if _missing() and shutil.which("apt-get", path=PATH) is None:
        return f"not installed, and there is no apt-get to install it: {', '.join(sorted(_missing()))}"
    for attempt in (_try_namespaces, _try_overlay, _try_cgroup, _try_network):
        if reason := attempt():
            return f"{reason}\n{PRIVILEGED}"
    return None


def why_no_disk() -> str | None:
    """The reason why no node can have a disk that forgets here (see `testbed.disk`), None if one can."""
    for attempt in (_try_fuse, _try_loop):
        if reason := attempt():
            return f"{reason}\n{PRIVILEGED}"
    return None


def ensure_tools(programs: Iterable[str] = PACKAGES) -> None:
    """Install what is missing."""
    known = PACKAGES | VM_PACKAGES | EMULATORS
    packages = sorted({package for program in _missing(programs) for package in known[program].split()})
    if packages:
        _install(packages)
    if not any(Path("/usr/share/keyrings").glob("debian-archive-trixie-stable.*")):
        progress("installing the keys of Debian 13's archive")
        _apt_get("install", "--yes", "debian-archive-keyring")


def _missing(programs: Iterable[str] = PACKAGES) -> set[str]:
    return {program for program in programs if shutil.which(program, path=PATH) is None}


def _install(packages: list[str]) -> None:
    progress(f"installing {' '.join(packages)}")
    _apt_get("update")
    _apt_get("install", "--yes", "--no-install-recommends", *packages)
    for service in SERVICES.intersection(packages):
        run(["service", service, "stop"], check=False)
        run(["update-rc.d", service, "disable"], check=False)


def _apt_get(*arguments: str) -> None:
    run(
        ["apt-get", "--quiet", *arguments],
        env={"DEBIAN_FRONTEND": "noninteractive"},
        timeout=600,
        hint="Is there a network, and does /etc/apt name a Debian mirror?",
    )


def _complaint(what: str, argv: list[str]) -> str | None:
    result = run(argv, check=False)
    return None if result.returncode == 0 else f"{what}: {result.stderr.strip()}"


def _try_namespaces() -> str | None:
    return _complaint("cannot make namespaces", ["unshare", *NAMESPACES, "true"])


def _try_overlay() -> str | None:
    """The upper directory must not be on an overlay itself, as it is in most containers."""
    place = next(directory for directory in (STATE, *STATE.parents) if directory.exists())
    with tempfile.TemporaryDirectory(prefix=".ivy-testbed-", dir=place) as scratch:
        for name in ("lower", "upper", "work", "merged"):
            Path(scratch, name).mkdir()
        options = f"lowerdir={scratch}/lower,upperdir={scratch}/upper,workdir={scratch}/work"
        mount = ["mount", "-t", "overlay", "-o", options, "overlay", f"{scratch}/merged"]
        reason = _complaint(f"cannot mount an overlay in {place}", ["unshare", "--mount", *mount])
        if mounts_below(Path(scratch)):
            raise BedError(f"{scratch} is still mounted", f"umount -R {scratch}")
    return reason and f"{reason}\nSet IVY_TESTBED_DIR to a directory on a real file system (a volume)."


def _try_cgroup() -> str | None:
    unified = unified_cgroup()
    if unified is None:
        return "no cgroup2 file system is mounted (try: mount -t cgroup2 cgroup2 /sys/fs/cgroup)"
    probe = unified / f"ivy-testbed-probe-{os.getpid()}"
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        return f"cannot make a control group: {error}"
    return None


def _try_network() -> str | None:
    if shutil.which("ip", path=PATH) is None:
        return None  # it will be installed
    link = ["unshare", "--net", "ip", "link", "add", "name"]
    return _complaint("cannot make a network bridge", [*link, "probe", "type", "bridge"]) or _complaint(
        "cannot make a virtual network cable", [*link, "probe", "type", "veth", "peer", "name", "probe2"]
    )


def _try_fuse() -> str | None:
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as error:
        return f"cannot open /dev/fuse: {error.strerror}"
    return None


def _try_loop() -> str | None:
    with tempfile.TemporaryDirectory(prefix="ivy-testbed-") as scratch:
        image, mounted = Path(scratch, "image"), Path(scratch, "mounted")
        mounted.mkdir()
        with image.open("wb") as file:
            file.truncate(1 << 20)
        mount = ["mount", "-o", "loop", str(image), str(mounted)]
        return _complaint("cannot make an ext4", ["mkfs.ext4", "-q", str(image)]) or _complaint(
            "cannot mount an ext4 by a loop device", ["unshare", "--mount", *mount]
        )
