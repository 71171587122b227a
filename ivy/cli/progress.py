"""What a person reads who waits at a terminal for the updater. Not for services, whose lines go to the journal."""

import contextlib
import sys
import textwrap

from ivy.utils.logger import Logger


class Progress(Logger):
    """A logger whose lines on the terminal are for reading: without date, origin and level, errors on stderr."""

    def _write_to_operator_here(self, level: str, subject: str, blocks: list[tuple[str, str]]) -> None:
        if level == "DEBUG":
            return
        is_error = level in ("ERROR", "EXCEPTION")
        below = "".join(f"\n{textwrap.indent(text.strip(), '    ')}" for _, text in blocks)
        with contextlib.suppress(OSError, ValueError):  # a terminal that is gone is no reason to stop halfway
            print(
                f"{'ivy: ' if is_error else ''}{subject}{below}", flush=True, file=sys.stderr if is_error else None
            )
