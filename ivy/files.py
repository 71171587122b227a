"""Files of the data directory: written whole or not at all, and owned by the services whoever makes them.

Not for whole directories (see `ivy.utils.updates.releases`). What cannot be done raises `OSError`.
"""

import contextlib
import errno
import os
import stat
import threading
from collections.abc import Generator
from pathlib import Path

_MOST_BYTES = 16_000_000


@contextlib.contextmanager
def as_owner_of(directory: str) -> Generator[None, None, None]:
    """Be the owner of a directory, across the body of a `with`, if we are root.

    The owner can put links into it at any instant, even between a check and what follows. What root does there with
    no other rights than the owner's own leads nowhere that the owner could not go.

    Args:
        directory: Where it does not exist, nothing changes.
    """
    is_root = os.geteuid() == 0 and os.path.isdir(directory)
    owner = os.stat(directory) if is_root else None
    if owner is None or owner.st_uid == 0:
        yield
        return
    group = os.getegid()
    os.setegid(owner.st_gid)
    os.seteuid(owner.st_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)


def read(path: str) -> bytes:
    """The content of a file that somebody else may have put there. Never waits, as reading from a pipe would.

    Raises:
        OSError: It cannot be read, is not a regular file (but a link, a pipe, …), or has more than 16 MB.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "is not a regular file", path)
    with os.fdopen(descriptor, "rb") as file:
        if len(content := file.read(_MOST_BYTES + 1)) > _MOST_BYTES:
            raise OSError(errno.EFBIG, "is too large", path)
    return content


def remove(path: str) -> None:
    """Remove whatever is there, if anything is; what a link leads to stays."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except IsADirectoryError:
        import shutil  # not at the top: it brings compression into the memory of every service

        os.chmod(path, 0o700)  # its owner may have closed it
        for parent, names, _ in os.walk(path):
            for name in names:
                with contextlib.suppress(OSError):
                    os.chmod(os.path.join(parent, name), 0o700)
        shutil.rmtree(path)


def sync(path: Path) -> None:
    """Make the content of a file durable; of a directory, the renames and new names in it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_shared(path: str, flags: int = 0) -> int:
    """Open a file for reading and writing, made if it does not exist.

    Made by root (the command, the updater), it is given to the owner of its directory: what root makes in the
    data directory must stay writable for the services.

    Returns: The descriptor.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | flags, 0o640)
    if os.geteuid() == 0:
        owner = os.stat(os.path.dirname(path))
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
    return descriptor


def make_directory(path: str) -> None:
    """Make a directory if it does not exist, owned as its parent."""
    if os.path.isdir(path):
        return
    os.makedirs(path, mode=0o750, exist_ok=True)
    if os.geteuid() == 0:
        owner = os.stat(os.path.dirname(path))
        os.chown(path, owner.st_uid, owner.st_gid)


def write_atomically(
    path: Path,
    content: str | bytes,
    *,
    mode: int = 0o640,
    durable: bool = True,
    group_of: Path | None = None,
) -> None:
    """Replace the content of a file in one step: written beside, synced, renamed.

    An existing file keeps its owner; a new one gets that of its directory, so that what root writes for the
    services stays theirs. A symbolic link is followed, not replaced: see `as_owner_of`.

    Args:
        path: The file. Its directory must exist.
        content: The new content; text is stored as UTF-8.
        mode: The permissions of the file.
        durable: Whether the content must survive a power cut (pointless on a tmpfs).
        group_of: A file or directory whose group may read it, instead: for what root keeps, and services read.

    Raises:
        OSError: The file could not be written; the old content is untouched.
    """
    path = path.resolve()
    owner = path.stat() if path.exists() else path.parent.stat()
    group = owner.st_gid if group_of is None else group_of.stat().st_gid
    # Not by tempfile, which brings compression and random numbers into the memory of every service.
    beside = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
    beside.unlink(missing_ok=True)  # of a process that was killed, and whose number is used again
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            if os.geteuid() == 0:
                os.fchown(descriptor, owner.st_uid, group)
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            if durable:
                os.fsync(descriptor)
        beside.rename(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    if durable:
        sync(path.parent)


def remove_stale(path: Path) -> None:
    """Remove what writers of a file left beside it who were killed. Nobody may be writing it now."""
    for beside in path.parent.glob(f".{path.name}.[0-9]*-[0-9]*"):
        beside.unlink(missing_ok=True)
