"""The action ivy.fleet.table: prints what `ivy status --json` said on each node as a table, for a person.

Below it stands what is no number: each problem, and whom an update waits for, on a line with the node's name.
For programs it writes the same into a file.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

HEADER = ("node", "version", "revision", "config", "queued", "oldest", "disk", "backend", "state", "last samples")
RIGHT = {"revision", "queued", "oldest", "disk"}
NOTHING = "-"
AWAY = "cannot be reached"
NOT_WANTED = {"off by config": "off", "masked by the admin": "masked", "stopped by the hold": "held"}
UNITS = ((86_400, "d"), (3600, "h"), (60, "min"))
MOST_OF_A_UNIT = 3  # of a larger one, until which the smaller one says more
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What makes a formula of a text, where somebody opens a report by a program for tables."""


class ActionModule(ActionBase):
    """`results`: for each node's name what the command's task has registered. `report`: a file to write, *.csv or
    *.json, or nothing."""

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Print. Returns what is not well, for the name of each node that is not."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        report = self._task.args.get("report") or ""
        as_text = form_of(report) if report else None
        statuses = {name: parse(found) for name, found in self._task.args["results"].items()}
        print_table(statuses)
        if as_text is not None:
            write(os.path.expanduser(report), as_text([record(name, status) for name, status in statuses.items()]))
        bad = {name: status for name, status in statuses.items() if not status.get("well")}
        not_well = {name: "; ".join(status["problems"]) for name, status in bad.items()}
        return {**result, "changed": False, "not_well": not_well}


def form_of(path: str) -> Callable[[Sequence[Mapping[str, Any]]], str]:
    """How a report of this name is written."""
    for suffix, form in ((".csv", as_csv), (".json", as_json)):
        if path.endswith(suffix):
            return form
    raise AnsibleActionFail(f"ivy_report must be the name of a file *.csv or *.json, not {path}")


def record(name: str, status: Mapping[str, Any]) -> dict[str, Any]:
    """One node in a report; None for what it did not tell."""
    queue, disk = status.get("queue", {}), status.get("disk", {})
    ages = [unit.get("last_sample_seconds") for unit in status.get("units", [])]
    backend = status.get("backend")
    return {
        "node": name,
        "well": bool(status.get("well")),
        "version": status.get("version"),
        "config_revision": status.get("config_revision"),
        "config_digest": status.get("config_digest"),
        "system_identifier": status.get("system_identifier"),
        "last_data_seconds": min((age for age in ages if age is not None), default=None),
        "queued": queue.get("length"),
        "oldest_seconds": queue.get("oldest_seconds"),
        "disk_used_percent": disk.get("used_percent"),
        "connected": backend["connected"] if backend else None,
        "problems": list(status["problems"]),
    }


def as_json(records: Sequence[Mapping[str, Any]]) -> str:
    """A list with an object for each node."""
    return json.dumps(records, indent=4) + "\n"


def as_csv(records: Sequence[Mapping[str, Any]]) -> str:
    """A line for each node, below a header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(records[0]))
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in record.items()} for record in records)
    return text.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    text = "; ".join(value) if isinstance(value, list) else value
    if not isinstance(text, str):
        return text
    return _printable(f"'{text}" if text.startswith(FORMULA) else text)


def write(path: str, text: str) -> None:
    """Write a file as a whole or not at all."""
    beside = f"{path}.part"
    try:
        with open(beside, "w", encoding="utf-8", newline="") as file:
            file.write(text)
        os.replace(beside, path)
    except OSError as error:
        raise AnsibleActionFail(f"the report could not be written: {error}") from error


def parse(found: Mapping[str, Any]) -> dict[str, Any]:
    """What a node said of itself; what kept it from that, under `problems`."""
    if found.get("unreachable"):
        return {"problems": [AWAY]}
    try:
        status: dict[str, Any] = json.loads(found.get("stdout", ""))
    except ValueError:
        said = (found.get("stderr") or found.get("msg") or "ivy status said nothing").strip()
        return {"problems": [said.splitlines()[-1]]}
    return status


def row(name: str, status: Mapping[str, Any]) -> tuple[str, ...]:
    """One node's line."""
    queue, disk, backend = status.get("queue", {}), status.get("disk", {}), status.get("backend")
    connected = "connected" if backend and backend["connected"] else "not connected"
    cells = (
        name,
        status.get("version"),
        status.get("config_revision"),
        status.get("config_digest"),
        queue.get("length"),
        _with_unit(queue.get("oldest_seconds"), "s"),
        _with_unit(disk.get("used_percent"), "%"),
        connected if backend else None,
        _state(status),
        ", ".join(_samples(status.get("units", []))) or None,
    )
    return tuple(NOTHING if cell is None else _printable(str(cell)) for cell in cells)


def _samples(units: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """How long ago each procedure sampled; a release of before does not say which of the units are procedures."""
    for unit in units:
        age = unit.get("last_sample_seconds")
        if not unit.get("is_procedure", age is not None):
            continue
        is_off = unit["state"] in NOT_WANTED
        said = NOT_WANTED[unit["state"]] if is_off else "never" if age is None else _duration(age)
        marks = {"SILENT": unit.get("silent_seconds") is not None, "busy": bool(unit.get("busy_seconds"))}
        found = "".join(f" ({mark})" for mark, has_it in marks.items() if has_it)
        yield f"{unit['name'].removeprefix('ivy-').removesuffix('.service')} {said}{found}"


def _duration(seconds: float) -> str:
    for length, unit in UNITS:
        if seconds >= MOST_OF_A_UNIT * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _state(status: Mapping[str, Any]) -> str:
    problems = status["problems"]
    if problems == [AWAY]:
        return AWAY
    said = f"{len(problems)} problem{'' if len(problems) == 1 else 's'}" if problems else "well"
    return f"{said}, held" if status.get("hold") else said


def remarks(name: str, status: Mapping[str, Any]) -> Iterator[str]:
    """What is to be read of a node: its problems, who holds it, and for whom an update waits."""
    for problem in status["problems"] if status["problems"] != [AWAY] else ():
        yield _printable(f"{name}: {problem}".replace("\n", " "))
    if held := status.get("hold"):
        yield _printable(f"{name}: held: {held['reason']}".replace("\n", " "))
    if waits := status.get("update_waits"):
        names = ", ".join(waits["procedures"])
        what = "a reboot" if waits.get("what") == "reboot" else "an update"
        yield _printable(f"{name}: {what} waits for {names}, {_duration(waits['most_seconds'])} more at most")


def _printable(text: str) -> str:
    """What a node says must not command the terminal at the desk."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def print_table(statuses: Mapping[str, Mapping[str, Any]]) -> None:
    """Print the rows below a header, remarks and a sum below them; what is not well in red, on a terminal."""
    display = Display()
    rows = [row(name, status) for name, status in statuses.items()]
    colors = [None if status.get("well") else "red" for status in statuses.values()]
    widths = [max(map(len, column)) for column in zip(HEADER, *rows, strict=True)]
    display.display("")
    display.display(_line(HEADER, widths))
    for cells, color in zip(rows, colors, strict=True):
        display.display(_line(cells, widths), color=color)
    said = [line for name, status in statuses.items() for line in remarks(name, status)]
    for line in ["", *said] if said else []:
        display.display(line)
    hint = "; on a node, ivy doctor says what to do" if "red" in colors else ""
    display.display(f"\n{colors.count(None)} of {len(rows)} nodes are well{hint}")


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    aligned = [
        cell.rjust(width) if name in RIGHT else cell.ljust(width)
        for name, cell, width in zip(HEADER, cells, widths, strict=True)
    ]
    return "  ".join(aligned).rstrip()


def _with_unit(number: float | None, unit: str) -> str | None:
    return None if number is None else f"{number:g} {unit}"
