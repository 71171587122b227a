"""Overlay mounts: a cached root below, what one node or one build changes above.

Knows nothing of nodes; the directories are the caller's.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from testbed.run import Argv, CommandError, run

SCRATCH = Path(os.environ.get("IVY_TESTBED_DIR", "/var/tmp")).absolute()

# A process in there sees no network but its own loopback, no other process, and is not root. By pivot_root(2),
# because after chroot(2) the kernel allows nobody a namespace of their own.
CONFINE = """
umask 022
root=$1; user=$2; directory=$3; shift 3
ip link set lo up
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
mkdir -p "$root/dev/pts" # for tests with a serial line that is none
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
ln -sfn pts/ptmx "$root/dev/ptmx"
mkdir -p "$root/run/systemd" # which systemd-analyze would make, and a user cannot
cd "$root"
pivot_root . .
umount --lazy .
exec setpriv --reuid="$user" --regid="$user" --init-groups env --chdir="$directory" "$@"
"""


def mounts_below(directory: Path) -> list[Path]:
    """Everything mounted at or below `directory`, the latest mount first."""
    points = [Path(line.split()[1]) for line in _mounts().splitlines()]
    return [point for point in reversed(points) if point == directory or directory in point.parents]


def is_mounted(directory: Path) -> bool:
    return directory in mounts_below(directory)


def is_lower_layer(directory: Path) -> bool:
    return str(directory) in _mounts()


def _mounts() -> str:
    return Path("/proc/self/mounts").read_text()


def mount(layers: Sequence[Path], upper: Path, work: Path, target: Path) -> None:
    """Mount `upper` over `layers` (the topmost first) at `target`, unless that is done already."""
    if is_mounted(target):
        return
    for directory in (upper, work, target):
        directory.mkdir(parents=True, exist_ok=True)
    lower = ":".join(str(layer) for layer in layers)
    # redirect_dir: a directory of a lower layer can be renamed, as on a disk, and not only copied.
    options = f"redirect_dir=on,lowerdir={lower},upperdir={upper},workdir={work}"
    run(
        ["mount", "-t", "overlay", "-o", options, "overlay", target],
        hint="If a lower directory is missing, its cached root was removed: testbed down, testbed up.",
    )


def unmount(directory: Path) -> None:
    for point in mounts_below(directory):
        run(["umount", point])


def remove_tree(directory: Path) -> None:
    """Remove a directory, with mounts in it or without. Never reaches through a mount into what it shows."""
    unmount(directory)
    if directory.exists():
        shutil.rmtree(directory)


@contextmanager
def throwaway(root: Path) -> Iterator[Path]:
    """A writable copy of `root` that is gone afterwards."""
    SCRATCH.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="ivy-throwaway-", dir=SCRATCH))
    merged = directory / "merged"
    try:
        directory.chmod(0o755)
        mount([root], directory / "upper", directory / "work", merged)
        yield merged
    finally:
        remove_tree(directory)


def run_confined(
    root: Path, argv: Argv, user: str, directory: str, *, env: Mapping[str, str], log: Path, timeout: float
) -> str:
    """Run a program in `root` as `user`, without network; all it starts ends with it. Returns its output."""
    namespaces = ["--mount", "--net", "--pid", "--ipc", "--uts", "--fork", "--kill-child"]
    inside = ["sh", "-euc", CONFINE, "confine", root, user, directory, *argv]
    try:
        return run(["unshare", *namespaces, *inside], env=env, log=log, timeout=timeout).stdout
    except CommandError as error:  # a person wants to read what failed, and not how it was confined
        raise CommandError(argv, error.verdict, (error.stdout, error.stderr), f"All of it: {log}") from error
