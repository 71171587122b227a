"""`ivy doctor`: the services as systemd has them. Whether they run, are watched, and are in their sandbox."""

from collections.abc import Iterator, Sequence

from ivy import overview
from ivy.cli.doctor.finding import Finding
from ivy.utils.host import units
from ivy.utils.host.commands import CommandError

_MANY_RESTARTS = 5


def services() -> Iterator[Finding]:
    """All that is to be said about units, sandbox and watchdogs."""
    try:
        found = [service for service in overview.services() if service.name != overview.PASS]
    except CommandError as error:
        yield Finding("units", str(error), "is this a node, with systemd?")
        return
    if not found:
        remedy = "systemctl daemon-reload; journalctl -b | grep ivy-generator"
        yield Finding("units", f"{units.TARGET} wants no service", remedy)
        return
    yield from _states(found)
    for service in (service for service in found if not service.confined):
        remedy = f"a drop-in loosens it: systemctl cat {service.name}; systemd-analyze security {service.name}"
        yield Finding("sandbox", f"{service.name} may do more than it needs", remedy)
    if all(service.confined for service in found):
        yield Finding("sandbox", "every service is without rights, and can write only its data")
    for service in (service for service in found if not service.watched):
        text = f"{service.name} has none: should it hang, nobody notices"
        yield Finding("watchdogs", text, f"systemctl cat {service.name}")
    if all(service.watched for service in found):
        yield Finding("watchdogs", "every service has one")


def _states(found: Sequence[overview.Service]) -> Iterator[Finding]:
    bad = [service for service in found if not service.well or service.restarts >= _MANY_RESTARTS]
    for service in bad:
        text = f"{service.name} is {service.state}, restarted {service.restarts} times"
        yield Finding("units", text, f"journalctl -u {service.name} -n 50; then: sudo ivy restart")
    if not bad:
        yield Finding("units", f"{len(found)} services run")
