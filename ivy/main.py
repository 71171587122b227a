"""Finds and runs the services of this release. What supervises them is systemd."""

import importlib
import sys
from pathlib import Path
from typing import NoReturn

from ivy import constants, service
from ivy.utils.functions import procedure_names

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
    module = name.replace("-", "_")
    if name not in service_names():
        print(f"ivy run: no service {name!r}; there are: {', '.join(service_names())}", file=sys.stderr)
        raise SystemExit(2)
    if name == "updater":
        run()
        raise SystemExit(0)
    if name in procedure_names():
        service.run_procedure(importlib.import_module(f"ivy.procedures.{module}").run, name)
    service.run_backend(importlib.import_module(f"ivy.backend.{module}{_BACKEND_SUFFIX}").run, name)
