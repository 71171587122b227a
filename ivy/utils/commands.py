"""The one door to other programs: argument lists, no shell, a time limit, and one error that says it all."""

import subprocess
from collections.abc import Sequence


class CommandError(RuntimeError):
    """A program failed; the text says which, how, and the end of what it printed."""


def run(arguments: Sequence[str], *, timeout: float) -> str:
    """Run a program to its end.

    Args:
        arguments: The program and its arguments; never a shell string.
        timeout: Seconds after which it is killed.

    Returns: What it printed on its standard output.

    Raises:
        CommandError: It could not be started, took too long, or exited with another status than 0.
    """
    name = " ".join(arguments)
    try:
        done = subprocess.run(arguments, capture_output=True, text=True, errors="replace", timeout=timeout)
    except OSError as error:
        raise CommandError(f"`{name}` cannot be run: {error}") from error
    except subprocess.TimeoutExpired as error:
        raise CommandError(f"`{name}` did not end within {timeout:.0f} s") from error
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()[-2000:]
        raise CommandError(f"`{name}` exited with {done.returncode}: {said}")
    return done.stdout
