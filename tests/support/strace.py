"""What a service writes to its disk, call by call, and a service that is killed before one of these calls.

strace counts each system call for itself, so a call is known by its name and how often that was called before. What
a program opens and writes is left out: how often depends on the machine's mood, and the next call of these
(`fsync`, `chmod`, `rename` …) finds what it did.
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

PERSISTENT = [
    *("rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat", "unlink", "unlinkat", "rmdir"),
    *("mkdir", "mkdirat", "chmod", "fchmod", "fchmodat", "chown", "lchown", "fchown", "fchownat"),
    *("truncate", "ftruncate", "fallocate", "pwrite64", "fsync", "fdatasync", "sync"),
]
_CALL = re.compile(r"(?P<name>\w+)\((?P<arguments>.*)\) += (?P<result>-?\d+|\?)")


@dataclass(frozen=True)
class Call:
    """One system call of a program."""

    name: str
    ordinal: int
    """1 for its first call of that name."""
    arguments: str
    result: int
    """Negative if it failed."""

    def __str__(self) -> str:
        return f"{self.name} {self.ordinal} ({self.arguments[:100]})"


def is_persistent(call: Call) -> bool:
    """Whether a call changes, or makes durable, what ivy has on the disk."""
    return call.name in PERSISTENT and ("/var/lib/ivy" in call.arguments or call.name == "sync")


def is_of_the_queue(call: Call) -> bool:
    """Whether SQLite makes a call. How often it does depends on who else has the queue open at that moment."""
    return call.name in ("pwrite64", "fdatasync")


def recording(log: str, calls: Iterable[str] = PERSISTENT) -> list[str]:
    """What stands before a command, so that its calls are written to a file; made for `parse`."""
    return [*_strace(calls), "--decode-fds=path", "--string-limit=4096", f"--output={log}"]


def killing(call: Call) -> list[str]:
    """What stands before a command, so that it is killed when it makes a call, which is not carried out."""
    return [*_strace([call.name]), "--output=/dev/null", f"--inject={call.name}:signal=KILL:when={call.ordinal}"]


def parse(log: str) -> list[Call]:
    """The calls of the recorded program itself; those of programs that it starts are not recorded."""
    made: Counter[str] = Counter()
    calls = []
    for match in filter(None, map(_CALL.match, log.splitlines())):
        made[match["name"]] += 1
        result = -1 if match["result"] == "?" else int(match["result"])
        calls.append(Call(match["name"], made[match["name"]], match["arguments"], result))
    return calls


def _strace(calls: Iterable[str]) -> list[str]:
    # Not with --seccomp-bpf, which is faster: it injects no signals.
    return ["/usr/bin/strace", f"--trace={','.join(calls)}"]
