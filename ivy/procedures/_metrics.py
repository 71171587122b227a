"""What the node knows of itself as `ivy.prom`, for the textfile collector of Prometheus's node-exporter."""

import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Optional

from ivy import constants, files
from ivy.procedures._prometheus import Metric, render, single
from ivy.types.config import Config
from ivy.types.link_report import LinkReport
from ivy.utils.host import clock, mounts, units
from ivy.utils.host.commands import CommandError
from ivy.utils.logger import Logger
from ivy.utils.messaging_agent import MessagingAgent
from ivy.utils.storage import ballast, bounds, contents

NAME = "ivy.prom"

_Blocks = Mapping[str, Mapping[str, str]]


class MetricsFile:
    """The file in the directory of the config."""

    def __init__(self, config: Config, directory: str, logger: Logger, messaging_agent: MessagingAgent) -> None:
        """Write nothing yet.

        Args:
            config: The node's.
            directory: Where the file is to be; the service must be allowed to write there.
            logger: Where to log.
            messaging_agent: An open queue.
        """
        self._config = config
        self._path = Path(directory, NAME)
        self._journal = logger.without_messages()
        self._agent = messaging_agent
        self._trouble = ""

    def write(self) -> None:
        """Replace the file in one step. Never raises: trouble is logged once, and what is not known is left out."""
        try:
            text = render(self._collect())
            files.write_atomically(self._path, text, mode=0o644, durable=False)
            trouble = ""
        except (OSError, sqlite3.Error) as error:
            trouble = f"{self._path} could not be written: {error}"
            if trouble != self._trouble:
                self._journal.warning(trouble)
        self._trouble = trouble

    def _collect(self) -> list[Metric]:
        try:
            blocks = units.show_each(units.wanted_by_target(), "NRestarts", "ActiveState", "InvocationID")
        except CommandError:  # no systemd to ask
            blocks = {}
        return [self._info(), *self._queue(), _restarts(blocks), *self._link(blocks), *_machine()]

    def _info(self) -> Metric:
        general = self._config.general
        return single(
            "ivy_info",
            "gauge",
            "Version, config revision and name of the node.",
            1,
            version=constants.VERSION.as_identifier(),
            config_revision=str(general.config_revision),
            system_identifier=general.system_identifier,
        )

    def _queue(self) -> list[Metric]:
        oldest = self._agent.get_oldest_timestamp()
        age = 0.0 if oldest is None else max(0.0, time.time() - oldest)
        counts = self._agent.database.run(contents.dropped)
        dropped = [({"kind": kind}, count) for kind, count in counts.items()]
        length, size = self._agent.get_queue_length(), bounds.measure(self._agent.database).used
        return [
            single("ivy_queue_messages", "gauge", "Messages that wait to be sent.", length),
            single("ivy_queue_bytes", "gauge", "Bytes of the queue on the disk that are in use.", size),
            single("ivy_queue_oldest_age_seconds", "gauge", "Age of the message that has waited longest.", age),
            Metric("ivy_dropped_messages_total", "counter", "Messages dropped from the full queue.", dropped),
        ]

    def _link(self, blocks: _Blocks) -> list[Metric]:
        backend = self._config.backend
        if backend is None:
            return []
        report = LinkReport.load()
        acknowledged = report.last_acknowledged if report else None
        connected = _is_believable(report, blocks.get(units.name_of(backend.provider), {}))
        return [
            single(
                "ivy_backend_connected", "gauge", "Whether there is a connection to the broker.", int(connected)
            ),
            Metric(
                "ivy_backend_last_acknowledged_timestamp_seconds",
                "gauge",
                "When the broker last acknowledged messages, as Unix time.",
                [] if acknowledged is None else [({}, acknowledged)],
            ),
        ]


def _is_believable(report: Optional[LinkReport], backend: Mapping[str, str]) -> bool:
    """Whether there is a connection: a backend that was killed did not say that it has none any more."""
    if report is None or not report.connected:
        return False
    if not backend:  # nobody to ask
        return True
    return backend["ActiveState"] == "active" and report.invocation in ("", backend["InvocationID"])


def _restarts(blocks: _Blocks) -> Metric:
    samples = [
        ({"unit": name}, int(block["NRestarts"])) for name, block in blocks.items() if block.get("NRestarts")
    ]
    return Metric("ivy_unit_restarts_total", "counter", "Restarts of a service by systemd.", samples)


def _machine() -> list[Metric]:
    synchronised = clock.is_synchronised()
    free = ballast.free_bytes(constants.IVY_DATA_DIR)
    return [
        Metric(
            "ivy_clock_synchronised",
            "gauge",
            "Whether the clock was set by someone who knows the time.",
            [] if synchronised is None else [({}, int(synchronised))],
        ),
        single("ivy_disk_free_bytes", "gauge", "Bytes that are free on the disk of the data.", free),
        single(
            "ivy_disk_lost_at_boot",
            "gauge",
            "Whether what is stored is lost at the next boot.",
            int(bool(mounts.lost_places())),
        ),
    ]
