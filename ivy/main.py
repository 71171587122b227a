"""Finds and runs the services of this release. What supervises them is systemd."""

import importlib
import sys
from pathlib import Path
from typing import NoReturn

from ivy import constants
from ivy.types.messages import ConfigMessageBody
from ivy.utils import service
from ivy.utils.functions import procedure_names
from ivy.utils.logger import Logger
from ivy.utils.messaging_agent import MessagingAgent

_BACKEND_SUFFIX = "_backend"


def run() -> None:
    """Do what is to be done once at each start: tell the operator which config runs.

    Procedures and backends are services of their own, started and restarted by systemd.

    Raises:
        SystemExit: With status 78, the config being unusable.
        sqlite3.Error: The message could not be queued.
    """
    config = service.load_config("updater")
    logger = Logger(config, "updater")
    logger.info(f"Starting with config revision {config.general.config_revision}")
    messaging_agent = MessagingAgent()
    messaging_agent.add_message(ConfigMessageBody(status="startup", config=config.to_foreign_config()))
    messaging_agent.teardown()


def service_names() -> list[str]:
    """The services that `run_service` can run: `dummy-procedure`, `tenta` and so on, sorted."""
    modules = Path(constants.PROJECT_DIR, "ivy", "backend").glob(f"*{_BACKEND_SUFFIX}.py")
    backends = [module.stem.removesuffix(_BACKEND_SUFFIX).replace("_", "-") for module in modules]
    return sorted([*procedure_names(), *backends, "updater"])


def run_service(name: str) -> NoReturn:
    """Run a service in the foreground, until a signal ends it.

    Args:
        name: One of `service_names()`.

    Raises:
        SystemExit: Always: with 2 if there is no such service; else see `ivy.utils.service` for the statuses.
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
