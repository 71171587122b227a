"""The test bed's one door to other programs: argument lists, clean environment, time limit, one typed error.

For programs on this machine. What runs *inside* a node goes through `Node.run`, which comes here in the end.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn, TypeAlias

Argv: TypeAlias = Sequence[str | Path]

# Limits are written down for a machine that has nothing else to do. One that is slower, or busy, is waited for
# longer: a limit only tells what hangs, never how fast something is.
PATIENCE = 4
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
INHERITED = ("http_proxy", "https_proxy", "no_proxy")  # apt and mmdebstrap may need them to reach a mirror
TAIL_LINES = 40


class BedError(Exception):
    """Something a person can act on: what went wrong, and a hint what to do about it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(f"{message}\n{hint}" if hint else message)
        self.message = message
        self.hint = hint


class CommandError(BedError):
    """A program failed or took too long; carries all it said."""

    def __init__(self, argv: Argv, verdict: str, output: tuple[str, str], hint: str = "") -> None:
        self.argv = [str(word) for word in argv]
        self.verdict = verdict
        self.stdout, self.stderr = output
        said = "\n".join(part for part in (tail(self.stdout), tail(self.stderr)) if part)
        super().__init__("\n".join(filter(None, [f"{' '.join(self.argv)}: {verdict}", said])), hint)


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    kept = {name: os.environ[name] for name in INHERITED if name in os.environ}
    return {"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8"} | kept | dict(extra or {})


def run(
    argv: Argv,
    *,
    check: bool = True,
    timeout: float | None = 60,
    input: str | None = None,
    env: Mapping[str, str] | None = None,
    hint: str = "",
    log: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run to the end. `env` is added to a clean environment. `timeout` is in seconds, see `PATIENCE`. With `log`,
    all output is appended to that file (where a person can watch it grow) and comes back as `stdout`."""
    with log.open("a+b") if log else tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        began = out.seek(0, os.SEEK_END)
        limit = timeout and PATIENCE * timeout
        status = _call(argv, input, clean_environment(env), limit, out, out if log else err)
        output = _read(out, began), _read(err, 0)
    if status is None:
        raise CommandError(argv, f"did not finish within {limit} s", output, hint)
    if check and status != 0:
        raise CommandError(argv, f"exit status {status}", output, hint)
    return subprocess.CompletedProcess([str(word) for word in argv], status, *output)


def _call(
    argv: Argv,
    input: str | None,
    env: Mapping[str, str],
    timeout: float | None,
    out: IO[bytes],
    err: IO[bytes],
) -> int | None:
    """The exit status; None when it took too long. Files and not pipes take the output, because a daemon that
    the program leaves behind would hold a pipe open for ever."""
    stdin: dict[str, Any] = {"stdin": subprocess.DEVNULL} if input is None else {"input": input.encode()}
    try:
        return subprocess.run(argv, env=env, timeout=timeout, stdout=out, stderr=err, **stdin).returncode
    except subprocess.TimeoutExpired:
        return None
    except OSError as error:
        raise CommandError(argv, str(error), ("", ""), "Is the program installed?") from error


def _read(stream: IO[bytes], start: int) -> str:
    stream.seek(start)
    return stream.read().decode(errors="replace")


def popen(argv: Argv, *, env: Mapping[str, str] | None = None, **options: Any) -> subprocess.Popen[str]:
    """Start a program that runs beside us; the caller waits for it or ends it."""
    process: subprocess.Popen[str] = subprocess.Popen(argv, env=clean_environment(env), text=True, **options)
    return process


def become(argv: Argv, env: Mapping[str, str] | None = None) -> NoReturn:
    """Replace this process, so that terminal, signals and exit status are the program's own."""
    sys.stdout.flush()
    os.execvpe(argv[0], [str(word) for word in argv], clean_environment(env))


def tail(text: str, lines: int = TAIL_LINES) -> str:
    return "\n".join(text.rstrip().splitlines()[-lines:])


def progress(line: str) -> None:
    """Tell a person who waits; on stderr, because stdout belongs to the result."""
    print(f"testbed: {line}", file=sys.stderr, flush=True)
