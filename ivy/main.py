"""Finds and runs the services of this release. What supervises them is systemd."""

import contextlib
import importlib
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from ivy import constants, service
from ivy.utils.functions import procedure_names
from ivy.utils.host import journal

_BACKEND_SUFFIX = "_backend"


def run() -> None:
    """Make one pass of the updater, see `update_pass.run`; procedures and backends are services of their own."""
    from ivy import update_pass
    from ivy.utils import notify  # not at the top: no resident service carries the updater

    notify.ready()
    update_pass.run()


def service_names() -> list[str]:
    """The services that `run_service` can run: `dummy-procedure`, `tenta` and so on, sorted."""
    modules = Path(constants.PROJECT_DIR, "ivy", "backend").glob(f"*{_BACKEND_SUFFIX}.py")
    backends = [module.stem.removesuffix(_BACKEND_SUFFIX).replace("_", "-") for module in modules]
    return sorted([*procedure_names(), *backends, "updater"])


def run_service(name: str) -> NoReturn:
    """Run one of `service_names()` in the foreground, until a signal ends it.

    Raises:
        SystemExit: Always: with 2 if there is no such service; else see `ivy.service` for the statuses.
    """
    journal.guard_streams()
    if name not in service_names():
        _refuse(f"no service {name!r}; there are: {', '.join(service_names())}")
    if name == "updater":
        _run_pass()
        raise SystemExit(0)
    _give_up_rights()
    _refuse_beside_unit(name)
    if name in procedure_names():
        service.run_procedure(_procedure(name).run, name)
    module = name.replace("-", "_")
    service.run_backend(importlib.import_module(f"ivy.backend.{module}{_BACKEND_SUFFIX}").run, name)


def make_safe(name: str) -> NoReturn:
    """Run what a procedure's module has for the end of it, `make_safe(config, logger)`: its unit's `ExecStopPost=`.

    Raises:
        SystemExit: Always: with 2 if there is no such procedure, or it has nothing of that kind; 1 if that failed.
    """
    journal.guard_streams()
    if name not in procedure_names():
        _refuse(f"no procedure {name!r}; there are: {', '.join(procedure_names())}")
    _give_up_rights()
    entrypoint = getattr(_procedure(name), "make_safe", None)
    if entrypoint is None:
        _refuse(f"{name!r} has no function make_safe(config, logger)")
    _refuse_beside_unit(name)
    service.make_safe(entrypoint, name)


def _run_pass() -> None:
    try:
        run()
    except PermissionError as error:
        from ivy.utils.host import rights  # not at the top: as a service, it is root

        if (why := rights.why_not_permitted(error)) is None:
            raise
        _refuse(why)


def _procedure(name: str) -> ModuleType:
    return importlib.import_module(f"ivy.procedures.{name.replace('-', '_')}")


def _give_up_rights() -> None:
    if os.geteuid() == 0 and os.environ.get("SYSTEMD_EXEC_PID") != str(os.getpid()):
        from ivy.utils.host import rights  # not at the top: as a service, the unit says who it is

        rights.give_up()


def _refuse_beside_unit(name: str) -> None:
    """Hardware has one owner, and a broker knows one client of a name. (Tests have a node of their own.)"""
    if {"NOTIFY_SOCKET", "SERVICE_RESULT", "IVY_ROOT_DIR", "IVY_VERSION_CHANGE"} & os.environ.keys():
        return
    from ivy.utils.host import commands, units  # not at the top: a service has no use for them

    unit = units.name_of(name)
    with contextlib.suppress(commands.CommandError):  # nobody runs it where there is no systemd
        if units.show(unit, "ActiveState").get("ActiveState") in (
            "active",
            "activating",
            "reloading",
            "deactivating",
        ):
            _refuse(f"{unit} runs, and there can be only one: first systemctl stop {unit.removesuffix('.service')}")


def _refuse(complaint: str) -> NoReturn:
    print(f"ivy run: {complaint}", file=sys.stderr)
    raise SystemExit(2)
