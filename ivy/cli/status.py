"""`ivy status`: whether the node is well, for people and for programs."""

import argparse
import json
import os
import sqlite3
import time
from typing import Any, Optional

from ivy import constants
from ivy.cli.words import duration
from ivy.types.config import Config, ConfigError
from ivy.types.link_report import LinkReport
from ivy.utils.host import mounts, units, vitals
from ivy.utils.host.commands import CommandError
from ivy.utils.messaging_agent import ACTIVE_QUEUE_FILE, MessagingAgent

_FULL_DISK = 95.0  # per cent


def show(arguments: argparse.Namespace) -> int:
    """Print the status; 0 only if all is well."""
    status = collect()
    print(json.dumps(status, indent=4) if arguments.json else _readable(status))
    return 0 if status["well"] else 1


def collect() -> dict[str, Any]:
    """Look at everything. `problems` says in words what is not well."""
    problems: list[str] = []
    config = _config(problems)
    status = {
        "version": constants.VERSION.as_identifier(),
        "system_identifier": config.general.system_identifier if config else None,
        "config_revision": config.general.config_revision if config else None,
        "units": _units(problems),
        "queue": _queue(problems),
        "backend": _backend(config, problems),
        "disk": _disk(problems),
    }
    return {"well": not problems, "problems": problems, **status}


def _config(problems: list[str]) -> Optional[Config]:
    try:
        return Config.load()
    except ConfigError as error:
        problems.append(f"config: {error}")
        return None


def _units(problems: list[str]) -> list[dict[str, Any]]:
    try:
        found = [_unit(name) for name in units.wanted_by_target()]
    except CommandError as error:
        problems.append(f"services: {error}")
        return []
    if not found:
        problems.append(f"services: {units.TARGET} wants none; is ivy installed as a package?")
    for unit in found:
        if not unit.pop("well"):
            problems.append(f"{unit['name']}: {unit['state']}" + (f", {unit['status']}" if unit["status"] else ""))
    return found


def _unit(name: str) -> dict[str, Any]:
    found = units.show(name, "ActiveState", "SubState", "StatusText", "NRestarts", "Result")
    is_pass = name == units.name_of("updater")
    done_once = is_pass and found["ActiveState"] == "inactive" and found["Result"] == "success"
    return {
        "name": name,
        "state": "done" if done_once else f"{found['ActiveState']} ({found['SubState']})",
        "status": "" if done_once else found["StatusText"],  # systemd keeps what was said on the way
        "restarts": int(found["NRestarts"] or 0),
        "well": found["ActiveState"] == "active" or done_once,
    }


def _queue(problems: list[str]) -> dict[str, Any]:
    if not os.path.exists(ACTIVE_QUEUE_FILE):
        return {"length": 0, "oldest_seconds": None}
    try:
        messaging_agent = MessagingAgent()
        oldest, length = messaging_agent.get_oldest_timestamp(), messaging_agent.get_queue_length()
        messaging_agent.teardown()
        age = None if oldest is None else round(max(0.0, time.time() - oldest))
        return {"length": length, "oldest_seconds": age}
    except (OSError, sqlite3.Error) as error:
        problems.append(f"queue: {ACTIVE_QUEUE_FILE}: {error}")
        return {"length": None, "oldest_seconds": None}


def _backend(config: Optional[Config], problems: list[str]) -> Optional[dict[str, Any]]:
    if config is None or config.backend is None:
        return None
    report = LinkReport.load()
    if report is None or not report.connected:
        problems.append(f"backend: not connected: {report.reason if report else 'it has not started yet'}")
    return {
        "provider": config.backend.provider,
        "broker": f"{config.backend.mqtt_connection.host}:{config.backend.mqtt_connection.port}",
        "connected": bool(report and report.connected),
        "since": report.since if report else None,
        "reason": report.reason if report else None,
    }


def _disk(problems: list[str]) -> dict[str, Any]:
    try:
        used, free, lost = vitals.disk_percent(), vitals.disk_free_megabytes(), mounts.lost_places()
    except OSError as error:
        problems.append(f"disk: {error}")
        return {"used_percent": None, "free_megabytes": None}
    if used > _FULL_DISK:
        problems.append(f"disk: {used:.0f} % full")
    if lost:
        problems.append(f"disk: {mounts.LOST}: {', '.join(lost)}; {mounts.WAY_OUT}")
    return {"used_percent": used, "free_megabytes": round(free)}


def _readable(status: dict[str, Any]) -> str:
    queue, backend, disk = status["queue"], status["backend"], status["disk"]
    age = "" if queue["oldest_seconds"] is None else f", the oldest {duration(queue['oldest_seconds'])} old"
    lines = [
        f"ivy {status['version']} on {status['system_identifier']}, config revision {status['config_revision']}",
        *(f"  {unit['name']:<32} {unit['state']:<20} {unit['status']}".rstrip() for unit in status["units"]),
        f"queue:    {queue['length']} messages{age}",
        f"backend:  {_backend_line(backend)}",
        f"disk:     {disk['used_percent']} % used, {disk['free_megabytes']} MB free",
        *(f"PROBLEM:  {problem}" for problem in status["problems"]),
    ]
    return "\n".join([*lines, "all is well"] if status["well"] else lines)


def _backend_line(backend: Optional[dict[str, Any]]) -> str:
    if backend is None:
        return "none is configured: messages are kept here"
    if backend["connected"]:
        return f"{backend['provider']}, connected to {backend['broker']}"
    return f"{backend['provider']}, not connected to {backend['broker']}"
