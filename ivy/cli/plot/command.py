"""`ivy plot`: the archive as a picture, in the terminal or in a file."""

import argparse
import base64
import sys
import time
from pathlib import Path

from ivy import constants, files
from ivy.cli import output
from ivy.cli.archive.selection import Selection, UsageError, archive_of, check_times
from ivy.cli.plot import chart, paper
from ivy.cli.plot.series import Series, Window
from ivy.utils.host import rights

_SECONDS_BY_DEFAULT = 86_400.0
_SECONDS_TO_DRAW = 3600.0  # years of samples on a slow card


def show(arguments: argparse.Namespace) -> int:
    """Draw what was sampled."""
    directory = constants.IVY_DATA_DIR if arguments.data is None else arguments.data.read_as
    try:
        check_times(arguments.since, arguments.until)
    except UsageError as error:
        print(f"ivy plot: {error}", file=sys.stderr)
        return 2
    chart.program()  # said at once that it is missing, not after a year of samples was read
    wanted = {kind: file for kind in paper.FILE_KINDS if (file := getattr(arguments, kind))}
    if not wanted:
        rights.give_up(directory)
        return _draw_here(arguments)
    # Only the archive's owner reads and draws; but the file may be in a directory of root's.
    drawn = rights.ask(lambda: _draw(arguments, list(wanted)), directory, seconds=_SECONDS_TO_DRAW)
    if isinstance(drawn, str):
        return _complain(drawn)
    for kind, file in wanted.items():
        _write(file, base64.b64decode(drawn[kind]))
    return 0


def _draw_here(arguments: argparse.Namespace) -> int:
    terminal = paper.of_terminal()
    window, panels = _look(arguments, terminal.bins)
    drawable = [series for series in panels if series.count]
    if window is None or not drawable:
        return _complain(_why_nothing(panels))
    output.raw(terminal.text(chart.draw(drawable, window, terminal.paper(len(drawable)))) + "\n")
    return 0


def _draw(arguments: argparse.Namespace, kinds: list[str]) -> dict[str, str] | str:
    """The pictures, in a form that JSON can carry; or why there is none."""
    window, panels = _look(arguments, paper.FILE_BINS)
    drawable = [series for series in panels if series.count]
    if window is None or not drawable:
        return _why_nothing(panels)
    drawings = {kind: chart.draw(drawable, window, paper.of_file(kind, len(drawable))) for kind in kinds}
    return {kind: base64.b64encode(drawing).decode() for kind, drawing in drawings.items()}


def _complain(reason: str) -> int:
    print(f"ivy plot: {reason}", file=sys.stderr)
    return 1


def _look(arguments: argparse.Namespace, bins: int) -> tuple[Window | None, list[Series]]:
    selection = _selection(arguments)
    window = _window(selection, arguments.since, bins)
    return window, _collect(selection, window) if window else []


def _selection(arguments: argparse.Namespace) -> Selection:
    since, until = arguments.since, arguments.until
    if since is None:
        since = (time.time() if until is None else until) - _SECONDS_BY_DEFAULT
    return Selection(since=since, until=until, kind="data", keys=arguments.key, directory=archive_of(arguments))


def _window(selection: Selection, since: float | None, bins: int) -> Window | None:
    """The time that was asked for; if nobody said since when, not what lies before the first sample."""
    start = next((timestamp for timestamp, _, _ in selection.samples()), None) if since is None else since
    if start is None:
        return None
    end = time.time() if selection.until is None else selection.until
    return Window(start, max(end, start + 1), bins)


def _collect(selection: Selection, window: Window) -> list[Series]:
    panels: dict[str, Series] = {}
    for timestamp, data, _ in selection.samples(progress=True):
        if window.start <= timestamp <= window.end:
            for key, value in data.items():
                series = panels.get(key)
                if series is None:
                    series = panels[key] = Series(output.line(key), window)
                series.add(timestamp, value)
    return [panels[key] for key in sorted(panels)]


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
