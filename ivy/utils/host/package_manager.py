"""What the package manager knows: which packages were changed, when it is done with them, what was withdrawn.

dpkg tells by a trigger (debian/ivy.triggers), and the package's script leaves a flag. Installs nothing.
"""

import contextlib
import fcntl
import glob
import os
import re
import struct
import time

from ivy import constants, files
from ivy.utils import notify
from ivy.utils.host import commands

FLAG = os.path.join(constants.UPDATER_RUN_DIR, "packages-changed")
"""Starts a pass. A directory, which mkdir(1) makes whatever is there."""

TAKEN = f"{FLAG}.taken"
"""Its name from the start of a pass on, so that what comes then starts another one: see ivy-updater.service."""

LOCKS = ("/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock")
"""Held by apt from its begin to its end, and by each dpkg."""

LISTS = "/var/lib/apt/lists"
"""Where APT keeps what it has heard of its repositories last."""

_LOCK_QUESTION = "hhqqi"  # struct flock, see fcntl(2)
_WITHDRAWN = "*_ivy-withdrawn"  # see debian/ivy.apt
_VERIFIED = re.compile(r"(?m)^(?:missing|[.?\w]{9}) +(?P<config>c )? *(?P<path>/\S+)")  # see --verify in dpkg(1)
_HALF_INSTALLED = re.compile(".(?:[HUF]|.R)")  # Status-Abbrev in dpkg-query(1)
_LEFT_OUT = ("/usr/share/doc/", "/usr/share/man/")  # small systems do without
_SECONDS_TO_VERIFY = 60
_SECONDS_BETWEEN_LOOKS = 1.0
_SECONDS_OF_REST = 5.0
_MOST_SECONDS = 1800.0


def were_changed() -> bool:
    """Whether packages were changed that ivy runs on, which this pass is to deal with."""
    return os.path.lexists(TAKEN)


def dealt_with() -> None:
    """Forget what was changed; `OSError` if that is impossible."""
    _remove(TAKEN)


def leave_to_next_pass() -> None:
    """Let systemd start another pass when this one has ended; `OSError` if it cannot be told."""
    _remove(FLAG)
    os.rename(TAKEN, FLAG)


def wait_for_end() -> bool:
    """Wait until nobody installs packages, with heartbeats, but not for ever: a question may have been left open.

    Returns: Whether it has come to an end meanwhile, after which whoever has waited is a program of before.
    """
    now = began = free_since = time.monotonic()
    has_waited = False
    # It is free for an instant between two runs of dpkg, too.
    while now - free_since < _SECONDS_OF_REST and now - began < _MOST_SECONDS:
        notify.sleep(_SECONDS_BETWEEN_LOOKS)
        now = time.monotonic()
        if any(map(_is_locked, LOCKS)):
            if not has_waited:
                notify.status("waiting for the end of an installation of packages")
            free_since, has_waited = now, True
    return has_waited and now - began < _MOST_SECONDS


def damaged_files() -> list[str]:
    """The files of ivy's own package that are not as dpkg has unpacked them; none where it cannot tell."""
    try:
        # It fails where a file differs, which says nothing more.
        verify = f"dpkg --verify {constants.NAME} || true"
        said = commands.run(["/bin/sh", "-c", verify], timeout=_SECONDS_TO_VERIFY)
    except commands.CommandError:
        return []
    found = [match["path"] for match in _VERIFIED.finditer(said) if not match["config"]]
    return [path for path in found if not path.startswith(_LEFT_OUT)]


def is_half_installed() -> bool:
    """Whether dpkg was interrupted when it installed ivy, and is not at work now."""
    query = ["dpkg-query", "--show", "--showformat=${db:Status-Abbrev}", constants.NAME]
    try:
        state = commands.run(query, timeout=_SECONDS_TO_VERIFY)
    except commands.CommandError:
        return False
    return bool(_HALF_INSTALLED.match(state)) and not any(map(_is_locked, LOCKS))


def identifier(version: str) -> str:
    """The version of ivy that a package's version stands for: `1.2.0-rc.1` for `1:1.2.0~rc.1`."""
    return version.rpartition(":")[2].replace("~", "-")


def withdrawn() -> set[str]:
    """The versions of ivy that whoever published them has withdrawn, as identifiers, as far as APT has heard."""
    found: set[str] = set()
    for path in glob.glob(os.path.join(LISTS, _WITHDRAWN)):
        with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
            lines = [line.split() for line in file]
            found.update(identifier(words[1]) for words in lines if len(words) == 2 and words[0] == constants.NAME)
    return found


def _remove(path: str) -> None:
    try:
        os.rmdir(path)
    except FileNotFoundError:
        pass
    except OSError:
        files.remove(path)  # what somebody else has put there


def _is_locked(path: str) -> bool:
    """Whether another process holds a lock, by asking: to try it would make another one fail."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            question = struct.pack(_LOCK_QUESTION, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            answer = fcntl.fcntl(descriptor, fcntl.F_GETLK, question)
        finally:
            os.close(descriptor)
        return bool(struct.unpack(_LOCK_QUESTION, answer)[0] != fcntl.F_UNLCK)
    return False
