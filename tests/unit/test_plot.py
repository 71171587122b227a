"""`ivy plot`: honest about gaps and spikes, readable wherever it is drawn."""

import io
import locale
import math
import re
import shutil
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivy.cli import svg_chart, terminal_chart, ticks
from ivy.cli.series import Series, Window
from ivy.cli.terminal_chart import Terminal
from tests.unit.test_archive_export import NOON, Ivy, ivy, sample

__all__ = ["ivy"]  # the fixture

WINDOW = Window(0, 1000, 100)
PLAIN = Terminal(80, 24, has_unicode=False, has_colours=False)
BRAILLE = Terminal(80, 24, has_unicode=True, has_colours=False)
SVG = "{http://www.w3.org/2000/svg}"


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
    assert [round(when) for when, value in points if value == 99] == [545]


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


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0, 10, ["0", "2", "4", "6", "8", "10"]),
        (17.1, 24.4, ["18", "20", "22", "24"]),
        (-0.02, 0.021, ["-0.02", "-0.01", "0.00", "0.01", "0.02"]),
        (0, 5e9, ["0", "1e+09", "2e+09", "3e+09", "4e+09", "5e+09"]),
    ],
)
def test_values_have_round_ticks(low: float, high: float, labels: list[str]) -> None:
    assert [label for _, label in ticks.of_values(low, high, 5)] == labels


@pytest.mark.parametrize(
    ("seconds", "labels"),
    [
        (10, ["12:00:00", "12:00:05", "12:00:10"]),
        (3600, ["12:00", "12:30", "13:00"]),
        (86_400, ["12:00", "11-21", "12:00"]),
        (10 * 86_400, ["11-23", "11-28"]),
        (50 * 86_400, ["2026-12", "2027-01"]),
        (1000 * 86_400, ["2028-01"]),
        (30_000 * 86_400, ["2050-01", "2100-01"]),
    ],
)
def test_times_have_round_ticks(seconds: float, labels: list[str]) -> None:
    assert [label for _, label in ticks.of_times(NOON, NOON + seconds, 2)] == labels


NUMBERS = st.floats(allow_nan=True, allow_infinity=True) | st.integers() | st.text(max_size=3)


@given(
    st.dictionaries(st.floats(0, 1000), NUMBERS, min_size=1, max_size=20), st.integers(1, 250), st.integers(1, 60)
)
def test_anything_can_be_drawn(samples: dict[float, float | int | str], columns: int, lines: int) -> None:
    made = series({0: 1, **samples})
    if made.count:
        for has_unicode in (False, True):
            text = terminal_chart.draw([made, made], WINDOW, Terminal(columns, lines, has_unicode, False))
            assert has_unicode or text.isascii()
            assert columns < 60 or all(len(line) <= columns for line in text.splitlines())
        ET.fromstring(svg_chart.draw([made], WINDOW))


def test_panels_are_aligned_and_fit_into_the_terminal() -> None:
    made = series({float(second): math.sin(second / 100) for second in range(1000)})
    small = series({0: 1_000_000, 990: 1_000_001})
    lines = terminal_chart.draw([made, small], WINDOW, BRAILLE).splitlines()
    assert len(lines) <= BRAILLE.lines - 1
    assert max(map(len, lines)) <= BRAILLE.columns
    bars = [re.search("[│┤└]", line) for line in lines]
    assert len({bar.start() for bar in bars if bar}) == 1


def test_a_key_can_neither_wrap_nor_steer_the_terminal() -> None:
    made = series({0: 0, 990: 1})
    made.key = "\x1b[31m" + "long" * 50
    title = terminal_chart.draw([made], WINDOW, BRAILLE).splitlines()[0]
    assert "\x1b" not in title and "?[31mlonglong" in title and len(title) <= BRAILLE.columns


def test_where_there_is_no_unicode_the_picture_is_ascii() -> None:
    text = terminal_chart.draw([series({0: 0, 990: 1})], WINDOW, PLAIN)
    assert text.isascii() and ":" in text and "+--" in text


def test_a_line_rises_from_the_lower_left_to_the_upper_right() -> None:
    lines = terminal_chart.draw([series({0: 0, 1000: 1})], WINDOW, PLAIN).splitlines()
    plots = [
        re.sub(r"^.*?[|+]", "", line) for line in lines if re.match("[ 0-9.]*[|+]", line) and set(line) - set(" +-")
    ]
    first_dots = [len(plot) - len(plot.lstrip()) for plot in plots]
    assert len(plots) == 14, lines
    assert first_dots == sorted(first_dots, reverse=True) and first_dots[-1] == 0


def test_a_picture_for_a_report() -> None:
    made = series({float(second): 1.0 for second in range(0, 1000, 10) if not 300 < second < 500})
    made.key = "<weird> & \x01 key"
    picture = ET.fromstring(svg_chart.draw([made, series({5: 5})], WINDOW))
    paths = [path.attrib["d"] for path in picture.iter(f"{SVG}path")]
    assert len(paths) == 3 and re.fullmatch(r"M([0-9.]+,[0-9.]+) L\1", paths[2]), "a lonely sample is a dot"
    texts = [text.text for text in picture.iter(f"{SVG}text")]
    assert "<weird> & ? key" in texts and "1970-01-01 00:00 to 1970-01-01 00:16 UTC" in texts


@pytest.fixture
def samples() -> None:
    """Twenty minutes of samples, until now."""
    for age in range(1200, 0, -60):
        sample(time.time() - age, temperature=20 - age / 1000, humidity=50, state="ok")


def test_what_was_sampled_is_drawn(ivy: Ivy, samples: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(locale, "setlocale", lambda category: "C.UTF-8")
    status, output, errors = ivy("plot", "temp*", "humidity")
    assert (status, errors) == (0, "")
    assert "temperature  min 18.8, max 19.94, last 19.94, 20 samples" in output
    assert output.index("humidity  min 50") < output.index("temperature  min") and "state" not in output
    assert "\033" not in output, "no colours but on a terminal"
    first = [line for line in output.splitlines() if "│" in line or "┤" in line][-1]
    assert re.search("[│┤][⠀-⣿]", first), "without --since the picture begins with the first sample"


def test_the_time_that_was_asked_for_is_shown(ivy: Ivy) -> None:
    sample(NOON, a=1)
    output = ivy("plot", "a", "--since", "2026-11-20", "--until", "2026-11-21")[1]
    assert output.endswith("2026-11-20 00:00 to 2026-11-21 00:00 UTC\n")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["nothing"], "nothing was sampled"),
        (["temperature", "--until", "2000-01-01"], "nothing was sampled"),
        (["state"], "there are no numbers to draw in state"),
    ],
)
def test_nothing_to_draw_is_said(ivy: Ivy, samples: None, arguments: list[str], reason: str) -> None:
    status, output, errors = ivy("plot", *arguments)
    assert (status, output) == (1, "") and reason in errors


def test_pictures_are_written_into_files(
    ivy: Ivy, samples: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    converter = tmp_path / "rsvg-convert"
    converter.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/call\ncat > {tmp_path}/input\n')
    converter.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    svg, png = tmp_path / "a.svg", tmp_path / "a.png"
    assert ivy("plot", "temperature", "--svg", str(svg), "--png", str(png)) == (0, "", "")
    assert ET.parse(svg).getroot().tag == f"{SVG}svg"
    assert (tmp_path / "input").read_text() == svg.read_text()
    assert f"--output={png}" in (tmp_path / "call").read_text()


def test_a_missing_converter_is_named_with_its_package(
    ivy: Ivy, samples: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["ivy", "plot", "temperature", "--png", "a.png"])
    from ivy.cli import main

    with pytest.raises(SystemExit, match="needs the program rsvg-convert: apt install librsvg2-bin"):
        main.main()


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
    from ivy.cli import plot

    class Output(io.StringIO):
        def isatty(self) -> bool:
            return is_terminal

    for name in ("TERM", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stdout", Output())
    assert plot._terminal().has_colours is has_colours


@pytest.mark.parametrize(
    ("name", "terminal", "has_unicode"),
    [("C.UTF-8", "xterm", True), ("de_DE.UTF8", "xterm", True), ("C", "xterm", False), ("C.UTF-8", "linux", False)],
)
def test_braille_is_for_locales_and_terminals_that_have_it(
    monkeypatch: pytest.MonkeyPatch, name: str, terminal: str, has_unicode: bool
) -> None:
    from ivy.cli import plot

    monkeypatch.setenv("TERM", terminal)
    monkeypatch.setattr(locale, "setlocale", lambda category: name)
    assert plot._terminal().has_unicode is has_unicode
