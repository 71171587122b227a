"""Lets the services be those of the current release and config, with as small a gap in sampling as can be.

Raises `CommandError` where there is no systemd to ask. A unit that cannot be started is no reason: see `probation`.
"""

import contextlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from ivy import constants
from ivy.types.config import ForeignConfig
from ivy.utils.host import busy, commands, units, waiting
from ivy.utils.updates.releases import Releases
from ivy.version import Version

PACKAGE_ONLY = ("updater", "rollback", "repair", "restart", "salvage", "provision")
"""First words of services that no release can bring; units/ivy-generator, which imports nothing, has them, too."""

GENERATOR = "/usr/lib/systemd/system-generators/ivy-generator"
"""Says what systemd would want, where that does not ask it."""

_OWNERS = units.name_of("owners")  # a release has users and directories of its own; made before anything is stopped
_RELOAD_FLAG = Path(constants.UPDATER_RUN_DIR, "reload-refused")
"""There until systemd has reloaded after it refused to; units/ivy-rollback leaves it, too."""


def backend_unit(config: ForeignConfig) -> str | None:
    """The unit of the backend that a config names, if it names one."""
    provider = config.section("backend").get("provider")
    return units.name_of(provider) if isinstance(provider, str) else None


def services() -> list[str]:
    """The units that current release, config and admin want, but for the updater's own."""
    wanted = [unit for unit in units.wanted_by_target() if not _is_of_package(unit)]
    found = units.show_each(wanted, "LoadState")
    return [unit for unit in wanted if found.get(unit, {}).get("LoadState") != "masked"]


def switch(
    backend: str | None,
    chosen: Callable[[list[str]], set[str] | None] = lambda _: None,
    *,
    is_undone: bool = False,
) -> list[str]:
    """Let systemd look at the current release again, and restart, start and stop what follows from it.

    The procedures come first and one by one, so that each is away only as long as it takes to start. A backend may
    take its time to send what is queued: nobody waits for that but the new one.

    Args:
        backend: The unit of the backend, if there is to be one.
        chosen: Of all units that are wanted now, those that must start again; None means all. The others only start
            where they do not run.
        is_undone: Whether this goes back to what is known to run, and so goes on if systemd refuses to reload.

    Returns: All units that run now, or should.

    Raises:
        NoRoomError: systemd refuses to reload, for want of room in /run. All services are as they were.
    """
    wanted = _reload(is_undone)
    with contextlib.suppress(commands.CommandError):  # version 1.0 has none
        units.control("restart", _OWNERS)
    again = chosen(wanted)
    for unit in sorted(wanted, key=lambda unit: unit == backend):
        if unit == backend:
            _stop_orphans(wanted, again is None)
        with contextlib.suppress(commands.CommandError):
            units.control("restart" if again is None or unit in again else "start", unit)
    if backend not in wanted:
        _stop_orphans(wanted, again is None)
    _switch_triggers(again is None)
    return wanted


def stop_lacking(release: Path) -> None:
    """Stop the services that a release does not bring. To be called before it is the current one.

    What makes their hardware safe belongs to the release that they are of, and is run by the unit: once that is not
    the current one any more, systemd does not know of it, and nobody can run it.
    """
    bringing = release / "units"
    if not bringing.is_dir():
        return
    with contextlib.suppress(commands.CommandError):
        running = units.active(f"{constants.NAME}-*.service")
        for unit in _orphans([unit for unit in running if not (bringing / unit).exists()], []):
            with contextlib.suppress(commands.CommandError):
                units.control("stop", unit)


def lead_to(releases: Releases, version: Version) -> None:
    """Let a version be the current one, after what it lacks was stopped. Nothing is started by that."""
    stop_lacking(releases.directory(version))
    releases.activate(version)


def awaits_reload() -> bool:
    """Whether systemd refused to reload when it was gone back to what ran before, and has not done so since."""
    return _RELOAD_FLAG.exists()


def catch_up(backend: str | None) -> None:
    """Do what was left to do because systemd refused to reload; if it still does, as much of it as can be done."""
    if not awaits_reload():
        return
    try:
        switch(backend)
    except units.NoRoomError as error:
        print(f"still without a reload: {error}", flush=True)
        wanted = _wanted_by_generator()
        _stop_orphans(wanted, is_all=False)
        for unit in wanted:  # those that run stay as they are
            with contextlib.suppress(commands.CommandError):
                units.control("start", unit)


def _reload(is_undone: bool) -> list[str]:
    """Let systemd reload. Returns what is wanted then; or would be, if it refuses but one goes on."""
    try:
        units.reload()
    except units.NoRoomError as error:
        if not is_undone:
            raise
        print(f"going on without a reload: {error}", flush=True)
        with contextlib.suppress(OSError):  # where there is room for nothing, the next boot sees to it
            _RELOAD_FLAG.touch()
        return _wanted_by_generator()
    _RELOAD_FLAG.unlink(missing_ok=True)
    return services()


def _wanted_by_generator() -> list[str]:
    """As `services`, where systemd has not asked the generator."""
    with tempfile.TemporaryDirectory() as output:
        try:
            commands.run([GENERATOR, *[output] * 3], timeout=units.PATIENCE)
            wanted = os.listdir(Path(output, f"{units.TARGET}.wants"))
            return sorted(unit for unit in wanted if not unit.endswith(units.TRIGGERS))
        except (commands.CommandError, OSError):
            return services()


def renew(backend: str | None) -> None:
    """Restart all services, in the same order, because of what they run on. Release and config are the same.

    What somebody has stopped, or is stopping now, stays so: a machine is upgraded while its sensors are away, too.
    Who is not to be disturbed now is restarted when it may be. Nobody waits for that: offers would have to, too.
    """
    wanted = services()
    undisturbed = waiting.find(wanted)
    for unit in sorted(wanted, key=lambda unit: unit == backend):
        if unit in undisturbed and _is_put_off(unit, undisturbed[unit]):
            continue
        start_again(unit)


def _is_put_off(unit: str, seconds: float) -> bool:
    """Whether somebody restarts it later; where that cannot be asked for, it must be now."""
    try:
        waiting.restart_later(unit)
    except (OSError, commands.CommandError) as error:
        print(f"{unit} cannot be restarted later: {error}", flush=True)
        return False
    name = units.service_of(unit)
    print(f"restarted later: {busy.words({name: seconds})}, not to be disturbed", flush=True)
    return True


def start_again(unit: str) -> None:
    """Restart a service, unless somebody has stopped it."""
    if _is_wanted(units.show(unit, "ActiveState", "ExecMainStatus")):
        with contextlib.suppress(commands.CommandError):
            units.control("restart", unit)


def _is_wanted(properties: dict[str, str]) -> bool:
    """Whether a unit runs, or systemd only does not try any more; what has just crashed it starts by itself."""
    if properties.get("ActiveState") in ("inactive", "failed", "deactivating"):
        return properties.get("ExecMainStatus") == str(constants.EXIT_CONFIG_ERROR)
    return True


def _stop_orphans(wanted: list[str], is_all: bool) -> None:
    """Stop what no release wants any more; systemd would let it run on. If all, what a trigger has started, too."""
    running = units.active(f"{constants.NAME}-*.service")
    found = _orphans(running, wanted)
    triggers = set() if is_all or not found else set(units.triggers_of_target())
    for unit, properties in found.items():
        if triggers.isdisjoint(properties.get("TriggeredBy", "").split()):
            units.control("stop", unit)


def _switch_triggers(is_all: bool) -> None:
    """Let what starts a procedure when it is time be that of the release; after what it has started was stopped."""
    wanted = [unit for unit in units.triggers_of_target() if not _is_of_package(unit)]
    for unit in _orphans(units.active(*(f"{constants.NAME}-*{kind}" for kind in units.TRIGGERS)), wanted):
        with contextlib.suppress(commands.CommandError):
            units.control("stop", unit)
    for unit in wanted:
        with contextlib.suppress(commands.CommandError):
            units.control("restart" if is_all else "start", unit)


def _orphans(running: list[str], wanted: list[str]) -> dict[str, dict[str, str]]:
    """Those of some units that are not wanted, and are ours: what the admin has made is not, whatever its name."""
    others = [unit for unit in running if unit not in wanted]
    return {
        unit: properties
        for unit, properties in units.show_each(others, "LoadState", "PartOf", "TriggeredBy").items()
        if (properties["LoadState"] == "not-found" or units.TARGET in properties["PartOf"].split())
        and unit != _OWNERS  # which each service wants
        and not _is_of_package(unit)
    }


def _is_of_package(unit: str) -> bool:
    return unit.removeprefix(f"{constants.NAME}-").partition(".")[0] in PACKAGE_ONLY
