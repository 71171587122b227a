"""One look at the node: what `ivy status`, `queue` and `doctor`, the metrics and the remote call `status` show.

Collects, and says in words what is not well; changes nothing. Loads no library that a backend does without.
"""

import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from ivy import constants
from ivy.types.config import BackendConfig, Config, ConfigError
from ivy.types.link_report import LinkReport
from ivy.utils.host import clock, mounts, units
from ivy.utils.host.commands import CommandError
from ivy.utils.messaging_agent import ACTIVE_QUEUE_FILE, LAST_SAMPLE, MessagingAgent
from ivy.utils.storage import bounds, contents

PASS = units.name_of("updater")
"""The only service that may be done."""

_FULL_DISK = 95.0  # per cent
_PROPERTIES = (
    *("ActiveState", "SubState", "StatusText", "NRestarts", "Result", "InvocationID"),
    *("WatchdogUSec", "NoNewPrivileges", "ProtectSystem", "User"),
)

_Found = TypeVar("_Found")


@dataclass(frozen=True)
class Service:
    """A service that `ivy.target` wants, as systemd has it."""

    name: str
    state: str
    status: str
    restarts: int
    well: bool
    watched: bool
    confined: bool
    invocation: str
    last_sample_seconds: float | None
    """The age of its last sample; None if it took none since the boot."""


@dataclass(frozen=True)
class Queue:
    """What waits to be sent and what was dropped, by kind; if it is long, `length` and data are at most so many."""

    length: int
    waiting: dict[str, int]
    dropped: dict[str, int]
    oldest_timestamp: float | None = None
    oldest_seconds: int | None = None
    bytes: int = 0
    file_bytes: int = 0


@dataclass(frozen=True)
class Link:
    """The connection to the broker, as far as what the backend says can be believed."""

    provider: str
    broker: str
    connected: bool
    since: float | None
    reason: str | None
    last_acknowledged: float | None


@dataclass(frozen=True)
class Overview:
    """All of it. None stands for what cannot be told; `problems` say why, and what else is not well."""

    problems: Sequence[str]
    system_identifier: str | None
    config_revision: int | None
    units: Sequence[Service]
    queue: Queue | None
    backend: Link | None
    clock_synchronised: bool | None
    disk: mounts.Disk | None
    lost_at_boot: Sequence[str] | None
    version: str = constants.VERSION.as_identifier()

    def as_json(self) -> dict[str, Any]:
        """The form that programs know: keys are only ever added."""
        form = {"well": not self.problems, **asdict(self)}
        form["queue"] = form["queue"] or {"length": None, "oldest_seconds": None}
        form["disk"] = form["disk"] or {"used_percent": None, "free_megabytes": None}
        return form


def look(
    config: Config | None = None, agent: MessagingAgent | None = None, patience: float = units.PATIENCE
) -> Overview:
    """Collect all. What cannot be read is a problem of the node, and no error.

    Args:
        config: That of the service that asks; that of the release if None.
        agent: An open queue; opened for this if None.
        patience: Seconds that systemd may take for each of two answers.
    """
    problems: list[str] = []

    def part(name: str, collect: Callable[[], _Found]) -> _Found | None:
        try:
            return collect()
        except (ConfigError, CommandError, OSError, sqlite3.Error) as error:
            problems.append(f"{name}: {error}")
            return None

    config = config or part("config", Config.load)
    found = part("services", lambda: services(patience))
    overview = Overview(
        problems=problems,
        system_identifier=config.general.system_identifier if config else None,
        config_revision=config.general.config_revision if config else None,
        units=found or [],
        queue=part(f"queue: {ACTIVE_QUEUE_FILE}", lambda: queue(agent)),
        backend=link(config.backend, found or []) if config and config.backend else None,
        clock_synchronised=clock.is_synchronised(),
        disk=part("disk", mounts.disk),
        lost_at_boot=part("disk", mounts.lost_places),
    )
    if found == []:
        problems.append(f"services: {units.TARGET} wants none; is ivy installed as a package?")
    problems += _complaints(overview)
    return overview


def _complaints(overview: Overview) -> Iterator[str]:
    for unit in overview.units:
        if not unit.well:
            yield f"{unit.name}: {unit.state}" + (f", {unit.status}" if unit.status else "")
    backend, disk = overview.backend, overview.disk
    if backend is not None and not backend.connected:
        why = "it has not started yet" if backend.since is None else "it has ended without a word"
        yield f"backend: not connected: {backend.reason or why}"
    if disk is not None and disk.used_percent > _FULL_DISK:
        yield f"disk: {disk.used_percent:.0f} % full"
    if overview.lost_at_boot:
        yield f"disk: {mounts.LOST}: {', '.join(overview.lost_at_boot)}; {mounts.WAY_OUT}"


def services(patience: float = units.PATIENCE) -> list[Service]:
    """The services that the target wants.

    Raises:
        CommandError: There is no systemd to ask.
    """
    found = units.show_each(units.wanted_by_target(timeout=patience), *_PROPERTIES, timeout=patience)
    return [_service(name, properties) for name, properties in found.items()]


def _service(name: str, properties: dict[str, str]) -> Service:
    said = dict.fromkeys(_PROPERTIES, "") | properties
    is_good_pass = name == PASS and said["Result"] == "success"
    done_once = is_good_pass and said["ActiveState"] == "inactive"
    is_on_its_way = is_good_pass and said["ActiveState"] in ("activating", "deactivating")
    is_strict = said["NoNewPrivileges"] == "yes" and said["ProtectSystem"] == "strict"
    return Service(
        name=name,
        state="done" if done_once else f"{said['ActiveState']} ({said['SubState']})",
        status="" if done_once else said["StatusText"],  # systemd keeps what was said on the way
        restarts=int(said["NRestarts"] or 0),
        well=said["ActiveState"] == "active" or done_once or is_on_its_way,
        watched=said["WatchdogUSec"] not in ("", "0", "infinity"),
        confined=is_strict and said["User"] not in ("", "root"),
        invocation=said["InvocationID"],
        last_sample_seconds=_age_of_last_sample(name.removeprefix("ivy-").removesuffix(".service")),
    )


def _age_of_last_sample(procedure: str) -> float | None:
    try:
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - os.stat(LAST_SAMPLE + procedure).st_mtime
    except OSError:
        return None
    return round(age, 1) if age >= 0 else None  # else of an earlier boot, where there is no /run/ivy


def queue(agent: MessagingAgent | None = None) -> Queue:
    """Look into the queue; an empty one if there is none yet.

    Raises:
        OSError, sqlite3.Error: It cannot be read.
    """
    if agent is None and not os.path.exists(ACTIVE_QUEUE_FILE):
        return Queue(0, waiting=contents.NONE, dropped=contents.NONE)
    open_agent = agent or MessagingAgent()
    try:
        size = bounds.measure(open_agent.database)
        oldest = open_agent.get_oldest_timestamp()
        return Queue(
            length=open_agent.get_queue_length(),
            waiting=open_agent.database.run(contents.waiting),
            dropped=open_agent.database.run(contents.dropped),
            oldest_timestamp=oldest,
            oldest_seconds=None if oldest is None else round(max(0.0, time.time() - oldest)),
            bytes=size.used,
            file_bytes=size.file,
        )
    finally:
        if agent is None:
            open_agent.teardown()


def link(backend: BackendConfig, found: Sequence[Service]) -> Link:
    """What the backend said last of its connection. If it was killed, it did not say that it has none any more.

    Without `found`, nobody asked how the services are.
    """
    report = LinkReport.load()
    broker = f"{backend.mqtt_connection.host}:{backend.mqtt_connection.port}"
    unit = next((service for service in found if service.name == units.name_of(backend.provider)), None)
    is_of_this_run = unit is None or (unit.well and report and report.invocation in ("", unit.invocation))
    return Link(
        provider=backend.provider,
        broker=broker,
        connected=bool(report and report.connected and report.broker == broker and is_of_this_run),
        since=report.since if report else None,
        reason=report.reason if report else None,
        last_acknowledged=report.last_acknowledged if report else None,
    )
