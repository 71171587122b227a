"""`ivy plot`: the archive as a picture, in the terminal or in a file."""

import argparse
import locale
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Optional, Union

from ivy.cli import svg_chart, terminal_chart
from ivy.cli.selection import Selection
from ivy.cli.series import Series, Window
from ivy.cli.terminal_chart import Terminal
from ivy.types.messages import DataMessageBody
from ivy.utils import commands

_SECONDS_BY_DEFAULT = 86_400.0
_CONVERTER = "rsvg-convert"
_SECONDS_TO_CONVERT = 60.0


def show(arguments: argparse.Namespace) -> int:
    """Draw what was sampled."""
    if arguments.png and shutil.which(_CONVERTER) is None:  # said at once, not after a year of samples was read
        raise RuntimeError(f"--png needs the program {_CONVERTER}: apt install librsvg2-bin")
    terminal = _terminal()
    is_for_file = arguments.svg or arguments.png
    bins = svg_chart.BINS if is_for_file else terminal.plot_columns * terminal.raster.columns
    selection = _selection(arguments)
    window = _window(selection, arguments.since, bins)
    panels = _collect(selection, window) if window else []
    drawable = [series for series in panels if series.count]
    if window is None or not drawable:
        print(f"ivy plot: {_why_nothing(panels)}", file=sys.stderr)
        return 1
    if is_for_file:
        _write(svg_chart.draw(drawable, window), arguments.svg, arguments.png)
    else:
        print(terminal_chart.draw(drawable, window, terminal))
    return 0


def _selection(arguments: argparse.Namespace) -> Selection:
    since, until = arguments.since, arguments.until
    if since is None:
        since = (time.time() if until is None else until) - _SECONDS_BY_DEFAULT
    return Selection(since=since, until=until, kind="data", keys=arguments.key)


def _window(selection: Selection, since: Optional[float], bins: int) -> Optional[Window]:
    """The time that was asked for; if nobody said since when, not what lies before the first sample."""
    start = since
    if start is None:
        start = next((timestamp for timestamp, _, _ in _samples(selection)), None)
    if start is None:
        return None
    end = time.time() if selection.until is None else selection.until
    return Window(start, max(end, start + 1), bins)


def _collect(selection: Selection, window: Window) -> list[Series]:
    panels: dict[str, Series] = {}
    for timestamp, key, value in _samples(selection):
        if window.start <= timestamp <= window.end:
            panels.setdefault(key, Series(key, window)).add(timestamp, value)
    return [panels[key] for key in sorted(panels)]


def _samples(selection: Selection) -> Iterator[tuple[float, str, Union[float, int, str]]]:
    for item in selection.read():
        if isinstance(item.message_body, DataMessageBody):
            for key, value in item.message_body.data.items():
                yield item.timestamp, key, value


def _why_nothing(panels: list[Series]) -> str:
    if panels:
        return f"there are no numbers to draw in {', '.join(series.key for series in panels)}"
    return "nothing was sampled under these keys at that time; see ivy messages --kind data"


def _write(picture: str, svg: Optional[str], png: Optional[str]) -> None:
    if svg:
        Path(svg).write_text(picture, encoding="utf-8")
    if png:
        command = [_CONVERTER, "--zoom=2", "--format=png", f"--output={png}"]
        commands.run(command, timeout=_SECONDS_TO_CONVERT, input=picture)


def _terminal() -> Terminal:
    size = shutil.get_terminal_size()  # 80 x 24 where nobody knows
    kind = os.environ.get("TERM", "")
    # The locale, not the encoding: Python writes UTF-8 in the locale C too. The kernel's console has no braille.
    has_unicode = "utf" in locale.setlocale(locale.LC_CTYPE).lower() and kind not in ("linux", "dumb")
    has_colours = sys.stdout.isatty() and kind not in ("", "dumb") and not os.environ.get("NO_COLOR")
    return Terminal(size.columns, size.lines, has_unicode, has_colours)
