"""What a picture is drawn on, in gnuplot's words: a file, or the terminal as far as it can show one."""

import locale
import os
import shutil
import sys
from dataclasses import dataclass

BESIDE_LINES = 14
"""Columns for the labels of values and times."""

FILE_BINS = 800
"""As many as a panel in a file has pixels."""

FILE_KINDS = {
    "svg": ("svg", 1, 'font "sans-serif,12"'),
    "png": ("png truecolor", 2, 'font "sans,18" linewidth 2'),  # twice as large: sharp on paper, too
}
_WIDTH, _COLUMN, _ROW = 920, 8, 24  # of a file, in pixels
_ROWS_IN_A_FILE = 10
_FEWEST_COLUMNS = 30
_FEWEST_ROWS, _MOST_ROWS = 6, 16  # of a panel, with its title and times
_ROWS_BESIDE_PANELS = 3  # caption, the prompt, and the command above it
_AS_TEXT = (
    ("\u2800", " "),  # braille without dots
    ("\033[22;37m", "\033[22;39m"),  # axes have the colour of texts: both are visible on any background
    ("\n\033[0;39;49m", "\033[0;39;49m"),  # no line for the end of colours
)


@dataclass(frozen=True)
class Paper:
    """gnuplot's words for it, its columns, and the rows of a panel with its title and times."""

    terminal: str
    columns: int
    rows: int


def of_file(kind: str, panels: int) -> Paper:
    """A file of one of `FILE_KINDS` with room for so many panels."""
    terminal, scale, options = FILE_KINDS[kind]
    size = f"{scale * _WIDTH},{scale * (panels * _ROWS_IN_A_FILE + 1) * _ROW}"
    words = f'{terminal} size {size} rounded background "#ffffff" {options}'
    return Paper(words, _WIDTH // _COLUMN, _ROWS_IN_A_FILE)


@dataclass(frozen=True)
class Terminal:
    """What it can show."""

    columns: int
    lines: int
    has_unicode: bool
    has_colours: bool

    @property
    def bins(self) -> int:
        """As many as a panel has dots beside each other."""
        return (self.columns - BESIDE_LINES) * (2 if self.has_unicode else 1)

    def paper(self, panels: int) -> Paper:
        """The terminal, or more than that of what scrolls."""
        rows = max(_FEWEST_ROWS, min(_MOST_ROWS, (self.lines - _ROWS_BESIDE_PANELS) // panels))
        kind = "block braille" if self.has_unicode else "dumb nofeed aspect 1"
        colours = "ansi" if self.has_colours else "mono"
        return Paper(f"{kind} {colours} size {self.columns},{rows * panels + 1}", self.columns, rows)

    def text(self, drawn: bytes) -> str:
        """What gnuplot drew, as lines of text."""
        text = drawn.decode(errors="replace")
        for drawn_so, better in _AS_TEXT:
            text = text.replace(drawn_so, better)
        return "\n".join(line.rstrip() for line in text.splitlines()).strip("\n")


def of_terminal() -> Terminal:
    """What is known of the terminal that prints."""
    size = shutil.get_terminal_size()  # 80 x 24 where nobody knows
    kind = os.environ.get("TERM", "")
    # The locale, not the encoding: Python writes UTF-8 in the locale C too. The kernel's console has no braille.
    has_unicode = "utf" in locale.setlocale(locale.LC_CTYPE).lower() and kind not in ("linux", "dumb")
    has_colours = sys.stdout.isatty() and kind not in ("", "dumb") and not os.environ.get("NO_COLOR")
    return Terminal(max(_FEWEST_COLUMNS, size.columns), size.lines, has_unicode, has_colours)
