"""With whose rights root's processes touch what belongs to the services: with theirs, in all.

What only reads gives up root's rights for good. What goes on as root asks a child that is fully the services' user
and has a time limit, and checks what it answers: the services could make it wait, or end it. Where nobody is root,
or the files are root's own, as in a checkout, nothing of that is needed.
"""

import contextlib
import json
import os
import pwd
import select
import signal
import stat
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from ivy import constants
from ivy.utils import notify
from ivy.utils.host.commands import CommandError

SECONDS_TO_ANSWER = 30.0
"""How long a child may take. It waits for other processes, and for a card that is slow."""

_MOST_BYTES = 16_000_000
_LONGEST_COMPLAINT = 1000
_SECONDS_TO_END = 2.0
_SECONDS_BETWEEN_LOOKS = 0.01

_REFUSED_BY_SYSTEMD = ("authentication required", "Access denied")

_Answer = TypeVar("_Answer")

_has_given_up = False
"""Whether we were root."""


class NoAnswer(OSError):
    """A child did not do what it was asked; the text says why. Decide without it."""


def why_not_permitted(error: BaseException | None) -> str | None:
    """What to say where only the user is to blame, who is not root; None where that is not so.

    An error that another one is the cause of, such as that of a config, is judged by that.
    """
    if not may_try_sudo() or error is None:
        return None
    if isinstance(error, CommandError) and any(words in error.output for words in _REFUSED_BY_SYSTEMD):
        return f"not permitted, try sudo: {error.output}"
    if isinstance(error, PermissionError):
        return f"not permitted, try sudo: {error.filename or error}"
    return why_not_permitted(error.__cause__)


def may_try_sudo() -> bool:
    """Whether root could do more: it was not root who has given this command."""
    return os.geteuid() != 0 and not _has_given_up


def give_up(directory: str = constants.IVY_DATA_DIR) -> None:
    """Become the owner of a directory, for good, if we are root and it is somebody else's.

    What only root may read must have been opened before.

    Raises:
        OSError: It cannot be done.
    """
    global _has_given_up
    if (owner := _other_owner(directory)) is not None:
        _become(owner)
        _has_given_up = True


def ask(
    work: Callable[[], _Answer],
    directory: str = constants.IVY_DATA_DIR,
    seconds: float = SECONDS_TO_ANSWER,
    *,
    always: bool = False,
) -> _Answer:
    """Let a child do something as the owner of a directory, if we are root and that is another; else do it here.

    Args:
        work: What to do. It returns what JSON can carry; from a child, its caller must check that.
        directory: Where it works.
        seconds: How long the child may take.
        always: A child even if there is no other owner, for the sake of the time limit.

    Returns: What `work` returned.

    Raises:
        NoAnswer: The child failed, took too long, or was killed.
        Exception: What `work` raised, if no child was needed.
    """
    owner = _other_owner(directory)
    if owner is None and not always:
        return work()
    _flush()  # else the child prints it, too
    reader, writer = os.pipe2(os.O_CLOEXEC)
    if (child := os.fork()) == 0:
        _work_as_child(work, owner, writer, seconds)
    os.close(writer)
    try:
        answer: _Answer = _answer_of(child, reader, time.monotonic() + seconds)
        return answer
    finally:
        os.close(reader)


def _other_owner(directory: str) -> os.stat_result | None:
    """The owner of a directory, if it is not the root that we are."""
    if os.geteuid() != 0:
        return None
    try:
        status = os.stat(directory)
    except FileNotFoundError:
        return None
    return None if status.st_uid == 0 else status


def _become(owner: os.stat_result) -> None:
    """Take on user and groups, all of them, with no way back. The kernel then takes all capabilities away."""
    try:
        os.initgroups(pwd.getpwuid(owner.st_uid).pw_name, owner.st_gid)
    except KeyError:  # nobody has this number
        os.setgroups([])
    os.setresgid(owner.st_gid, owner.st_gid, owner.st_gid)
    os.setresuid(owner.st_uid, owner.st_uid, owner.st_uid)
    os.chdir("/")  # root's own directory may be closed now


def _work_as_child(
    work: Callable[[], object], owner: os.stat_result | None, writer: int, seconds: float
) -> NoReturn:
    """Do it, write what comes of it, and end, in any case: what stands above on the stack is the parent's."""
    status = 1
    try:
        notify.mute()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)
        signal.alarm(round(seconds) + 1)  # also if nobody is left to end it
        _close_files(kept=writer)
        if owner is not None:
            _become(owner)
        with os.fdopen(writer, "wb") as file:
            file.write(json.dumps(_result_of(work)).encode())
        status = 0
    except Exception as error:
        _tell_of(error)
    finally:
        _flush()
        os._exit(status)


def _close_files(kept: int) -> None:
    """Close what is open to files, locks above all: they would be held for as long as the child lives."""
    for number in map(int, os.listdir("/proc/self/fd")):
        with contextlib.suppress(OSError):  # that of the list itself
            if number > 2 and number != kept and not stat.S_ISSOCK(os.fstat(number).st_mode):
                os.close(number)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # a terminal that is gone
            stream.flush()


def _result_of(work: Callable[[], object]) -> dict[str, object]:
    try:
        return {"answer": work()}
    except Exception as error:
        if not isinstance(error, OSError) and type(error).__module__ != "sqlite3":
            _tell_of(error)  # no trouble of the node, but ours
        return {"error": str(error) or type(error).__name__}


def _tell_of(error: Exception) -> None:
    import traceback  # not at the top: hardly ever wanted

    traceback.print_exception(error)


def _answer_of(child: int, reader: int, deadline: float) -> Any:
    said = b""
    try:
        said = _read(reader, deadline)
    finally:
        status = _end(child, is_done=bool(said))
    try:
        result = json.loads(said)
        if "answer" in result:
            return result["answer"]
        complaint = str(result["error"])
    except (ValueError, LookupError, TypeError, RecursionError):
        if status is not None and status != -signal.SIGKILL:
            raise NoAnswer(f"whoever was asked for what the services own ended with status {status}") from None
        raise NoAnswer("whoever was asked for what the services own gave no answer in time") from None
    raise NoAnswer(complaint[:_LONGEST_COMPLAINT])


def _read(reader: int, deadline: float) -> bytes:
    """All that is said until the deadline, with heartbeats; nothing if that is not all, or too much."""
    said = bytearray()
    while (rest := deadline - time.monotonic()) > 0 and len(said) <= _MOST_BYTES:
        ready, _, _ = select.select([reader], [], [], min(rest, notify.SECONDS_BETWEEN_HEARTBEATS))
        notify.heartbeat()
        if ready:
            if not (some := os.read(reader, 1 << 16)):
                return bytes(said)
            said += some
    return b""


def _end(child: int, is_done: bool) -> int | None:
    """See that a child ends. Returns its exit status; None if it does not even die, as on a disk that hangs."""
    deadline = time.monotonic() + _SECONDS_TO_END
    while time.monotonic() < deadline:
        if not is_done:
            os.kill(child, signal.SIGKILL)
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    if is_done:
        return _end(child, is_done=False)
    return None
