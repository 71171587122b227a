"""The table of the fleet, `ivy.fleet.table` for Ansible, without Ansible."""

import csv
import json
import types
from pathlib import Path
from typing import Any

import pytest

from tests.support.ansible_plugin import load


@pytest.fixture
def printed() -> list[str]:
    """The lines of the table."""
    return []


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch, printed: list[str]) -> types.ModuleType:
    """The plugin."""

    class Display:
        def display(self, line: str, color: str | None = None) -> None:
            printed.append(line)

    given: dict[str, dict[str, Any]] = {
        "ansible.errors": {"AnsibleActionFail": ValueError},
        "ansible.plugins.action": {"ActionBase": object},
        "ansible.utils.display": {"Display": Display},
    }
    return load(monkeypatch, "action/table.py", given)


def unit(name: str, age: float | None, **more: Any) -> dict[str, Any]:
    service = {"name": f"ivy-{name}.service", "state": "active (running)", "last_sample_seconds": age}
    return {**service, "is_procedure": True, "silent_seconds": None, **more}


def status(*units: dict[str, Any]) -> dict[str, Any]:
    problems = ["ivy-wind.service: silent"] if any(each.get("silent_seconds") for each in units) else []
    return {"well": not problems, "problems": problems, "version": "1.1.0", "config_revision": 7, "units": units}


def show(table: types.ModuleType, **statuses: dict[str, Any]) -> None:
    table.print_table({name: table.parse({"stdout": json.dumps(found)}) for name, found in statuses.items()})


def test_the_last_sample_of_each_procedure_with_its_age(table: types.ModuleType, printed: list[str]) -> None:
    show(
        table,
        roof=status(
            unit("wind", 4000.2, silent_seconds=4000.2),
            unit("co2", 12.4, busy_seconds=600.0),
            unit("rain", None),
            unit("snow", 9e5, state="off by config"),
            unit("hail", None, state="masked by the admin"),
            unit("tenta", None, is_procedure=False),
        ),
        cellar=status(unit("co2", 3.9)),
    )
    samples = "wind 67 min (SILENT), co2 12 s (busy), rain never, snow off, hail masked"
    assert printed[2].endswith(f"  1 problem  {samples}")
    assert printed[3].index("co2 4 s") == printed[2].index(samples) == printed[1].index("last samples")
    assert printed[4:-1] == ["", "roof: ivy-wind.service: silent"]
    assert printed[-1] == "\n1 of 2 nodes are well; on a node, ivy doctor says what to do"


@pytest.mark.parametrize(("what", "named"), [({}, "an update"), ({"what": "reboot"}, "a reboot")])
def test_what_is_to_be_read_stands_below_the_table(
    table: types.ModuleType, printed: list[str], what: dict[str, str], named: str
) -> None:
    waits = {**what, "procedures": ["co2", "wind"], "most_seconds": 4000.0}
    bad = status() | {"well": False, "problems": ["disk: 97 % full", "backend: not connected:\nno route"]}
    table.print_table(
        {
            "roof": table.parse(
                {"stdout": json.dumps(status() | {"update_waits": waits, "hold": {"reason": "a look"}})}
            ),
            "cellar": table.parse({"stdout": json.dumps(bad)}),
            "attic": table.parse({"unreachable": True}),
            "shed": table.parse({"stderr": "sudo: ivy: command not found\n"}),
        }
    )
    column = printed[1].index("state")
    assert [line[column:].strip("- ") for line in printed[2:6]] == [
        *("well, held", "2 problems", "cannot be reached", "1 problem"),
    ]
    assert printed[6:-1] == [
        "",
        "roof: held: a look",
        f"roof: {named} waits for co2, wind, 67 min more at most",
        "cellar: disk: 97 % full",
        "cellar: backend: not connected: no route",
        "shed: sudo: ivy: command not found",
    ]
    assert printed[-1].strip().startswith("1 of 4 nodes are well; ")


def test_a_release_of_before_says_less(table: types.ModuleType, printed: list[str]) -> None:
    old = [{"name": "ivy-wind.service", "state": "active (running)", "last_sample_seconds": 3.0}]
    old += [{"name": "ivy-tenta.service", "state": "active (running)", "last_sample_seconds": None}]
    show(table, roof=status(*old), cellar={"well": True, "problems": []})
    assert printed[2].endswith("  wind 3 s")
    assert printed[3].split()[-2:] == ["well", "-"]


def test_what_a_node_says_does_not_command_the_terminal(table: types.ModuleType, printed: list[str]) -> None:
    show(table, roof=status(unit("\033[2J", 3)))
    assert "\033" not in "".join(printed) and "?[2J 3 s" in printed[2]


WELL = {
    **status(unit("wind", 40.0), unit("co2", 12.4), unit("tenta", None, is_procedure=False)),
    "config_digest": "0123456789ab",
    "queue": {"length": 3, "oldest_seconds": 7},
    "disk": {"used_percent": 41.5},
    "backend": {"connected": True},
}


def records(table: types.ModuleType) -> list[dict[str, Any]]:
    away = table.parse({"unreachable": True})
    cruel = {"well": False, "problems": ["=cmd()", "x\ny"], "version": "@SUM(A1)"}
    return [table.record(*pair) for pair in (("roof", WELL), ("cellar", away), ("attic", cruel))]


def test_the_digest_of_the_config_has_a_column(table: types.ModuleType, printed: list[str]) -> None:
    show(table, roof=WELL)
    assert printed[1].split()[:4] == ["node", "version", "revision", "config"]
    assert printed[2].split()[:4] == ["roof", "1.1.0", "7", "0123456789ab"]


def test_a_report_for_programs(table: types.ModuleType, tmp_path: Path) -> None:
    roof, cellar, attic = json.loads(table.form_of("x.json")(records(table)))
    assert roof["well"] is True and roof["config_digest"] == "0123456789ab" and roof["last_data_seconds"] == 12.4
    assert (roof["queued"], roof["connected"], roof["problems"]) == (3, True, [])
    assert (cellar["well"], cellar["version"], cellar["problems"]) == (False, None, ["cannot be reached"])
    table.write(str(tmp_path / "x.csv"), table.form_of("x.csv")(records(table)))
    with (tmp_path / "x.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert list(lines[0]) == list(roof) and [line["well"] for line in lines] == ["true", "false", "false"]
    assert (lines[0]["queued"], lines[1]["queued"], lines[1]["problems"]) == ("3", "", "cannot be reached")
    assert (lines[2]["version"], lines[2]["problems"]) == ("'@SUM(A1)", "'=cmd(); x?y")
    assert attic["problems"] == ["=cmd()", "x\ny"] and [path.name for path in tmp_path.iterdir()] == ["x.csv"]


def test_a_report_of_another_form_is_refused(table: types.ModuleType) -> None:
    with pytest.raises(ValueError, match=r"\*\.csv or \*\.json, not report\.txt"):
        table.form_of("report.txt")
