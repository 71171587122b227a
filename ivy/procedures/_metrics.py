"""What the node knows of itself as `ivy.prom`, for the textfile collector of Prometheus's node-exporter."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ivy import files, overview
from ivy.types.config import Config
from ivy.utils.logger import Logger
from ivy.utils.messaging_agent import MessagingAgent

NAME = "ivy.prom"


@dataclass(frozen=True)
class Metric:
    """A metric with its samples, each with other labels."""

    name: str
    kind: Literal["gauge", "counter"]
    help: str
    samples: Sequence[tuple[Mapping[str, str], float]]


class MetricsFile:
    """The file in the directory of the config."""

    def __init__(self, config: Config, directory: str, logger: Logger, messaging_agent: MessagingAgent) -> None:
        self._config = config
        self._path = Path(directory, NAME)
        self._journal = logger.without_messages()
        self._agent = messaging_agent
        self._trouble = ""

    def write(self) -> None:
        """Replace the file in one step. Never raises: trouble is logged once, and what is not known is left out."""
        text = render(list(_metrics(overview.look(self._config, self._agent))))
        trouble = ""
        try:
            files.write_atomically(self._path, text, mode=0o644, durable=False)
        except OSError as error:
            trouble = f"{self._path} could not be written: {error}"
        if trouble and trouble != self._trouble:
            self._journal.warning(trouble)
        self._trouble = trouble


def _metrics(found: overview.Overview) -> Iterator[Metric]:
    labels = {
        "version": found.version,
        "config_revision": str(found.config_revision),
        "system_identifier": str(found.system_identifier),
    }
    yield Metric("ivy_info", "gauge", "Version, config revision and name of the node.", [(labels, 1)])
    if found.queue is not None:
        yield from _queue(found.queue)
    restarts = [({"unit": unit.name}, unit.restarts) for unit in found.units]
    yield Metric("ivy_unit_restarts_total", "counter", "Restarts of a service by systemd.", restarts)
    ages = [({"unit": unit.name}, age) for unit in found.units if (age := unit.last_sample_seconds) is not None]
    yield Metric(
        "ivy_last_sample_timestamp_seconds",
        "gauge",
        "When a procedure last sampled, as Unix time.",
        [(labels, time.time() - age) for labels, age in ages],
    )
    if (link := found.backend) is not None:
        yield _gauge("ivy_backend_connected", "Whether there is a connection to the broker.", link.connected)
        yield _gauge(
            "ivy_backend_last_acknowledged_timestamp_seconds",
            "When the broker last acknowledged messages, as Unix time.",
            link.last_acknowledged,
        )
    yield _gauge(
        "ivy_clock_synchronised",
        "Whether the clock was set by someone who knows the time.",
        found.clock_synchronised,
    )
    free = found.disk.free_bytes if found.disk else None
    yield _gauge("ivy_disk_free_bytes", "Bytes that are free on the disk of the data.", free)
    lost = None if found.lost_at_boot is None else bool(found.lost_at_boot)
    yield _gauge("ivy_disk_lost_at_boot", "Whether what is stored is lost at the next boot.", lost)


def _queue(queue: overview.Queue) -> Iterator[Metric]:
    yield _gauge("ivy_queue_messages", "Messages that wait to be sent.", queue.length)
    yield _gauge("ivy_queue_bytes", "Bytes of the queue on the disk that are in use.", queue.bytes)
    age = queue.oldest_seconds or 0
    yield _gauge("ivy_queue_oldest_age_seconds", "Age of the message that has waited longest.", age)
    dropped = [({"kind": kind}, count) for kind, count in queue.dropped.items()]
    yield Metric("ivy_dropped_messages_total", "counter", "Messages dropped from the full queue.", dropped)


def _gauge(name: str, help: str, value: float | None) -> Metric:
    """A metric with one sample; none if that is not known."""
    return Metric(name, "gauge", help, [] if value is None else [({}, value + 0)])  # a number, not True


def render(metrics: Sequence[Metric]) -> str:
    """The text for metrics, in the format of Prometheus; those without samples are left out."""
    lines: list[str] = []
    for metric in metrics:
        if metric.samples:
            lines.append(f"# HELP {metric.name} {metric.help}")
            lines.append(f"# TYPE {metric.name} {metric.kind}")
            lines += [f"{metric.name}{_labels(labels)} {value!r}" for labels, value in metric.samples]
    return "\n".join([*lines, ""])


def _labels(labels: Mapping[str, str]) -> str:
    quoted = [f'{name}="{_escape(value)}"' for name, value in labels.items()]
    return "{" + ",".join(quoted) + "}" if quoted else ""


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
