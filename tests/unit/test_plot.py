"""`ivy plot`: honest about gaps and spikes, readable wherever it is drawn.

gnuplot is a fake here, which keeps what it is told; what the real one makes of it is in `tests/system`.
"""

import io
import locale
import math
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ivy.cli import main
from ivy.cli.plot import chart, paper
from ivy.cli.plot.paper import Paper, Terminal
from ivy.cli.plot.series import Series, Window
from tests.support.helpers import Node
from tests.unit.archives import NOON, Ivy, sample

WINDOW = Window(0, 1000, 100)
PLAIN = Terminal(80, 24, has_unicode=False, has_colours=False)
BRAILLE = Terminal(80, 24, has_unicode=True, has_colours=False)


class Gnuplot:
    """Draws what it is given, and keeps its script, arguments and environment."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.draw(b"a picture")

    def draw(self, picture: bytes, status: int = 0) -> None:
        """Let it end so."""
        (self._directory / "picture").write_bytes(picture)
        program = self._directory / "gnuplot"
        kept = f"cat > {self._directory}/script; env > {self._directory}/environment"
        arguments = f'echo "$@" > {self._directory}/arguments'
        program.write_text(f"#!/bin/sh\n{kept}\n{arguments}\ncat {self._directory}/picture\nexit {status}\n")
        program.chmod(0o755)

    def read(self, name: str = "script") -> str:
        """What it was given."""
        return (self._directory / name).read_text("ascii")

    def texts(self) -> list[str]:
        """The quoted texts of the script, as gnuplot understands them."""
        quoted = re.findall(r'"((?:\\[0-7]{3})*)"', self.read())
        return [bytes(int(number, 8) for number in text.split("\\")[1:]).decode() for text in quoted]

    def lines(self) -> list[list[tuple[float, float]]]:
        """The unbroken lines of all panels."""
        found: list[list[tuple[float, float]]] = []
        for block in re.findall(r"\$data << END\n(.*?)END\n", self.read(), re.DOTALL):
            for line in block.strip().split("\n\n"):
                pairs = [point.split() for point in line.splitlines()]
                found.append([(float(when), float(value)) for when, value in pairs])
        return found


@pytest.fixture
def gnuplot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Gnuplot:
    """The only program on the PATH by that name."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", f"{directory}:/usr/bin:/bin")
    return Gnuplot(directory)


def series(samples: dict[float, float | int | str], window: Window = WINDOW) -> Series:
    made = Series("key", window)
    for timestamp, value in samples.items():
        made.add(timestamp, value)
    return made


def ends(made: Series) -> list[tuple[float, float]]:
    """When each unbroken line begins and ends."""
    return [(line[0][0], line[-1][0]) for line in made.lines()]


def test_a_spike_stays_visible() -> None:
    made = Series("key", WINDOW)
    for number in range(100_000):
        made.add(number / 100, 99.0 if number == 54_321 else number % 2)
    assert made.extremes() == (0, 99) and made.count == 100_000
    points = [point for line in made.lines() for point in line]
    assert len(points) <= 4 * WINDOW.bins
    assert [round(when) for when, value in points if value == 99] == [543]


def test_a_gap_in_the_data_is_a_gap_in_the_line() -> None:
    made = series({float(second): 1.0 for second in range(0, 1000, 10) if not 300 < second < 500})
    assert ends(made) == [(0, 300), (500, 990)]


def test_one_missing_sample_is_no_gap() -> None:
    made = series({float(second): 1.0 for second in range(0, 1000, 10) if second != 300})
    assert ends(made) == [(0, 990)]


def test_a_line_is_as_sparse_as_its_samples() -> None:
    assert ends(series({0: 1, 400: 2, 800: 3})) == [(0, 800)]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e301, 10**400, -(10**400)])
def test_no_number_breaks_the_line(value: float) -> None:
    made = series({0: 1, 100: 2, 200: value, 300: 3, 400: 4})
    assert ends(made) == [(0, 100), (300, 400)]
    assert (made.extremes(), made.count, made.left_out) == ((1, 4), 4, 1)


def test_text_is_left_out() -> None:
    made = series({0: 1, 100: "unknown", 200: 2})
    assert (ends(made), made.left_out) == ([(0, 200)], 1)


def test_a_clock_that_is_set_back_costs_nothing() -> None:
    made = series({500: 1, 510: 2, 505: 3, 100: 4, 110: 5, 520: 6})
    assert made.count == 6 and made.extremes() == (1, 6)
    assert made.last == 6


def drawn(gnuplot: Gnuplot, *panels: Series, on: Callable[[int], Paper] = BRAILLE.paper) -> str:
    """The script for some series."""
    chart.draw(panels, panels[0].window, on(len(panels)))
    return gnuplot.read()


def test_gaps_and_extremes_reach_the_picture(gnuplot: Gnuplot) -> None:
    made = Series("key", WINDOW)
    for number in range(100_000):
        if not 30_000 < number < 50_000:
            made.add(number / 100, 99.0 if number == 54_321 else number % 2)
    drawn(gnuplot, made)
    before, after = gnuplot.lines()
    assert (before[0][0], before[-1][0], after[0][0], after[-1][0]) == (0, 300, 500, 999.99)
    assert [round(when) for when, value in after if value == 99] == [543]
    assert len(before) + len(after) <= 4 * WINDOW.bins


@pytest.mark.parametrize("samples", [{500: 5}, {500: 5, 500.001: 5}])
def test_a_lonely_sample_is_a_dot(gnuplot: Gnuplot, samples: dict[float, float | int | str]) -> None:
    drawn(gnuplot, series(samples))
    [line] = gnuplot.lines()
    assert {value for _, value in line} == {5}
    assert line[-1][0] - line[0][0] == pytest.approx(WINDOW.bins / 10, abs=0.01)


@pytest.mark.parametrize(
    ("low", "high", "step", "label"),
    [
        (0, 10, 2, "%.6g"),
        (17.1, 24.4, 2, "%.6g"),
        (-0.02, 0.021, 0.01, "%.6g"),
        (1e6, 1e6 + 1, 0.2, "%.8g"),
        (0, 5e9, 1e9, "%.6g"),
        (5, 5, 0.1, "%.6g"),
    ],
)
def test_values_have_round_ticks(gnuplot: Gnuplot, low: float, high: float, step: float, label: str) -> None:
    script = drawn(gnuplot, series({0: low, 990: high}), on=lambda _: Paper("dumb", 80, 13))
    found = re.search(r"set ytics nomirror format '(.*)' (.*)", script)
    assert found and found[1] == label and float(found[2]) == pytest.approx(step)


@pytest.mark.parametrize(
    ("seconds", "label", "step"),
    [
        (10, "%H:%M:%S", 5),
        (3600, "%H:%M", 1800),
        (86_400, "%H:%M", 43_200),
        (2 * 86_400, "%m-%d", 86_400),
        (10 * 86_400, "%m-%d", 5 * 86_400),
        (50 * 86_400, "%Y-%m", 30 * 86_400),
        (1000 * 86_400, "%Y", 2 * 365.25 * 86_400),
        (8000 * 365 * 86_400, "%Y", 10_000 * 365.25 * 86_400),
    ],
)
def test_times_have_round_ticks(gnuplot: Gnuplot, seconds: float, label: str, step: float) -> None:
    made = series({0: 0}, Window(0, seconds, 100))
    script = drawn(gnuplot, made, on=Terminal(48, 24, has_unicode=True, has_colours=False).paper)
    found = re.search(r"set xtics nomirror format '(.*)' timedate (.*)", script)
    assert found and (found[1], float(found[2])) == (label, step)


def test_a_time_of_several_days_has_the_day(gnuplot: Gnuplot) -> None:
    made = series({0: 0}, Window(0, 2 * 86_400, 100))
    assert "format '%m-%d %H:%M' timedate 43200" in drawn(gnuplot, made)


def test_panels_fit_into_the_terminal(gnuplot: Gnuplot) -> None:
    made = series({0: 0, 990: 1})
    for panels, rows in ((1, 17), (2, 21), (3, 22), (9, 55)):  # few scroll rather than being too flat
        script = drawn(gnuplot, *[made] * panels)
        assert script.startswith(f"set terminal block braille mono size 80,{rows} noenhanced\n")


@pytest.mark.parametrize(
    "key",
    [
        "`id`",
        '"',
        "'",
        "\\",
        "{x}^2_a",
        "a\nsystem 'id'\n",
        "END",
        "%s %d",
        "$data",
        "@x",
        "é温度",
        "\\140id\\140",
        "\0",
    ],
)
def test_no_key_is_a_command(gnuplot: Gnuplot, key: str) -> None:
    def shape(named: str) -> str:
        made = series({0: 0, 990: 1})
        made.key = named
        return re.sub(r'title "[0-7\\]*"', "title", drawn(gnuplot, made))

    expected = shape("key")
    assert shape(key) == expected and key.replace("\n", "?").replace("\0", "?") in gnuplot.texts()[-1]


def test_a_key_can_neither_wrap_nor_steer_the_terminal(gnuplot: Gnuplot) -> None:
    made = series({0: 0, 990: 1})
    made.key = "\x1b[31m\ud800" + "long" * 50
    drawn(gnuplot, made)
    title = gnuplot.texts()[-1]
    assert title.startswith("?[31m?longlong") and len(title) <= BRAILLE.columns - paper.BESIDE_LINES


def test_where_there_is_no_unicode_the_picture_is_ascii(gnuplot: Gnuplot) -> None:
    script = drawn(gnuplot, series({0: 0, 990: 1}), on=PLAIN.paper)
    assert script.startswith("set terminal dumb nofeed aspect 1 mono size 80,17 noenhanced\n")


def test_colours_are_drawn_where_there_are_some() -> None:
    coloured = Terminal(80, 24, has_unicode=True, has_colours=True)
    assert " ansi " in coloured.paper(1).terminal and " mono " in BRAILLE.paper(1).terminal
    axis, blank, end = "\033[22;37m⡇", "\u2800", "\n\033[0;39;49m"
    assert coloured.text(f"{blank}{axis}{blank}{blank}{end}".encode()) == " \033[22;39m⡇  \033[0;39;49m"
    assert BRAILLE.text(f"{blank}\na{blank}{blank}b{blank}\n{blank}".encode()) == "a  b"


def test_gnuplot_knows_nothing_of_its_caller(gnuplot: Gnuplot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GNUPLOT_LIB", "/tmp")
    drawn(gnuplot, series({0: 0}))
    environment = dict(line.split("=", 1) for line in gnuplot.read("environment").splitlines())
    assert environment.keys() - {"PWD", "_", "OLDPWD", "SHLVL"} == {"HOME", "LC_ALL"}
    assert not list(Path(environment["HOME"]).glob(".gnuplot*"))
    assert gnuplot.read("arguments") == "--default-settings\n"


@pytest.fixture
def samples() -> None:
    """Twenty minutes of samples, until now."""
    for age in range(1200, 0, -60):
        sample(time.time() - age, temperature=20 - age / 1000, humidity=50, state="ok")


def test_what_was_sampled_is_drawn(
    ivy: Ivy, samples: None, gnuplot: Gnuplot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(locale, "setlocale", lambda category: "C.UTF-8")
    assert ivy("plot", "temp*", "humidity") == (0, "a picture\n", "")
    assert "block braille mono size 100,21 " in gnuplot.read(), "no colours but on a terminal"
    _, humidity, temperature = gnuplot.texts()
    assert humidity == "humidity  min 50, max 50, last 50, 20 samples"
    assert temperature == "temperature  min 18.8, max 19.94, last 19.94, 20 samples"
    start = re.search(r"set xrange \[(.*?):", gnuplot.read())
    assert start and float(start[1]) == gnuplot.lines()[0][0][0], "without --since it begins with the first sample"


def test_no_character_ends_the_command(node: Node, gnuplot: Gnuplot) -> None:
    sample(time.time(), **{"grün": 1})
    gnuplot.draw("grün \u28ff".encode())
    node.environment |= {"PATH": os.environ["PATH"], "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    assert node.ivy("plot", "gr*") == (0, "gr?n ?\n", "")


def test_the_time_that_was_asked_for_is_shown(ivy: Ivy, gnuplot: Gnuplot) -> None:
    sample(NOON, a=1)
    assert ivy("plot", "a", "--since", "2026-11-20", "--until", "2026-11-21")[0] == 0
    backwards = (2, "", "ivy plot: --since must be earlier than --until\n")
    assert ivy("plot", "a", "--since", "2026-11-21", "--until", "2026-11-20") == backwards
    assert f"set xrange [{NOON - 43_200!r}:{NOON + 43_200!r}] noextend" in gnuplot.read()
    assert gnuplot.texts()[0] == "2026-11-20 00:00 to 2026-11-21 00:00 UTC"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["nothing"], "nothing was sampled"),
        (["temperature", "--until", "2000-01-01"], "nothing was sampled"),
        (["state"], "there are no numbers to draw in state"),
    ],
)
def test_nothing_to_draw_is_said(
    ivy: Ivy, samples: None, gnuplot: Gnuplot, arguments: list[str], reason: str
) -> None:
    status, output, errors = ivy("plot", *arguments)
    assert (status, output) == (1, "") and reason in errors


def test_pictures_are_written_into_files(ivy: Ivy, samples: None, gnuplot: Gnuplot, tmp_path: Path) -> None:
    picture = bytes(range(256)) + b"\r\n"
    gnuplot.draw(picture)
    for kind in ("svg", "png"):
        file = tmp_path / f"a.{kind}"
        assert ivy("plot", "temperature", f"--{kind}", str(file)) == (0, "", "")
        assert file.read_bytes() == picture and gnuplot.read().startswith(f"set terminal {kind} ")
    assert ivy("plot", "temperature", "--svg", "/dev/null", "--png", str(tmp_path / "b")) == (0, "", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "a.svg", "b", "bin"]
    assert not Path("/dev/null").is_file()


@pytest.fixture
def main_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Let `ivy plot` fail. Returns what it says at its end."""

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["ivy", "plot", *arguments])
        with pytest.raises(SystemExit, match=r"^1$"):
            main.main()
        return capsys.readouterr().err

    return run


@pytest.mark.parametrize("existing", [True, False])
def test_a_gnuplot_that_fails_leaves_files_as_they_were(
    samples: None, gnuplot: Gnuplot, tmp_path: Path, main_fails: Callable[..., str], existing: bool
) -> None:
    gnuplot.draw(b"half of it", status=1)
    file = tmp_path / "a.png"
    if existing:
        file.write_text("before")
    assert "exited with 1: half of it" in main_fails("temperature", "--png", str(file))
    assert [path.read_text() for path in tmp_path.glob("*a.png*")] == ["before"] * existing


def test_a_missing_gnuplot_is_named_with_its_package(
    samples: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, main_fails: Callable[..., str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for arguments in ([], ["--svg", "a.svg"], ["--png", "a.png"]):
        said = main_fails("temperature", *arguments)
        assert said == "ivy: drawing needs the program gnuplot: apt install gnuplot-nox\n"


@pytest.mark.parametrize(
    ("is_terminal", "environment", "has_colours"),
    [
        (True, {"TERM": "xterm"}, True),
        (False, {"TERM": "xterm"}, False),
        (True, {"TERM": "xterm", "NO_COLOR": "1"}, False),
        (True, {"TERM": "dumb"}, False),
        (True, {}, False),
    ],
)
def test_colours_are_for_terminals(
    monkeypatch: pytest.MonkeyPatch, is_terminal: bool, environment: dict[str, str], has_colours: bool
) -> None:
    class Output(io.StringIO):
        def isatty(self) -> bool:
            return is_terminal

    for name in ("TERM", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stdout", Output())
    assert paper.of_terminal().has_colours is has_colours


@pytest.mark.parametrize(
    ("name", "terminal", "has_unicode"),
    [("C.UTF-8", "xterm", True), ("de_DE.UTF8", "xterm", True), ("C", "xterm", False), ("C.UTF-8", "linux", False)],
)
def test_braille_is_for_locales_and_terminals_that_have_it(
    monkeypatch: pytest.MonkeyPatch, name: str, terminal: str, has_unicode: bool
) -> None:
    monkeypatch.setenv("TERM", terminal)
    monkeypatch.setattr(locale, "setlocale", lambda category: name)
    assert paper.of_terminal().has_unicode is has_unicode
