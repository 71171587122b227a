"""Finds and runs the services of this release. What supervises them is systemd."""

import importlib
import importlib.util
import pkgutil
from typing import NoReturn

import ivy.backend
import ivy.procedures
from ivy.types.messages import ConfigMessageBody
from ivy.utils import service
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
    procedures = [module.name for module in pkgutil.iter_modules(ivy.procedures.__path__)]
    backends = [
        module.name.removesuffix(_BACKEND_SUFFIX)
        for module in pkgutil.iter_modules(ivy.backend.__path__)
        if module.name.endswith(_BACKEND_SUFFIX)
    ]
    return sorted(name.replace("_", "-") for name in [*procedures, *backends, "updater"])


def run_service(name: str) -> NoReturn:
    """Run a service in the foreground, until a signal ends it.

    Args:
        name: One of `service_names()`.

    Raises:
        SystemExit: Always; see `ivy.utils.service` for the statuses.
        LookupError: There is no such service.
    """
    module = name.replace("-", "_")
    if name not in service_names():
        raise LookupError(f"there is no service {name!r}; there are: {', '.join(service_names())}")
    if name == "updater":
        run()
        raise SystemExit(0)
    if importlib.util.find_spec(f"ivy.procedures.{module}"):
        service.run_procedure(importlib.import_module(f"ivy.procedures.{module}").run, name)
    service.run_backend(importlib.import_module(f"ivy.backend.{module}{_BACKEND_SUFFIX}").run, name)
