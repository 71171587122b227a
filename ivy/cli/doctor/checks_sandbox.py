"""`ivy doctor`: what the services may: their sandbox, and what a unit or a drop-in of an admin lets out of it."""

import re
from collections.abc import Iterator, Sequence

from ivy import constants, overview
from ivy.cli.doctor.finding import Finding
from ivy.utils.host import commands, units

_DIRECTORIES = ("StateDirectory", "CacheDirectory", "LogsDirectory", "ConfigurationDirectory", "RuntimeDirectory")
_COMMANDS = ("Condition", "StartPre", "Start", "StartPost", "Reload", "Stop", "StopPost")
_PROPERTIES = (
    *("Id", "PrivateNetwork", "RestrictAddressFamilies", "PrivateDevices", "DeviceAllow"),
    *("ReadWritePaths", "BindPaths", *_DIRECTORIES),
    *(f"Exec{when}Ex" for when in _COMMANDS),
)
_COMMAND = re.compile(r"argv\[\]=(.*?) ; flags=([^;]*) ;")
_PLUGGED = re.compile(r"/dev/((?:ttyUSB|ttyACM|hidraw)\d+) ")
"""Devices that come and go, and have another number each time."""
_AS_ROOT = {"privileged", "no-setuid", "ambient"}  # "+", "!" and "!!"
_LONGEST_COMMAND = 60


def sandbox(found: Sequence[overview.Service]) -> Iterator[Finding]:
    """Whether each service is in its sandbox, and what it may beyond that."""
    loose = [service for service in found if not service.confined]
    for service in loose:
        remedy = f"a drop-in loosens it: systemctl cat {service.name}; systemd-analyze security {service.name}"
        yield Finding("sandbox", f"{service.name} may do more than it needs", remedy)
    if loose:
        return
    try:
        more = "; ".join(_more(found))
    except commands.CommandError as error:
        yield Finding("sandbox", str(error), "ask again")
        return
    yield from _late_devices(found)
    text = "every service is without rights, and can write only its data"
    yield Finding("sandbox", f"{text}; but for {more}" if more else text)


def _late_devices(found: Sequence[overview.Service]) -> Iterator[Finding]:
    """What is allowed by a name, which is looked up when the service starts, and never again."""
    for service in found:
        allowed = units.show(service.name, "DeviceAllow").get("DeviceAllow", "")
        for name in _PLUGGED.findall(f"{allowed} "):
            text = f"{service.name} may use {name} by name: refused, when it comes later or as another number"
            kind = name.rstrip("0123456789")
            remedy = f"in its drop-in, DeviceAllow=char-{kind} rw: systemctl cat {service.name}"
            yield Finding("devices", text, remedy)


def _more(found: Sequence[overview.Service]) -> Iterator[str]:
    """What services may beyond that, each time with those who do."""
    allowed: dict[str, list[str]] = {}
    for service in found:
        for what in dict.fromkeys(_of_unit(service)):
            allowed.setdefault(what, []).append(units.service_of(service.name))
    for what, names in sorted(allowed.items()):
        who = "each" if len(names) == len(found) > 1 else ", ".join(names)
        yield f"{what} ({who})"


def _of_unit(service: overview.Service) -> Iterator[str]:
    # One line for each command: a property can stand there several times.
    text = commands.run(
        ["systemctl", "show", f"--property={','.join(_PROPERTIES)}", "--", service.name], timeout=units.PATIENCE
    )
    shown = [(name, value) for name, is_set, value in (line.partition("=") for line in text.splitlines()) if is_set]
    settings = dict(shown)
    if settings.get("PrivateNetwork") == "no":
        yield f"the network: {settings.get('RestrictAddressFamilies') or 'all of it'}"
    if settings.get("PrivateDevices") == "no":
        devices = [value for name, value in shown if name == "DeviceAllow" and value]
        yield f"devices: {', '.join(devices) or 'all that its user may'}"
    own = _own_paths(service)
    yield from (
        f"writing {path.lstrip('-+')}"
        for name in ("ReadWritePaths", "BindPaths")
        for path in settings.get(name, "").split()
        if path.lstrip("-+") not in own
    )
    yield from (f"{name} {settings[name]}" for name in _DIRECTORIES if settings.get(name))
    for name, value in shown:
        for command, flags in _COMMAND.findall(value) if name.startswith("Exec") else ():
            if _AS_ROOT & set(flags.split()):
                short = command if len(command) <= _LONGEST_COMMAND else f"{command[:_LONGEST_COMMAND]}…"
                yield f"{name.removesuffix('Ex')} by root, {short}"


def _own_paths(service: overview.Service) -> set[str]:
    """What a service may write in any case."""
    name = service.name.removesuffix(".service")
    own = {
        constants.IVY_DATA_DIR,
        constants.IVY_RUN_DIR,
        f"{constants.SAMPLES_DIR}/{name}",
        f"{constants.BUSY_DIR}/{name}",
    }
    if service.user == constants.BACKEND_USER:
        own |= {constants.BACKEND_DIR, constants.BACKEND_RUN_DIR}
    return own
