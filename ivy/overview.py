"""One look at the node: what `ivy status`, `queue` and `doctor`, the metrics and the remote call `status` show.

Collects, and says in words what is not well; changes nothing. Loads no library that a backend does without.
"""

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

from ivy import constants
from ivy.types import accepted_config
from ivy.types.config import BackendConfig, Config, ConfigError, why_unknown
from ivy.types.link_report import LinkReport
from ivy.utils.functions import duration, procedure_names
from ivy.utils.host import busy, clock, hold, mounts, package_manager, rights, units, waiting
from ivy.utils.host.commands import CommandError
from ivy.utils.messaging_agent import ACTIVE_QUEUE_FILE, MessagingAgent
from ivy.utils.storage import aside, bounds, contents, last_sample, resend, set_aside, trouble

LINK_REMEDY = f"sudo ivy config apply {constants.CONFIG_LINK} uses what it says, and makes the link again"
"""What to do about `config_link_trouble`."""

QUEUE_TROUBLE = "the queue cannot be used"
"""What stands in the status of a backend that cannot read or change the queue."""

WITHDRAWN = "who published it has withdrawn it; ivy-fleet(7) says how to leave it"
"""What is said of a version that no node is to run any more."""

OFF = "off by config"
MASKED = "masked by the admin"
HELD = "stopped by the hold"
NOT_WANTED = (OFF, MASKED, HELD)
"""States of services that nobody wants to run."""

_LAST_WORDS = ("Failed: ", "Config error: ")
"""How begins what a service says of its own end, see `ivy.service`."""

_PASS_PATH = units.UPDATER.replace(".service", ".path")
_DONE = "done"
"""The state of a pass that has ended."""

_PREVIOUS = os.path.join(constants.IVY_ROOT_DIR, "previous")
"""Exists while something is on trial."""

_NOT_AT_BOOT = {"disabled": "enable", "masked": "unmask", "masked-runtime": "unmask"}
"""States of the target in which a boot does not start it, and what undoes each."""

_FULL_DISK = 95.0  # per cent
_SECONDS_FOR_THE_QUEUE = 20.0
_PROPERTIES = (
    *("LoadState", "ActiveState", "SubState", "StatusText", "NRestarts", "Result", "InvocationID"),
    *("WatchdogUSec", "NoNewPrivileges", "ProtectSystem", "User", "Group", "SupplementaryGroups"),
)

_Found = TypeVar("_Found")


@dataclass(frozen=True)
class Service:
    """A service that runs while `ivy.target` does, or now and then, as systemd has it."""

    name: str
    state: str
    status: str
    restarts: int
    well: bool
    watched: bool
    confined: bool
    user: str
    groups: Sequence[str]
    """All groups that its unit names, the main one first."""
    invocation: str
    last_sample_seconds: float | None
    """The age of its last sample; None if it took none since the boot."""
    is_procedure: bool
    """Whether it is one that samples."""
    max_silent_seconds: int | None = None
    """For how long it may send nothing; None if nobody has set that."""
    silent_seconds: float | None = None
    """For how long it has sent nothing, if that is longer, and it is to run."""
    busy_seconds: float | None = None
    """For how long more it is not to be disturbed at most; None if it may be."""


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
    spare: int = 0
    """How many of them wait in memory, as the data directory takes no messages."""
    trouble: str | None = None
    """Why it takes none; None if it does."""
    trouble_seconds: float | None = None
    salvaging: int = 0
    """How many damaged queues are being read for what can be queued again."""
    set_aside: int = 0
    """How many other messages the broker does not take, and are tried again now and then."""
    not_yet_durable: int = 0
    """How many messages a power cut may take from the archive, which then gets them again from the queue."""
    resend: dict[str, Any] | None = None
    """What of the archive was asked to be sent again, and how far that is; none of it is counted above."""


@dataclass(frozen=True)
class Link:
    """The connection to the broker, as far as what the backend says can be believed."""

    provider: str
    broker: str
    connected: bool
    since: float | None
    reason: str | None
    last_acknowledged: float | None
    warning: str | None = None
    """What is wrong with a connection that is there."""
    protocol: str | None = None
    """The version of MQTT that is spoken."""
    troubles: Sequence[str] = ()
    """What is not taken although there is a connection, and why."""
    nobody_listens: bool = False
    """Whether the broker has nobody to give messages to."""
    stuck_seconds: float | None = None
    """For how long something waits to be acknowledged although there is a connection, if that is long."""


@dataclass(frozen=True)
class Overview:
    """All of it. None stands for what cannot be told; `problems` say why, and what else is not well."""

    problems: Sequence[str]
    system_identifier: str | None
    config_revision: int | None
    config_digest: str | None
    """What the config is known by without its secrets; see `accepted_config.digest`."""
    units: Sequence[Service]
    queue: Queue | None
    backend: Link | None
    clock_synchronised: bool | None
    disk: mounts.Disk | None
    lost_at_boot: Sequence[str] | None
    update_waits: waiting.Wait | None
    """Whom an update, or the admin, waits for."""
    hold: hold.Hold | None
    """What keeps others from changing or restarting anything, if somebody wants that."""
    version: str = constants.VERSION.as_identifier()

    def as_json(self) -> dict[str, Any]:
        """The form that programs know: keys are only ever added."""
        form = {"schema": constants.JSON_SCHEMA, "well": not self.problems, **asdict(self)}
        form["hold"] = self.hold.as_json() if self.hold else None
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

    if (in_use := part("config", accepted_config.load)) is not None:
        config = config or in_use[0]
        if in_use[1] is not None:
            problems.append(f"config: {in_use[1]}; {accepted_config.IN_USE}")
    if (why := config_link_trouble()) is not None:
        problems.append(f"config: {why}; {LINK_REMEDY}")
    looked = part("services", lambda: look_at_units(patience, config))
    found, troubles = looked or (None, [])
    problems += [f"units: {text}; {remedy}" for text, remedy in troubles]
    held = hold.look()
    overview = Overview(
        problems=problems,
        system_identifier=config.general.system_identifier if config else None,
        config_revision=config.general.config_revision if config else None,
        config_digest=accepted_config.digest(is_accepted=in_use[1] is not None) if in_use else None,
        units=[*(found or []), *(not_to_run(config, held) if found and config else [])],
        queue=part(f"queue: {ACTIVE_QUEUE_FILE}", lambda: queue(agent)),
        backend=link(config.backend, found or []) if config and config.backend else None,
        clock_synchronised=clock.is_synchronised(),
        disk=part("disk", mounts.disk),
        lost_at_boot=part("disk", mounts.lost_places),
        update_waits=waiting.look(),
        hold=held,
    )
    if found == []:
        problems.append(f"services: {units.TARGET} wants none; is ivy installed as a package?")
    problems += _complaints(overview)
    return overview


def _complaints(overview: Overview) -> Iterator[str]:
    if overview.version in package_manager.withdrawn():
        yield f"version {overview.version}: {WITHDRAWN}"
    if (why := hold.trouble()) is not None:
        yield f"hold: {why}; sudo ivy hold --end removes it"
    if (found := trouble.look()) is not None:
        yield f"queue: the data directory takes no messages for {found.seconds:.0f} s: {found.reason}"
    if (found := trouble.look(trouble.ARCHIVE_PATH)) is not None:
        yield f"archive: it takes no messages for {found.seconds:.0f} s: {found.reason}"
    if damaged := _salvaging():
        yield f"queue: {len(damaged)} damaged: what can be read is queued again by {units.name_of('salvage')}"
    for unit in overview.units:
        if unit.name == units.UPDATER and unit.state == _DONE and os.path.lexists(_PREVIOUS):
            yield f"{units.UPDATER}: nobody watches what is on trial: sudo systemctl start {units.UPDATER}"
        if unit.silent_seconds is not None:
            yield f"{unit.name}: {silence(unit)}"
        if unit.well and QUEUE_TROUBLE in unit.status:
            yield f"{unit.name}: {unit.status}"
        # A pass waits for whoever changes the installation; the first minute of that is as it should be.
        if not unit.well or (unit.name == units.UPDATER and unit.status.startswith("waiting for ")):
            yield f"{unit.name}: {unit.state}" + (f", {unit.status}" if unit.status else "")
    backend, disk = overview.backend, overview.disk
    if backend is not None and (why := why_unknown(backend.provider, overview.system_identifier or "")):
        yield f"backend: general.system_identifier: {why}"
    if backend is not None and not backend.connected:
        why = "it has not started yet" if backend.since is None else "it has ended without a word"
        yield f"backend: not connected: {backend.reason or why}"
    if backend is not None and backend.connected and backend.warning:
        yield f"backend: {backend.warning}"
    if backend is not None:
        yield from (f"backend: {trouble}" for trouble in backend.troubles)
    if backend is not None and (seconds := backend.stuck_seconds) is not None:
        yield f"backend: {backend.broker} has not acknowledged what was sent {seconds:.0f} s ago"
    if disk is not None and disk.used_percent > _FULL_DISK:
        yield f"disk: {disk.used_percent:.0f} % full"
    if disk is not None and disk.has_few_files:
        yield f"disk: only {disk.free_files} files more are possible (inodes), see df -i"
    if overview.lost_at_boot:
        yield f"disk: {mounts.LOST}: {', '.join(overview.lost_at_boot)}; {mounts.WAY_OUT}"


def config_link_trouble() -> str | None:
    """Why what an admin writes into the file in /etc has no effect; None if it has one, or there is none.

    Some programs, `sed -i` among them, replace a link by a file.
    """
    link, active = constants.CONFIG_LINK, os.path.join(constants.IVY_ROOT_DIR, "current", "config", "config.json")
    if not os.path.lexists(link) or os.path.realpath(link) == os.path.realpath(active):
        return None
    if os.path.islink(link):
        return f"{link} leads to {os.readlink(link)}, and not to the active config, {active}"
    says = ""
    with contextlib.suppress(OSError), open(link, "rb") as own, open(active, "rb") as used:
        says = " and says the same" if own.read() == used.read() else " and says something else"
    return f"{link} is not the link to the active config any more{says}: what is changed there has no effect"


def services() -> list[Service]:
    """The services of `look_at_units`."""
    return look_at_units()[0]


def look_at_units(
    patience: float = units.PATIENCE, config: Config | None = None
) -> tuple[list[Service], list[tuple[str, str]]]:
    """The services that the target wants, and the procedures that something else starts when it is time.

    Without a config, for how long they may be silent is not known.

    Returns: These; and what is wrong with other units, each with what to do about it.

    Raises:
        CommandError: There is no systemd to ask.
    """
    triggered = _triggered(config)
    wanted, at_boot = units.target(timeout=patience)
    found = units.show_each([*wanted, *triggered], *_PROPERTIES, timeout=patience)
    seen = [
        _service(name, properties, triggered.get(name))
        for name, properties in found.items()
        if name.endswith(".service")
    ]
    troubles = []
    if (undo := _NOT_AT_BOOT.get(at_boot)) is not None:
        text = f"{units.TARGET} is {at_boot}, so that the next boot starts no service"
        troubles.append((text, f"sudo systemctl {undo} {units.TARGET}"))
    if deaf := list(_deaf(found, triggered)):
        text = f"nobody sees what these wait for, as they do not run: {', '.join(deaf)}"
        troubles.append((text, f"sudo systemctl start {units.TARGET} starts them"))
    return [_with_limit(service, config) for service in seen], troubles


def _deaf(found: dict[str, dict[str, str]], triggered: Container[str]) -> Iterator[str]:
    """The package's units that wait for work, and do not run. That of a pass may: its timer starts it."""
    for name, properties in found.items():
        is_ours = f"{name.rpartition('.')[0]}.service" not in triggered and name != _PASS_PATH
        is_at_rest = properties.get("ActiveState") in ("inactive", "failed")
        if name.endswith(units.TRIGGERS) and is_ours and is_at_rest and properties.get("LoadState") == "loaded":
            yield name


def _triggered(config: Config | None) -> dict[str, str]:
    """The units of this release's procedures that have a timer, a path or a socket, and which of these."""
    directory = os.path.join(constants.PROJECT_DIR, "units")
    names = [name for name in procedure_names() if config is None or not config.is_off(name)]
    return {
        units.name_of(name): kind[1:]
        for name in names
        for kind in units.TRIGGERS
        if os.path.lexists(os.path.join(directory, units.name_of(name).replace(".service", kind)))
    }


def _with_limit(service: Service, config: Config | None) -> Service:
    name = units.service_of(service.name)
    most = config.of_procedure(name).max_silent_seconds if config else None
    if most is None or not service.is_procedure:
        return service
    sampling = last_sample.look(name)
    waited = None if service.state == MASKED else sampling.waited
    return replace(
        service,
        last_sample_seconds=_rounded(sampling.age),  # of the same look
        max_silent_seconds=most,
        silent_seconds=_rounded(waited) if waited is not None and waited > most else None,
    )


def silence(service: Service) -> str:
    """That a service is silent, in words."""
    limit = f"procedures.{units.service_of(service.name).replace('-', '_')}.max_silent_seconds"
    seconds = duration(service.silent_seconds or 0.0)
    return f"silent: no data for {seconds}, and {limit} is {service.max_silent_seconds}"


def not_to_run(config: Config, held: hold.Hold | None) -> list[Service]:
    """The procedures that the config has switched off, or a hold has stopped, as services that nobody misses."""
    states = {units.name_of(name): HELD for name in procedure_names() if held is not None and held.stops(name)}
    states |= {units.name_of(name): OFF for name in config.procedures if config.is_off(name)}
    return [replace(_service(unit, {}), state=state, well=True) for unit, state in sorted(states.items())]


def _service(name: str, properties: dict[str, str], trigger: str | None = None) -> Service:
    said = dict.fromkeys(_PROPERTIES, "") | properties
    is_good_pass = name == units.UPDATER and said["Result"] == "success"
    is_masked, is_active = said["LoadState"] == "masked", said["ActiveState"] == "active"
    done_once = is_good_pass and said["ActiveState"] == "inactive"
    is_on_its_way = is_good_pass and said["ActiveState"] in ("activating", "deactivating")
    is_at_rest = trigger is not None and said["ActiveState"] == "inactive" and said["Result"] == "success"
    is_over = said["ActiveState"] in ("inactive", "failed") or said["SubState"].startswith("auto-restart")
    state = f"{said['ActiveState']} ({said['SubState']})"
    is_strict = said["NoNewPrivileges"] == "yes" and said["ProtectSystem"] == "strict"
    return Service(
        name=name,
        state=MASKED if is_masked else _DONE if done_once else f"waits for its {trigger}" if is_at_rest else state,
        # systemd keeps what was said on the way, such as "connected to ...", when a service has ended.
        status="" if is_over and not said["StatusText"].startswith(_LAST_WORDS) else said["StatusText"],
        restarts=int(said["NRestarts"] or 0),
        well=is_active or done_once or is_on_its_way or is_masked or is_at_rest,
        watched=said["WatchdogUSec"] not in ("", "0", "infinity"),
        confined=is_strict and said["User"] not in ("", "root"),
        user=said["User"],
        groups=f"{said['Group']} {said['SupplementaryGroups']}".split(),
        invocation=said["InvocationID"],
        last_sample_seconds=_rounded(last_sample.look(units.service_of(name)).age),
        is_procedure=units.service_of(name) in procedure_names(),
        busy_seconds=(_rounded(busy.seconds_left(units.service_of(name))) or None) if is_active else None,
    )


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)


def queue(agent: MessagingAgent | None = None) -> Queue:
    """Look into the queue; an empty one if there is none yet.

    Raises:
        OSError, sqlite3.Error: It cannot be read, or not in time.
    """
    if agent is not None:
        return _queue_of(agent)
    if not has_queue():
        return Queue(0, waiting=contents.NONE, dropped=contents.NONE)
    # A process of its own can be ended: what waits for another one in SQLite waits for minutes.
    return Queue(**rights.ask(_look_into_queue, seconds=_SECONDS_FOR_THE_QUEUE, always=True))


def has_queue(path: str = ACTIVE_QUEUE_FILE) -> bool:
    """Whether anything was ever queued.

    Raises:
        OSError: It cannot be told, as by somebody who may not look there.
    """
    try:
        os.lstat(path)
    except FileNotFoundError:
        return False
    return True


def _look_into_queue() -> dict[str, Any]:
    agent = MessagingAgent()
    try:
        return asdict(_queue_of(agent))
    finally:
        agent.teardown()


def queue_elsewhere(path: str) -> Queue:
    """Look into a queue that is not this node's, as it was left: what waited in memory is gone.

    Raises:
        OSError, sqlite3.Error: It cannot be read.
    """
    from ivy.utils.storage import elsewhere  # not at the top: no service looks there

    with elsewhere.opened_queue(path) as connection:
        [[page], [count], [unused]] = (
            connection.execute(f"PRAGMA {name}").fetchone()
            for name in ("page_size", "page_count", "freelist_count")
        )
        oldest = contents.oldest_timestamp(connection)
        return Queue(
            length=contents.length(connection),
            waiting=contents.waiting(connection),
            dropped=contents.dropped(connection),
            oldest_timestamp=None if oldest is None else clock.or_epoch(oldest),
            oldest_seconds=None if oldest is None else round(max(0.0, time.time() - clock.or_epoch(oldest))),
            bytes=page * (count - unused),
            file_bytes=page * count,
            salvaging=len(aside.waiting(path)),
            set_aside=set_aside.count(connection),
            not_yet_durable=contents.not_archived(connection),
        )


def _salvaging() -> list[str]:
    try:
        return aside.waiting(ACTIVE_QUEUE_FILE)
    except OSError:  # it is told elsewhere
        return []


def _queue_of(agent: MessagingAgent) -> Queue:
    size = bounds.measure(agent.database)
    oldest = agent.get_oldest_timestamp()
    found = trouble.look()
    return Queue(
        length=agent.get_queue_length(),
        waiting=agent.database.run(contents.waiting),
        dropped=agent.database.run(contents.dropped),
        oldest_timestamp=oldest,
        oldest_seconds=None if oldest is None else round(max(0.0, time.time() - oldest)),
        bytes=size.used,
        file_bytes=size.file,
        spare=agent.get_spare_length(),
        trouble=found.reason if found else None,
        trouble_seconds=found.seconds if found else None,
        salvaging=len(_salvaging()),
        set_aside=agent.database.run(set_aside.count),
        not_yet_durable=agent.database.run(contents.not_archived),
        resend=_resend(),
    )


def _resend() -> dict[str, Any] | None:
    if (request := resend.request()) is None:
        return None
    reached = resend.progress(request)
    return request.model_dump(mode="json", exclude={"token"}) | {"sent": reached.sent, "is_done": reached.is_done}


def link(backend: BackendConfig, found: Sequence[Service]) -> Link:
    """What the backend said last of its connection. If it was killed, it did not say that it has none any more.

    Without `found`, nobody asked how the services are.
    """
    broker = f"{backend.mqtt_connection.host}:{backend.mqtt_connection.port}"
    unit = next((service for service in found if service.name == units.name_of(backend.provider)), None)
    report = LinkReport.load(unit.user if unit else "")
    is_of_this_run = unit is None or (unit.well and report is not None and report.is_of(unit.invocation))
    connected = bool(report and report.connected and report.broker == broker and is_of_this_run)
    return Link(
        provider=backend.provider,
        broker=broker,
        connected=connected,
        since=report.since if report else None,
        reason=report.reason if report else None,
        last_acknowledged=report.last_acknowledged if report else None,
        warning=report.warning if report else None,
        protocol=report.protocol if report and connected else None,
        troubles=report.troubles if report and connected else (),
        nobody_listens=bool(report and connected and report.nobody_listens),
        stuck_seconds=_age(report.stuck_since) if report and connected else None,
    )


def _age(since: float | None) -> float | None:
    """Of what is told in seconds since the boot."""
    return None if since is None else round(max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - since), 1)
