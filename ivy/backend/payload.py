"""How numbers, texts and keys look in a payload: as short as nothing is lost by it. Knows no platform."""

import bisect
import json
from collections.abc import Callable, Sequence

CUT_MARK = "\n[cut]"
"""What stands at the end of a text that was too long."""

_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)
_LARGEST_OF_A_CHARACTER = 4  # bytes of UTF-8


def as_json(value: object) -> str:
    """The JSON of a value. Letters stand for themselves: escaped they take up to three times as many bytes."""
    return _ENCODER.encode(value)


def size(text: str) -> int:
    """Bytes of a text in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


def fits(text: str, most_bytes: int) -> bool:
    """Whether a text has so many bytes at most."""
    return len(text) * _LARGEST_OF_A_CHARACTER <= most_bytes or size(text) <= most_bytes


def shortest(number: float | int) -> str:
    """The shortest JSON that is just this number, for whoever reads all numbers as floats."""
    plain = repr(number)
    if isinstance(number, int):
        return _shorter_integer(plain)
    if plain.endswith(".0"):
        return plain if number == 0 else _shorter_integer(plain[:-2])  # -0 would be read as 0
    if "e" not in plain and abs(number) >= 0.01:
        return plain
    return shortest_small(plain)


def shortest_small(plain: str) -> str:
    """The shortest form of a number that Python writes with an exponent, or with zeros behind the point."""
    mantissa, _, exponent = plain.partition("e")
    whole, _, fraction = mantissa.partition(".")
    sign = "-" if whole.startswith("-") else ""
    digits = (whole.removeprefix("-") + fraction).lstrip("0")
    power = int(exponent or 0) - len(fraction)
    forms = [] if exponent else [plain]
    if len(digits) > 1:
        forms.append(f"{sign}{digits[0]}.{digits[1:]}e{power + len(digits) - 1}")
    return min([*forms, f"{sign}{digits}e{power}"], key=len)


def _shorter_integer(plain: str) -> str:
    digits = plain.rstrip("0")
    zeros = len(plain) - len(digits)
    return f"{digits}e{zeros}" if zeros >= 3 and digits else plain


def cut(text: str, excess: int) -> str:
    """The text without its end, whose JSON has at least so many bytes less, if it has as many as that."""
    largest = size(as_json(text)) - excess - size(as_json(CUT_MARK))
    fitting = bisect.bisect_right(range(len(text)), largest, key=lambda end: size(as_json(text[:end])))
    return text[: max(0, fitting - 1)] + CUT_MARK


def names(keys: Sequence[str], longest: int, spell: Callable[[str], str]) -> tuple[str, ...]:
    """How the keys of a sample are called at a platform; "" for one that cannot be called anything.

    It depends on no value: what is missing in one sample must not give its name to something else. A key that needs
    no other spelling keeps its name; of others that are spelt alike, all but the first get a number.

    Args:
        longest: Characters of a name.
        spell: Gives the nearest name that the platform takes, or "".
    """
    spelt = [spell(key) for key in keys]
    used = {name for key, name in zip(keys, spelt, strict=True) if key == name}
    found = []
    for key, name in zip(keys, spelt, strict=True):
        if name and key != name:
            name = _unused(name, used, longest)
            used.add(name)
        found.append(name)
    return tuple(found)


def _unused(name: str, used: set[str], longest: int) -> str:
    number, candidate = 2, name
    while candidate in used:
        suffix = f"_{number}"
        candidate = name[: longest - len(suffix)].rstrip("_") + suffix
        number += 1
    return candidate
