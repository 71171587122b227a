"""Draws series in a terminal: a panel for each, one below the other, all with the same axis of time."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from ivy.cli import ticks
from ivy.cli.canvas import ASCII, BRAILLE, Canvas, Raster
from ivy.cli.series import Series, Window

_COLOURS = ("36", "33", "35", "32", "34", "31")
_FEWEST_ROWS, _MOST_ROWS = 4, 14
_ROWS_BESIDE_PANELS = 4  # times, caption, the prompt, and the command above it
_COLUMNS_PER_TIME = 16


@dataclass(frozen=True)
class Terminal:
    """What it can show."""

    columns: int
    lines: int
    has_unicode: bool
    has_colours: bool

    @property
    def raster(self) -> Raster:
        """The dots of its characters."""
        return BRAILLE if self.has_unicode else ASCII

    @property
    def plot_columns(self) -> int:
        """The characters that are left for the lines themselves."""
        return max(16, self.columns - ticks.WIDEST_LABEL - 3)

    def colour(self, text: str, code: str) -> str:
        """Colour a text, if that is possible."""
        return f"\033[{code}m{text}\033[0m" if self.has_colours and text.strip() else text


def draw(panels: Sequence[Series], window: Window, terminal: Terminal) -> str:
    """Draw series that have at least one value each. Returns lines of text."""
    rows = max(_FEWEST_ROWS, min(_MOST_ROWS, (terminal.lines - _ROWS_BESIDE_PANELS) // len(panels) - 2))
    marks = ticks.of_times(window.start, window.end, terminal.plot_columns // _COLUMNS_PER_TIME)
    placed = [(_column(time, window, terminal), label) for time, label in marks]
    lines: list[str] = []
    for number, series in enumerate(panels):
        colour = _COLOURS[number % len(_COLOURS)]
        lines += [_title(series, terminal, colour), *_panel(series, rows, terminal, colour)]
        lines.append(_axis([column for column, _ in placed], terminal))
    lines += [_times(placed, terminal), _indent(ticks.range_text(window.start, window.end))]
    return textwrap.dedent("\n".join(line.rstrip() for line in lines))


def _title(series: Series, terminal: Terminal, colour: str) -> str:
    """The key, and of what is known as much as fits into the line."""
    low, high = series.extremes()
    facts = [f"min {ticks.number(low)}", f"max {ticks.number(high)}", f"last {ticks.number(series.last or 0.0)}"]
    facts.append(f"{series.count} sample{'s' * (series.count != 1)}")
    facts += [f"{series.left_out} left out"] if series.left_out else []
    room = terminal.columns - ticks.WIDEST_LABEL - 2
    while facts and len(f"{series.key}  {', '.join(facts)}") > room:
        facts.pop()
    name = "".join(character if character.isprintable() else "?" for character in series.key[:room])
    return _indent(f"{terminal.colour(name, f'1;{colour}')}  {', '.join(facts)}")


def _panel(series: Series, rows: int, terminal: Terminal, colour: str) -> list[str]:
    low, high = ticks.padded(*series.extremes())
    canvas = Canvas(terminal.plot_columns, rows, terminal.raster)
    for line in series.lines():
        dots = [
            (
                round((time - series.window.start) / _span(series.window) * (canvas.width - 1)),
                round((high - value) / (high - low) * (canvas.height - 1)),
            )
            for time, value in line
        ]
        for start, end in zip(dots, dots[1:] or dots, strict=False):
            canvas.line(start, end)
    labels = {
        round((high - value) / (high - low) * (rows - 1)): text
        for value, text in ticks.of_values(low, high, max(2, rows // 2))
    }
    bar, tick = ("│", "┤") if terminal.has_unicode else ("|", "+")
    return [
        f"{labels.get(row, ''):>{ticks.WIDEST_LABEL}} {tick if row in labels else bar}"
        f"{terminal.colour(text, colour)}"
        for row, text in enumerate(canvas.lines())
    ]


def _axis(columns: Sequence[int], terminal: Terminal) -> str:
    corner, line, tick = ("└", "─", "┴") if terminal.has_unicode else ("+", "-", "+")
    return _indent(corner + "".join(tick if x in columns else line for x in range(terminal.plot_columns)), 1)


def _times(placed: Sequence[tuple[int, str]], terminal: Terminal) -> str:
    """The labels of the times, each below its tick, and none that would touch another."""
    text = ""
    for column, label in placed:
        begin = max(0, min(column - len(label) // 2, terminal.plot_columns - len(label)))
        if begin > len(text) or not text:
            text = f"{text:<{begin}}{label}"
    return _indent(text)


def _indent(text: str, columns: int = 2) -> str:
    return " " * (ticks.WIDEST_LABEL + columns) + text


def _column(time: float, window: Window, terminal: Terminal) -> int:
    return round((time - window.start) / _span(window) * (terminal.plot_columns - 1))


def _span(window: Window) -> float:
    return window.end - window.start
