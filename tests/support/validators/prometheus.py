"""Prometheus's text format as its documentation has it, read more strictly than Prometheus does."""

import re

Labels = tuple[tuple[str, str], ...]
Parsed = dict[tuple[str, Labels], float]

_LABEL = r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"'
_SAMPLE = re.compile(rf"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{{({_LABEL}(?:,{_LABEL})*)\}})? (\S+)")


def parse(text: str) -> Parsed:
    """Read a file: each metric with help, then type, then its samples, and nothing twice."""
    assert text == "" or text.endswith("\n")
    found: Parsed = {}
    seen: set[str] = set()
    lines = iter(text.removesuffix("\n").split("\n") if text.strip() else [])
    current = ""
    for line in lines:
        if line.startswith("# HELP "):
            _, _, current, help_text = line.split(" ", 3)
            assert help_text and current not in seen
            seen.add(current)
            kind = next(lines).removeprefix(f"# TYPE {current} ")
            assert kind in ("gauge", "counter") and (kind == "counter") == current.endswith("_total")
            continue
        match = _SAMPLE.fullmatch(line)
        assert match and match[1] == current, line
        labels = tuple((name, _unescape(value)) for name, value in re.findall(_LABEL, match[2] or ""))
        assert (current, labels) not in found
        found[current, labels] = float(match[match.lastindex or 0])
    return found


def _unescape(text: str) -> str:
    return re.sub(r"\\(.)", lambda match: {"n": "\n"}.get(match[1], match[1]), text)
