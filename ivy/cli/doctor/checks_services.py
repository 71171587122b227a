"""`ivy doctor`: the services as systemd has them. Whether they run, are watched, and are in their sandbox."""

from collections.abc import Iterator

from ivy.cli.doctor.finding import Finding
from ivy.utils.host import units
from ivy.utils.host.commands import CommandError
from ivy.utils.updates import activation

_PROPERTIES = (
    "LoadState",
    "ActiveState",
    "SubState",
    "NRestarts",
    "WatchdogUSec",
    "NoNewPrivileges",
    "ProtectSystem",
    "User",
)
_MANY_RESTARTS = 5


def services() -> Iterator[Finding]:
    """All that is to be said about units, sandbox and watchdogs."""
    try:
        wanted = activation.services()
        found = units.show_each(wanted, *_PROPERTIES)
    except CommandError as error:
        yield Finding("units", str(error), "is this a node, with systemd?")
        return
    if not wanted:
        yield Finding(
            "units",
            f"{units.TARGET} wants no service",
            "systemctl daemon-reload; journalctl -b | grep ivy-generator",
        )
        return
    yield from _states(found)
    yield from _sandbox(found)
    yield from _watchdogs(found)


def _states(found: dict[str, dict[str, str]]) -> Iterator[Finding]:
    bad = False
    for unit, state in found.items():
        restarts = int(state["NRestarts"] or 0)
        if state["ActiveState"] != "active" or restarts >= _MANY_RESTARTS:
            bad = True
            text = f"{unit} is {state['ActiveState']} ({state['SubState']}), restarted {restarts} times"
            yield Finding("units", text, f"journalctl -u {unit} -n 50; then: sudo ivy restart")
    if not bad:
        yield Finding("units", f"{len(found)} services run")


def _sandbox(found: dict[str, dict[str, str]]) -> Iterator[Finding]:
    open_ones = [
        unit
        for unit, state in found.items()
        if state["NoNewPrivileges"] != "yes" or state["ProtectSystem"] != "strict" or state["User"] in ("", "root")
    ]
    for unit in open_ones:
        remedy = f"a drop-in loosens it: systemctl cat {unit}; systemd-analyze security {unit}"
        yield Finding("sandbox", f"{unit} may do more than it needs", remedy)
    if not open_ones:
        yield Finding("sandbox", "every service is without rights, and can write only its data")


def _watchdogs(found: dict[str, dict[str, str]]) -> Iterator[Finding]:
    unwatched = [unit for unit, state in found.items() if state["WatchdogUSec"] in ("", "0", "infinity")]
    for unit in unwatched:
        yield Finding("watchdogs", f"{unit} has none: should it hang, nobody notices", f"systemctl cat {unit}")
    if not unwatched:
        yield Finding("watchdogs", "every service has one")
