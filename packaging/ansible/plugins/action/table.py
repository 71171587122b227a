"""The action ivy.fleet.table: prints what `ivy status --json` said on each node as a table, for a person."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

HEADER = ("node", "version", "revision", "queued", "oldest", "disk", "backend", "state")
RIGHT = {"revision", "queued", "oldest", "disk"}
NOTHING = "-"


class ActionModule(ActionBase):
    """`results`: for each node's name what the command's task has registered."""

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Print. Returns the nodes that are not well."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        statuses = {name: parse(found) for name, found in self._task.args["results"].items()}
        rows = [row(name, status) for name, status in statuses.items()]
        print_table(rows, [status.get("well", False) for status in statuses.values()])
        not_well = [name for name, status in statuses.items() if not status.get("well")]
        return {**result, "changed": False, "not_well": not_well}


def parse(found: Mapping[str, Any]) -> dict[str, Any]:
    """What a node said of itself; what kept it from that, under `problems`."""
    if found.get("unreachable"):
        return {"problems": ["cannot be reached"]}
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
        queue.get("length"),
        _with_unit(queue.get("oldest_seconds"), "s"),
        _with_unit(disk.get("used_percent"), "%"),
        connected if backend else None,
        "; ".join(status["problems"]).replace("\n", " ") or "well",
    )
    return tuple(NOTHING if cell is None else str(cell) for cell in cells)


def print_table(rows: Sequence[tuple[str, ...]], well: Sequence[bool]) -> None:
    """Print the rows below a header, and a sum below them; what is not well in red, on a terminal."""
    display = Display()
    widths = [max(map(len, column)) for column in zip(HEADER, *rows, strict=True)]
    display.display("")
    display.display(_line(HEADER, widths))
    for cells, is_well in zip(rows, well, strict=True):
        display.display(_line(cells, widths), color=None if is_well else "red")
    display.display(f"\n{sum(well)} of {len(well)} nodes are well")


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    aligned = [
        cell.rjust(width) if name in RIGHT else cell.ljust(width)
        for name, cell, width in zip(HEADER, cells, widths, strict=True)
    ]
    return "  ".join(aligned).rstrip()


def _with_unit(number: float | None, unit: str) -> str | None:
    return None if number is None else f"{number:g} {unit}"
