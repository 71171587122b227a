"""What the node knows of itself as `ivy.prom`, for the textfile collector of Prometheus's node-exporter."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ivy import constants, files, overview
from ivy.utils.logger import Logger
from ivy.utils.messaging_agent import MessagingAgent
from ivy.utils.updates import last_decision

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

    def __init__(self, directory: str, logger: Logger, messaging_agent: MessagingAgent) -> None:
        self._path = Path(directory, NAME)
        self._journal = logger.without_messages()
        self._agent = messaging_agent
        self._trouble = ""

    def write(self) -> None:
        """Replace the file in one step. Never raises: trouble is logged once, and what is not known is left out."""
        # The config as it is on disk: one that changes nothing for this procedure does not start it again.
        text = render(list(_metrics(overview.look(agent=self._agent))))
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
    yield from _silence(
        [unit for unit in found.units if unit.is_procedure and unit.state not in overview.NOT_WANTED]
    )
    wells = [({"unit": unit.name}, float(unit.well)) for unit in found.units]
    yield Metric("ivy_unit_well", "gauge", "Whether a service runs, or is not to.", wells)
    yield _gauge("ivy_problems", "Problems that ivy status tells of.", len(found.problems))
    left = [({"unit": unit.name}, unit.busy_seconds or 0) for unit in found.units]
    yield Metric("ivy_unit_busy_seconds", "gauge", "For how long more a procedure is not to be disturbed.", left)
    waits = found.update_waits
    yield _gauge(
        "ivy_update_waits",
        "How many procedures an update or reboot waits for.",
        len(waits.procedures) if waits else 0,
    )
    yield _gauge(
        "ivy_hold_seconds",
        "For how long more somebody keeps others from changing or restarting anything.",
        found.hold.seconds_left() if found.hold else 0,
    )
    if (link := found.backend) is not None:
        yield _gauge("ivy_backend_connected", "Whether there is a connection to the broker.", link.connected)
        yield _gauge(
            "ivy_backend_nobody_listens",
            "Whether the broker has nobody to give messages to.",
            link.nobody_listens,
        )
        yield _gauge(
            "ivy_backend_stuck_seconds",
            "For how long something waits to be acknowledged although there is a connection, if that is long.",
            link.stuck_seconds or 0,
        )
        yield _gauge("ivy_backend_troubles", "How many things the broker does not take.", len(link.troubles))
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
    free_files = found.disk.free_files if found.disk else None
    yield _gauge("ivy_disk_free_files", "Files (inodes) that are possible on the disk of the data.", free_files)
    lost = None if found.lost_at_boot is None else bool(found.lost_at_boot)
    yield _gauge("ivy_disk_lost_at_boot", "Whether what is stored is lost at the next boot.", lost)
    yield from _past()


def _silence(procedures: Sequence[overview.Service]) -> Iterator[Metric]:
    limits = [({"unit": unit.name}, limit) for unit in procedures if (limit := unit.max_silent_seconds) is not None]
    yield Metric("ivy_procedure_max_silent_seconds", "gauge", "For how long a procedure may send nothing.", limits)
    silent = [({"unit": unit.name}, float(unit.silent_seconds is not None)) for unit in procedures]
    yield Metric("ivy_procedure_silent", "gauge", "Whether a procedure has sent nothing for longer.", silent)


def _past() -> Iterator[Metric]:
    accepted, at = last_decision.look() or (None, None)
    yield _gauge("ivy_update_accepted", "Whether the last offer was accepted.", accepted)
    yield _gauge("ivy_update_decided_timestamp_seconds", "When it was decided about, as Unix time.", at)
    reboots = [({"reason": reason}, count) for reason, count in _reboots().items()]
    yield Metric("ivy_reboots_total", "counter", "Reboots by ivy-node, and what for.", reboots)


def _reboots() -> dict[str, int]:
    """None where ivy-node is not installed."""
    if not os.path.isdir(constants.MACHINE_DIR):
        return {}
    try:
        made = files.read(os.path.join(constants.MACHINE_DIR, "all-reboots")).decode(errors="replace").split()
    except OSError:
        made = []
    return {reason: made.count(reason) for reason in ("link", "check")}


def _queue(queue: overview.Queue) -> Iterator[Metric]:
    yield _gauge("ivy_queue_messages", "Messages that wait to be sent.", queue.length)
    yield _gauge("ivy_queue_bytes", "Bytes of the queue on the disk that are in use.", queue.bytes)
    yield _gauge("ivy_queue_set_aside", "Other messages, which the broker does not take.", queue.set_aside)
    age = queue.oldest_seconds or 0
    yield _gauge("ivy_queue_oldest_age_seconds", "Age of the message that has waited longest.", age)
    yield _gauge("ivy_queue_spare_messages", "Messages that wait in memory, as the disk takes none.", queue.spare)
    yield _gauge(
        "ivy_queue_trouble_seconds", "For how long the disk takes no messages.", queue.trouble_seconds or 0
    )
    yield _gauge("ivy_queue_salvaging", "Damaged queues that are being read.", queue.salvaging)
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
