"""The lifecycle of a procedure or backend: a handle on its systemd unit, which does the work."""

import inspect
import multiprocessing.synchronize
from collections.abc import Callable
from typing import Literal, Union

from ivy.types.config import Config
from ivy.utils.host import units
from ivy.utils.logger import Logger

_PARAMETERS = {"procedure": 2, "backend": 3}


class LifecycleManager:
    """Starts, checks and stops the unit of one procedure or backend.

    Signals, time limits and restarts stand in the unit: a procedure gets SIGTERM, and SIGKILL after
    `constants.SECONDS_PER_GRACEFUL_PROCEDURE_TEARDOWN`; a backend's teardown indicator is set, and it gets SIGKILL
    after `config.backend.max_drain_time + 120` seconds. Where systemd refuses, or is not there, each
    method raises `CommandError`.
    """

    def __init__(
        self,
        config: Config,
        entrypoint: Union[
            Callable[[Config, Logger], None],
            Callable[[Config, Logger, multiprocessing.synchronize.Event], None],
        ],
        procedure_name: str,
        variant: Literal["procedure", "backend"],
    ) -> None:
        """Starts nothing. Of the config, only the logging verbosity is used.

        Raises:
            ValueError: The entrypoint does not have the signature of that variant.
        """
        parameters = len(inspect.signature(entrypoint).parameters)
        if parameters != _PARAMETERS[variant]:
            raise ValueError(
                f"the entrypoint of a {variant} takes {_PARAMETERS[variant]} arguments, not {parameters}"
            )
        self._unit = units.name_of(procedure_name)
        self._name = procedure_name
        self._logger = Logger(config, "lifecycle")

    def procedure_is_running(self) -> bool:
        """Whether it was started and not stopped since; it may be dead all the same, waiting for its restart."""
        state = units.show(self._unit, "ActiveState")["ActiveState"]
        return state in ("active", "activating", "reloading", "refreshing")

    def start_procedure(self) -> None:
        """Start it.

        Raises:
            RuntimeError: It runs already.
        """
        if self.procedure_is_running():
            raise RuntimeError(f"{self._unit} is running already")
        units.control("start", self._unit)

    def check_procedure_status(self) -> None:
        """Log an error if it died. systemd restarts it by itself.

        Raises:
            RuntimeError: It was never started.
        """
        found = units.show(self._unit, "ActiveState", "SubState", "Result")
        if found["ActiveState"] == "inactive":
            raise RuntimeError(f"{self._unit} has not been started")
        if found["ActiveState"] == "failed" or found["SubState"].startswith("auto-restart"):
            self._logger.error(f"{self._name} died unexpectedly: {found['Result']}")

    def teardown(self) -> None:
        """Stop it, and wait until it has ended."""
        units.control("stop", self._unit)
