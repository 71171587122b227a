"""Dots in a terminal: eight to a character where it can show braille, two where it can show ASCII only."""

from dataclasses import dataclass

_BRAILLE = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))  # by column and row, see Unicode's block
_ASCII = " '.:"  # by bits: the upper dot, the lower one


@dataclass(frozen=True)
class Raster:
    """How many dots a character has."""

    columns: int
    rows: int


BRAILLE = Raster(2, 4)
ASCII = Raster(1, 2)


class Canvas:
    """A rectangle of dots, none of them set yet; (0, 0) is at the upper left."""

    def __init__(self, columns: int, rows: int, raster: Raster) -> None:
        """Make one of so many characters."""
        self.width, self.height = columns * raster.columns, rows * raster.rows
        self._raster = raster
        self._cells = [[0] * columns for _ in range(rows)]

    def line(self, start: tuple[int, int], end: tuple[int, int]) -> None:
        """Set the dots of a straight line, with both ends."""
        (x, y), (to_x, to_y) = start, end
        steps = max(abs(to_x - x), abs(to_y - y), 1)
        for step in range(steps + 1):
            self._set(round(x + (to_x - x) * step / steps), round(y + (to_y - y) * step / steps))

    def _set(self, x: int, y: int) -> None:
        column, dot_x = divmod(x, self._raster.columns)
        row, dot_y = divmod(y, self._raster.rows)
        bit = _BRAILLE[dot_x][dot_y] if self._raster == BRAILLE else 1 << dot_y
        self._cells[row][column] |= bit

    def lines(self) -> list[str]:
        """The characters, line by line."""
        return ["".join(map(self._character, row)) for row in self._cells]

    def _character(self, bits: int) -> str:
        if self._raster == ASCII:
            return _ASCII[bits]
        return chr(0x2800 + bits) if bits else " "
