"""Draws series as SVG, for a report: a panel for each, one below the other, all with the same axis of time."""

from collections.abc import Sequence
from html import escape

from ivy.cli import ticks
from ivy.cli.series import Series, Window

BINS = 800
"""As many as a panel has pixels."""

_LEFT, _WIDTH, _RIGHT = 90, 800, 30
_TOP, _HEIGHT, _BETWEEN = 46, 180, 70
_BOTTOM = 60
_COLOURS = ("#1b6ca8", "#c05621", "#2f7d4f", "#7b4397", "#9b2c2c", "#4a5568")
_STYLE = (
    "text { font: 12px sans-serif; fill: #444 } .key { font-size: 15px; fill: #111 }"
    " .grid { stroke: #ddd; stroke-width: 1 } .frame { fill: none; stroke: #999; stroke-width: 1 }"
    " path { fill: none; stroke-width: 1.5; stroke-linecap: round; stroke-linejoin: round }"
)


def draw(panels: Sequence[Series], window: Window) -> str:
    """Draw series that have at least one value each. Returns an SVG document."""
    width = _LEFT + _WIDTH + _RIGHT
    height = _TOP + len(panels) * (_HEIGHT + _BETWEEN) - _BETWEEN + _BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
        f' viewBox="0 0 {width} {height}">',
        f"<style>{_STYLE}</style>",
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for number, series in enumerate(panels):
        top = _TOP + number * (_HEIGHT + _BETWEEN)
        parts += _panel(series, window, top, _COLOURS[number % len(_COLOURS)])
    parts.append(_text(_LEFT, height - 14, ticks.range_text(window.start, window.end)))
    return "\n".join([*parts, "</svg>", ""])


def _panel(series: Series, window: Window, top: float, colour: str) -> list[str]:
    low, high = ticks.padded(*series.extremes())
    parts = [_text(_LEFT, top - 10, series.key, 'class="key"')]
    for value, label in ticks.of_values(low, high, 5):
        y = _y(value, low, high, top)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_LEFT + _WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_text(_LEFT - 8, y + 4, label, 'text-anchor="end"'))
    for time, label in ticks.of_times(window.start, window.end, 8):
        x = _x(time, window)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{top + _HEIGHT}"/>')
        parts.append(_text(x, top + _HEIGHT + 17, label, 'text-anchor="middle"'))
    parts.append(f'<rect class="frame" x="{_LEFT}" y="{top}" width="{_WIDTH}" height="{_HEIGHT}"/>')
    for line in series.lines():
        points = [f"{_x(time, window):.1f},{_y(value, low, high, top):.1f}" for time, value in line]
        parts.append(f'<path stroke="{colour}" d="M{" L".join(points if points[1:] else points * 2)}"/>')
    return parts


def _x(time: float, window: Window) -> float:
    return _LEFT + (time - window.start) / (window.end - window.start) * _WIDTH


def _y(value: float, low: float, high: float, top: float) -> float:
    return top + (high - value) / (high - low) * _HEIGHT


def _text(x: float, y: float, text: str, attributes: str = "") -> str:
    shown = "".join(character if character.isprintable() else "?" for character in text)
    return f'<text x="{x:.1f}" y="{y:.1f}" {attributes}>{escape(shown)}</text>'
