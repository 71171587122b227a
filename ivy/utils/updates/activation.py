"""Lets the services be those of the current release and config, with as small a gap in sampling as can be.

Raises `CommandError` where there is no systemd to ask. A unit that cannot be started is no reason: see `probation`.
"""

import contextlib

from ivy import constants
from ivy.types.config import ForeignConfig
from ivy.utils.host import commands, units

PACKAGE_ONLY = ("updater", "rollback", "restart")
"""First words of services that no release can bring; units/ivy-generator, which imports nothing, has them, too."""

_OWN = {units.name_of(name) for name in PACKAGE_ONLY}


def backend_unit(config: ForeignConfig) -> str | None:
    """The unit of the backend that a config names, if it names one."""
    provider = config.section("backend").get("provider")
    return units.name_of(provider) if isinstance(provider, str) else None


def services() -> list[str]:
    """The units that the current release and config want, but for the updater's own."""
    return [unit for unit in units.wanted_by_target() if unit not in _OWN]


def switch(backend: str | None) -> list[str]:
    """Let systemd look at the current release again, and restart, start and stop what follows from it.

    The procedures come first and one by one, so that each is away only as long as it takes to start. A backend may
    take its time to send what is queued: nobody waits for that but the new one.

    Returns: All units that run now, or should.
    """
    units.reload()
    wanted = services()
    for unit in sorted(wanted, key=lambda unit: unit == backend):
        if unit == backend:
            _stop_orphans(wanted)
        with contextlib.suppress(commands.CommandError):
            units.control("restart", unit)
    if backend not in wanted:
        _stop_orphans(wanted)
    return wanted


def renew(backend: str | None) -> None:
    """Restart all services, in the same order, because of what they run on. Release and config are the same.

    What somebody has stopped, or is stopping now, stays so: a machine is upgraded while its sensors are away, too.
    """
    for unit in sorted(services(), key=lambda unit: unit == backend):
        if _is_wanted(units.show(unit, "ActiveState", "ExecMainStatus")):
            with contextlib.suppress(commands.CommandError):
                units.control("restart", unit)


def _is_wanted(properties: dict[str, str]) -> bool:
    """Whether a unit runs, or systemd only does not try any more; what has just crashed it starts by itself."""
    if properties.get("ActiveState") in ("inactive", "failed", "deactivating"):
        return properties.get("ExecMainStatus") == str(constants.EXIT_CONFIG_ERROR)
    return True


def _stop_orphans(wanted: list[str]) -> None:
    """Stop what no release wants any more; systemd would let it run on."""
    running = units.active_services(f"{constants.NAME}-*.service")
    found = units.show_each([unit for unit in running if unit not in wanted], "LoadState", "PartOf")
    for unit, properties in found.items():
        # What the admin has made is not ours, whatever its name.
        is_ours = properties["LoadState"] == "not-found" or units.TARGET in properties["PartOf"].split()
        if is_ours and unit not in _OWN:
            units.control("stop", unit)
