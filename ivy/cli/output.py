"""The encoding of what is printed: no character of a sensor's may end a command."""

import io
import sys


def prepare(*, for_programs: bool = False) -> None:
    """Print for programs in UTF-8, whatever the locale; for people what it has, and `?` for the rest."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace", encoding="utf-8" if for_programs else None)
