"""Has gnuplot draw series: a panel for each, one below the other, all with the same axis of time.

Keys are what sensors and other programs call their data. gnuplot gets nothing of their text but the numbers of its
bytes, so that no key is a command to it.
"""

import datetime
import math
import shutil
from collections.abc import Iterator, Sequence

from ivy.cli.plot.paper import BESIDE_LINES, Paper
from ivy.cli.plot.series import Series, Window
from ivy.utils.host import commands

# Without the caller's environment and files: the picture depends on nothing but the script.
_GNUPLOT = ("env", "--ignore-environment", "HOME=/nonexistent", "LC_ALL=C.UTF-8")
_SECONDS_TO_DRAW = 120.0
_ROWS_BESIDE_LINES = 1.5  # one for a text above, one for a text below, and half a one as gnuplot rounds
_RIGHT_OF_LABELS = 11
_FEWEST_DIGITS, _MOST_DIGITS = 6, 8
_COLOURS = ("#1b8ca8", "#c08000", "#9b2c9b", "#2f9d2f", "#2c2c9b", "#9b2c2c")  # six that terminals have
_COLUMNS_PER_TIME = 16
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
# gnuplot moves a multiple of 30 days to the first of a month, and one of 365.25 to the first of a year.
_TIME_STEPS = (
    *(("%H:%M:%S", count) for count in (1, 2, 5, 10, 15, 30)),
    *(("%H:%M", count * _MINUTE) for count in (1, 2, 5, 10, 15, 30)),
    *(("%H:%M", count * _HOUR) for count in (1, 2, 3, 6, 12)),
    *(("%m-%d", count * _DAY) for count in (1, 2, 5, 10)),
    *(("%Y-%m", count * 30 * _DAY) for count in (1, 2, 3, 6)),
    *(("%Y", count * 365.25 * _DAY) for count in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 10_000)),
)


def program() -> str:
    """Where gnuplot is.

    Raises:
        RuntimeError: It is not installed.
    """
    if found := shutil.which("gnuplot"):
        return found
    raise RuntimeError("drawing needs the program gnuplot: apt install gnuplot-nox")


def draw(panels: Sequence[Series], window: Window, paper: Paper) -> bytes:
    """Draw series that have at least one value each. Returns the picture.

    Raises:
        RuntimeError: gnuplot is not installed, or failed.
    """
    script = "\n".join([*_script(panels, window, paper), ""])
    command = [*_GNUPLOT, program(), "--default-settings"]
    return commands.run_binary(command, timeout=_SECONDS_TO_DRAW, input=script.encode("ascii"))


def _script(panels: Sequence[Series], window: Window, paper: Paper) -> Iterator[str]:
    row = 1 / (len(panels) * paper.rows + 1)
    yield f"set terminal {paper.terminal} noenhanced"
    yield "set encoding utf8"
    yield "set multiplot"
    yield "unset key"
    yield "set border 3"
    yield f"set lmargin {_RIGHT_OF_LABELS}"
    yield f"set rmargin {BESIDE_LINES - _RIGHT_OF_LABELS}"
    yield f"set xrange [{window.start!r}:{window.end!r}] noextend"
    yield _time_ticks(window, paper.columns)
    yield f"set label {_quoted(_range_text(window))} at screen 0.5, {row / 2} center"
    for number, series in enumerate(panels):
        top = 1 - number * paper.rows * row
        yield f"set tmargin at screen {top - _ROWS_BESIDE_LINES * row}"
        yield f"set bmargin at screen {top - (paper.rows - _ROWS_BESIDE_LINES) * row}"
        yield from _panel(series, window, _COLOURS[number % len(_COLOURS)], paper)
        yield "unset label"
    yield "unset multiplot"


def _panel(series: Series, window: Window, colour: str, paper: Paper) -> Iterator[str]:
    low, high = _bounds(*series.extremes())
    yield "$data << END"
    for line in series.lines():
        yield from (f"{time!r} {value!r}" for time, value in _visible(line, window))
        yield ""  # a gap
    yield "END"
    yield f"set title {_quoted(_title(series, paper.columns))} textcolor rgb '{colour}'"
    yield f"set yrange [{low!r}:{high!r}]"
    yield _value_ticks(low, high, paper.rows - 3)
    yield f"plot $data with lines linetype 1 linecolor rgb '{colour}'"


def _quoted(text: str) -> str:
    shown = "".join(character if character.isprintable() else "?" for character in text)
    return '"' + "".join(f"\\{byte:03o}" for byte in shown.encode()) + '"'


def _visible(line: Sequence[tuple[float, float]], window: Window) -> Sequence[tuple[float, float]]:
    """A line that is at least as long as a dot: a lonely sample would be none."""
    (start, first), (end, last) = line[0], line[-1]
    dot = (window.end - window.start) / window.bins
    if end - start >= dot:
        return line
    return [(start - dot / 2, first), *line, (end + dot / 2, last)]


def _bounds(low: float, high: float) -> tuple[float, float]:
    """Those of an axis that is no point, however close the extremes of its values, with some room beside them."""
    room = (high - low) * 0.05
    if room <= max(abs(low), abs(high)) * 1e-9 or room < 1e-290:
        room = max(abs(high) * 0.05, 1e-6) if high else 1.0
    return low - room, high + room


def _value_ticks(low: float, high: float, rows: int) -> str:
    """Round numbers, none in the row of another, with as many digits as tell them apart."""
    rough = (high - low) / rows * 1.5
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(magnitude * factor for factor in (1, 2, 5, 10) if magnitude * factor >= rough * 0.999)
    digits = 1 + math.ceil(math.log10(max(abs(low), abs(high)) / step))
    return f"set ytics nomirror format '%.{min(max(_FEWEST_DIGITS, digits), _MOST_DIGITS)}g' {step!r}"


def _title(series: Series, columns: int) -> str:
    """The key, and of what is known as much as fits into the line."""
    low, high = series.extremes()
    facts = [f"min {low:.6g}", f"max {high:.6g}", f"last {series.last or 0.0:.6g}"]
    facts.append(f"{series.count} sample{'s' * (series.count != 1)}")
    facts += [f"{series.left_out} left out"] if series.left_out else []
    room = columns - BESIDE_LINES
    while facts and len(f"{series.key}  {', '.join(facts)}") > room:
        facts.pop()
    return f"{series.key[:room]}  {', '.join(facts)}".rstrip()


def _time_ticks(window: Window, columns: int) -> str:
    span = window.end - window.start
    rough = span / max(1, (columns - BESIDE_LINES) // _COLUMNS_PER_TIME)
    label, step = next((label, step) for label, step in _TIME_STEPS if step >= rough)
    if step < _DAY < span:
        label = f"%m-%d {label}"
    return f"set xtics nomirror format '{label}' timedate {step}"


def _range_text(window: Window) -> str:
    ends = [datetime.datetime.fromtimestamp(time, datetime.UTC) for time in (window.start, window.end)]
    return f"{ends[0]:%Y-%m-%d %H:%M} to {ends[1]:%Y-%m-%d %H:%M} UTC"
