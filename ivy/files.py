"""Files of the data directory: written whole or not at all, and owned by the services whoever makes them.

Not for whole directories (see `ivy.utils.updates.releases`). What cannot be done raises `OSError`.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Generator
from pathlib import Path

_MOST_BYTES = 16_000_000
_SHARED = 0o660
_OUT_OF_PLACE = (errno.ELOOP, errno.EINVAL, errno.EFBIG, errno.EISDIR, errno.ENXIO)


def as_owner_of(directory: str) -> contextlib.AbstractContextManager[None]:
    """Be the owner of a directory, across the body of a `with`, if we are root: user, group and no other groups.

    The owner can put links into it at any instant, even between a check and what follows. What root does there with
    no other rights than the owner's own leads nowhere that the owner could not go. But the owner can make it wait:
    whoever must not wait asks a child, see `ivy.utils.host.rights`.

    Args:
        directory: Where it does not exist, nothing changes.
    """
    if os.geteuid() != 0 or not os.path.isdir(directory) or (owner := os.stat(directory)).st_uid == 0:
        return contextlib.nullcontext()
    return _as(owner)


@contextlib.contextmanager
def _as(owner: os.stat_result) -> Generator[None, None, None]:
    group, groups = os.getegid(), os.getgroups()
    try:
        os.setgroups([owner.st_gid])  # root's own would open what the owner may not read
        os.setegid(owner.st_gid)
        os.seteuid(owner.st_uid)
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)


def open_regular(path: str, flags: int = os.O_RDONLY, mode: int = 0o640, most_bytes: int | None = None) -> int:
    """Open a file that somebody else may have put there. Never waits, as opening a pipe or a leased file would.

    What it is is asked of the opened file: a name may lead elsewhere an instant later.

    Args:
        path: The file.
        flags: As for `os.open`.
        mode: Its permissions, if it is made.
        most_bytes: How large it may be; None for any size.

    Returns: The descriptor.

    Raises:
        OSError: It cannot be opened, is not a regular file (but a link, a pipe, …), or is too large.
    """
    never_waits = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
    descriptor = os.open(path, flags | never_waits, mode)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "is not a regular file", path)
    if most_bytes is not None and status.st_size > most_bytes:
        os.close(descriptor)
        raise OSError(errno.EFBIG, "is too large", path)
    return descriptor


def read(path: str, most_bytes: int = _MOST_BYTES) -> bytes:
    """The content of a file that somebody else may have put there.

    Raises:
        OSError: As for `open_regular`; by default it may have 16 MB.
    """
    with os.fdopen(open_regular(path, most_bytes=most_bytes), "rb") as file:
        if len(content := file.read(most_bytes + 1)) > most_bytes:
            raise OSError(errno.EFBIG, "is too large", path)
    return content


def is_out_of_place(error: OSError) -> bool:
    """Whether `open_regular` found something else than a regular file of a usual size."""
    return error.errno in _OUT_OF_PLACE


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
    """Open a file for reading and writing, made if it does not exist: for owner and group of its directory.

    Made by root (the command, the updater), it is given to the owner of its directory: what root makes in the
    data directory must stay writable for the services.

    Returns: The descriptor.

    Raises:
        OSError: The file cannot be opened, or is not a regular file.
    """
    descriptor = open_regular(path, os.O_RDWR | os.O_CREAT | flags, 0o600)
    status = os.fstat(descriptor)
    if status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) != _SHARED:
        os.fchmod(descriptor, _SHARED)  # whatever the umask is
    if os.geteuid() == 0:
        owner = os.stat(os.path.dirname(path))
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
    return descriptor


def make_directory(path: str) -> None:
    """Make a directory if it does not exist, owned as its parent, and with its permissions for the group."""
    if os.path.isdir(path):
        return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    parent = os.stat(os.path.dirname(path))
    before = os.umask(0)  # no chmod() afterwards: it would take away the setgid bit that is inherited
    try:
        os.mkdir(path, mode=0o750 | parent.st_mode & stat.S_IWGRP)
    except FileExistsError:
        return
    finally:
        os.umask(before)
    if os.geteuid() == 0:
        os.chown(path, parent.st_uid, parent.st_gid, follow_symlinks=False)


def write_atomically(
    path: Path,
    content: str | bytes,
    *,
    mode: int = 0o640,
    durable: bool = True,
    follow: bool = True,
    group_of: Path | None = None,
) -> None:
    """Replace the content of a file in one step: written beside, synced, renamed.

    An existing file keeps its owner; a new one gets that of its directory, so that what root writes for the
    services stays theirs.

    Args:
        path: The file. Its directory must exist.
        content: The new content; text is stored as UTF-8.
        mode: The permissions of the file.
        durable: Whether the content must survive a power cut (pointless on a tmpfs).
        follow: Whether a symbolic link is followed and not replaced: see `as_owner_of`.
        group_of: A file or directory whose group may read it, instead: for what root keeps, and services read.

    Raises:
        OSError: The file could not be written; the old content is untouched.
    """
    path = path.resolve() if follow else path
    owner = path.stat(follow_symlinks=follow) if os.path.lexists(path) else path.parent.stat()
    group = owner.st_gid if group_of is None or not group_of.exists() else group_of.stat().st_gid
    # Not by tempfile, which brings compression and random numbers into the memory of every service. And by more
    # than the process number: each procedure is number 1 in a namespace of its own.
    beside = path.with_name(f".{path.name}.{os.getpid()}-{int.from_bytes(os.urandom(8))}")
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
