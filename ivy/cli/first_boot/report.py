"""`ivy-report.txt`: what became of the files of a card, for whoever puts it into a laptop again.

Without secrets. The two runs of a boot write one report together, by what the first one notes in memory.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from ivy import constants, files
from ivy.cli.first_boot.texts import Mistake
from ivy.utils.host import clock

FILE = "ivy-report.txt"
NOTES_DIR = Path("/run/ivy-first-boot")
_TAKEN, _WRONG = "taken.json", "wrong.json"


class Report:
    """What is to be said in one.

    Args:
        card: Where it is written.
        notes: A directory that a boot empties.
    """

    def __init__(self, card: Path, notes: Path = NOTES_DIR) -> None:
        self.card, self._notes = card, notes
        self._taken: list[str] = []
        self._mistakes: list[tuple[str, Mistake]] = []
        self._now: list[str] = []
        self._is_told = False
        with suppress(OSError, ValueError):
            self._taken = [str(line) for line in json.loads((notes / _TAKEN).read_bytes())]

    @property
    def is_well(self) -> bool:
        """Whether nothing was wrong."""
        return not self._mistakes

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to say."""
        return not (self._taken or self._mistakes or self._now)

    def keep_mistakes(self, but: str) -> None:
        """Say again what the last report of this boot said was wrong: nobody has looked since.

        Args:
            but: Of what this is known better now.
        """
        with suppress(OSError, ValueError):
            noted = json.loads((self._notes / _WRONG).read_bytes())
            self._mistakes = [(file, Mistake(what, remedy)) for file, what, remedy in noted if file != but]

    def is_there(self) -> bool:
        """Whether the card has one: somebody has written files onto it."""
        return (self.card / FILE).is_file()

    def take(self, file: str, use: str) -> None:
        """Say that a file was taken in, and what for."""
        line = f"{file}: {use}"
        print(f"taken in: {line}", flush=True)
        if line not in self._taken:
            self._taken.append(line)
        self._note(_TAKEN, self._taken)

    def refuse(self, file: str, mistake: Mistake) -> None:
        """Say what is wrong with a file."""
        lines = "\n".join(f"{file}: {line}" for line in mistake.what.splitlines())
        print(f"ivy: {lines}\n    {mistake.remedy}", file=sys.stderr, flush=True)
        self._mistakes.append((file, mistake))

    def say(self, text: str) -> None:
        """Say how things are now, in place of what was said of that."""
        self._now = text.splitlines()

    def write(self) -> None:
        """Write it. A card that takes nothing is told of, and no reason not to go on.

        Once, as what is told may come here, too.
        """
        path = self.card / FILE
        self._note(_WRONG, [(file, mistake.what, mistake.remedy) for file, mistake in self._mistakes])
        try:
            files.remove_stale(path)
            files.write_atomically(
                path, self.text().encode("utf-8-sig", "backslashreplace"), mode=0o644, follow=False
            )
        except OSError as error:
            was_told, self._is_told = self._is_told, True
            if not was_told:
                print(f"ivy: {path} cannot be written: {error}", file=sys.stderr, flush=True)

    def _note(self, name: str, content: list[Any]) -> None:
        with suppress(OSError):
            self._notes.mkdir(mode=0o755, exist_ok=True)
            files.write_atomically(self._notes / name, json.dumps(content), durable=False)

    def text(self) -> str:
        """As Notepad shows it."""
        return "".join(f"{line}\r\n" for line in self._lines())

    def _lines(self) -> Iterator[str]:
        now = f"{time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC"
        moment = "before its clock was set" if clock.is_synchronised() is False else now
        yield f"ivy {constants.VERSION} on {os.uname().nodename}, {moment}"
        yield ""
        if self._mistakes:
            yield "WRONG, and looked at again at the next boot:"
            for file, mistake in self._mistakes:
                yield from (f"  {file}: {line}" for line in mistake.what.splitlines())
                yield f"      What to do: {mistake.remedy}"
            yield ""
        if self._taken:
            yield "Taken in, and removed from here:"
            yield from (f"  {line}" for line in self._taken)
            yield ""
        if self._now:
            yield "Now:"
            yield from (f"  {line}" for line in self._now)
            yield ""
        if not self._mistakes and self._taken and not self._now:
            yield "All is well."
