"""Programs of another processor than this machine's, run by qemu-user and the kernel's binfmt_misc(5)."""

import functools
import os
from pathlib import Path

from testbed.run import BedError, run

HANDLERS = Path("/proc/sys/fs/binfmt_misc")
NAMES = {"amd64": "qemu-x86_64", "arm64": "qemu-aarch64", "armhf": "qemu-arm"}
"""The architectures that ivy is tried on, and by what the kernel runs them elsewhere."""


@functools.cache
def native() -> str:
    """This machine's architecture, as Debian calls it."""
    return run(["dpkg", "--print-architecture"]).stdout.strip()


def architecture() -> str:
    """That of the roots in which tests run. One for all that a run starts, so it crosses by the environment."""
    return os.environ.get("IVY_ARCH") or native()


def slowness(arch: str) -> int:
    """How many times as long things may take."""
    return 1 if arch == native() else 12


def makers(arch: str) -> list[str]:
    """The programs that make a root: mmdebstrap, and what tells it that programs of another processor run here."""
    return ["mmdebstrap"] if arch == native() else ["mmdebstrap", "arch-test"]


def ensure_emulation(arch: str) -> None:
    """See that programs of an architecture run here.

    Raises:
        BedError: They do not.
    """
    if arch != native() and not (HANDLERS / NAMES.get(arch, arch)).exists():
        raise BedError(
            f"this machine does not run programs of {arch}",
            "Where binfmt_misc is not mounted (in a container, say): "
            f"mount -t binfmt_misc binfmt_misc {HANDLERS}\n"
            "Then: apt-get install qemu-user-static binfmt-support && update-binfmts --enable",
        )
