"""`ivy plot` with the real gnuplot of this machine: it draws whatever keys and values are, and does no more."""

import xml.etree.ElementTree as ET
from pathlib import Path

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivy.cli.plot import chart, paper
from ivy.cli.plot.paper import Terminal
from ivy.cli.plot.series import Series, Window

WINDOW = Window(0, 1000, paper.FILE_BINS)
SVG = "{http://www.w3.org/2000/svg}"
NUMBERS = st.floats(allow_nan=True, allow_infinity=True) | st.integers() | st.text(max_size=3)
TIMES = st.floats(0, 1000)


def series(key: str, samples: dict[float, float | int | str]) -> Series:
    made = Series(key, WINDOW)
    for timestamp, value in samples.items():
        made.add(timestamp, value)
    return made


def texts(picture: bytes) -> list[str]:
    return [text.text or "" for text in ET.fromstring(picture).iter(f"{SVG}text")]


@pytest.mark.parametrize(
    "key",
    [
        "`touch was-run`",
        "\"; system 'touch was-run'; x = \"",
        "'; !touch was-run",
        "END\nsystem 'touch was-run'",
        "@touch $data \\140touch was-run\\140 %s {x}^2_a",
        "<b>&amp; é \\0",
    ],
)
def test_a_key_is_shown_and_is_no_command(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    picture = chart.draw([series(key, {0: 1, 990: 2})], WINDOW, paper.of_file("svg", 1))
    assert f"{key.replace(chr(10), '?')}  min 1, max 2, last 2, 2 samples" in texts(picture)
    assert list(tmp_path.iterdir()) == []


def test_what_the_caller_has_set_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = series("key", {0: 1, 990: 2})
    expected = chart.draw([made], WINDOW, paper.of_file("svg", 1))
    (tmp_path / ".gnuplot").write_text("set grid\nset title 'mine'\n")
    for name in ("HOME", "XDG_CONFIG_HOME", "GNUPLOT_LIB"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("GNUTERM", "dumb")
    assert chart.draw([made], WINDOW, paper.of_file("svg", 1)) == expected


def test_gaps_and_lonely_samples_are_drawn() -> None:
    made = series("key", {float(second): 1.0 for second in range(0, 1000, 10) if not 300 < second < 500})
    alone = series("alone", {5: 5})
    picture = ET.fromstring(chart.draw([made, alone], WINDOW, paper.of_file("svg", 2)))
    groups = [group for group in picture.iter(f"{SVG}g") if "_plot_" in group.get("id", "")]
    drawn = ["".join(path.get("d", "") for path in group.iter(f"{SVG}path")) for group in groups]
    assert [paths.count("M") for paths in drawn] == [2, 1]
    assert "1970-01-01 00:00 to 1970-01-01 00:16 UTC" in texts(ET.tostring(picture))


def test_a_report_has_pixels_too() -> None:
    picture = chart.draw([series("温度", {0: 1, 990: 2})], WINDOW, paper.of_file("png", 1))
    assert picture.startswith(b"\x89PNG") and picture.endswith(b"IEND\xaeB`\x82")


def test_a_line_rises_from_the_lower_left_to_the_upper_right() -> None:
    terminal = Terminal(80, 24, has_unicode=False, has_colours=False)
    made = series("key", {0: 0, 1000: 1})
    lines = terminal.text(chart.draw([made], WINDOW, terminal.paper(1))).splitlines()
    first_dots = [line.index("*") for line in lines if "*" in line]
    assert len(first_dots) >= 10 and first_dots == sorted(first_dots, reverse=True)
    assert lines[0].strip().startswith("key  min 0, max 1") and lines[-1].endswith("1970-01-01 00:16 UTC")


@hypothesis.settings(max_examples=30, derandomize=True, deadline=None, database=None)
@given(
    st.dictionaries(TIMES, NUMBERS, min_size=1, max_size=20), st.text(), st.integers(30, 250), st.integers(1, 60)
)
def test_anything_can_be_drawn(samples: dict[float, float | int | str], key: str, columns: int, lines: int) -> None:
    made = series(key, {0: 1, **samples})
    hypothesis.assume(made.count)
    terminal = Terminal(columns, lines, has_unicode=False, has_colours=False)
    text = terminal.text(chart.draw([made, made], WINDOW, terminal.paper(2)))
    assert all(len(line) <= columns for line in text.splitlines())
    ET.fromstring(chart.draw([made], WINDOW, paper.of_file("svg", 1)))
