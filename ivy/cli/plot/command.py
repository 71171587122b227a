"""`ivy plot`: the archive as a picture, in the terminal or in a file."""

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from ivy import files
from ivy.cli.archive.selection import Selection
from ivy.cli.plot import chart, paper
from ivy.cli.plot.series import Series, Window
from ivy.types.messages import DataMessageBody

_SECONDS_BY_DEFAULT = 86_400.0


def show(arguments: argparse.Namespace) -> int:
    """Draw what was sampled."""
    chart.program()  # said at once that it is missing, not after a year of samples was read
    wanted = {kind: file for kind in paper.FILE_KINDS if (file := getattr(arguments, kind))}
    terminal = paper.of_terminal()
    selection = _selection(arguments)
    window = _window(selection, arguments.since, paper.FILE_BINS if wanted else terminal.bins)
    panels = _collect(selection, window) if window else []
    drawable = [series for series in panels if series.count]
    if window is None or not drawable:
        print(f"ivy plot: {_why_nothing(panels)}", file=sys.stderr)
        return 1
    for kind, file in wanted.items():
        _write(file, chart.draw(drawable, window, paper.of_file(kind, len(drawable))))
    if not wanted:
        print(terminal.text(chart.draw(drawable, window, terminal.paper(len(drawable)))))
    return 0


def _selection(arguments: argparse.Namespace) -> Selection:
    since, until = arguments.since, arguments.until
    if since is None:
        since = (time.time() if until is None else until) - _SECONDS_BY_DEFAULT
    return Selection(since=since, until=until, kind="data", keys=arguments.key)


def _window(selection: Selection, since: float | None, bins: int) -> Window | None:
    """The time that was asked for; if nobody said since when, not what lies before the first sample."""
    start = next((timestamp for timestamp, _, _ in _samples(selection)), None) if since is None else since
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


def _samples(selection: Selection) -> Iterator[tuple[float, str, float | int | str]]:
    for item in selection.read():
        if isinstance(item.message_body, DataMessageBody):
            for key, value in item.message_body.data.items():
                yield item.timestamp, key, value


def _why_nothing(panels: list[Series]) -> str:
    if panels:
        return f"there are no numbers to draw in {', '.join(series.key for series in panels)}"
    return "nothing was sampled under these keys at that time; see ivy messages --kind data"


def _write(file: str, picture: bytes) -> None:
    path = Path(file)
    if path.exists() and not path.is_file():  # such as /dev/stdout
        path.write_bytes(picture)
    else:
        files.write_atomically(path, picture, mode=0o644)
