"""`ivy releases`: what is installed, and what became of the latest offers, that of a Debian package above all."""

import argparse
import contextlib
import datetime
import json
import os
import sys
import time
from typing import Any

from ivy import constants
from ivy.cli import output
from ivy.constants import JSON_SCHEMA
from ivy.types.config import ConfigError, ForeignConfig
from ivy.types.updates import Offer
from ivy.utils.functions import duration
from ivy.utils.host import units
from ivy.utils.updates import history
from ivy.utils.updates.releases import Releases, bundled_version
from ivy.version import Version

_SHOWN_DECISIONS = 10  # to people
_SECONDS_BETWEEN_LOOKS = 1.0


def show(arguments: argparse.Namespace) -> int:
    """Print them; raises PermissionError for who may not read what is in them, and would take it for missing.

    Returns: The exit status: 0; and if that was waited for, 1 if the package's version does not run, or 75 if it is
        not decided.
    """
    if arguments.wait is not None:
        failure, status = _wait(arguments.wait)
        print(output.plain(failure or f"{bundled_version()} runs."), file=sys.stderr if failure else None)
        return status
    past = history.load()
    if (version := Releases().current()) is not None:
        with contextlib.suppress(FileNotFoundError):
            os.close(os.open(Releases().config_file(version), os.O_RDONLY))
    found = {
        "schema": JSON_SCHEMA,
        "releases": _releases(past.last_good),
        "on_trial": past.trial.revision if past.trial else None,
        "package_on_trial": _package(past.trial) if past.trial else None,
        "decisions": [_decision(offer) for offer in past.decisions],
    }
    print(json.dumps(found, indent=4) if arguments.json else _readable(found))
    return 0


def _wait(seconds: float) -> tuple[str | None, int]:
    """Wait for the decision about what is on trial.

    Returns: Why the package's version does not run, or is not decided about; and the exit status.
    """
    deadline = time.monotonic() + seconds
    while (trial := history.load().trial) or Releases().previous() is not None:
        what = trial.what if trial else "what was activated"
        found = units.show_each([units.TARGET, units.UPDATER], "ActiveState", "StatusText")
        if all(unit.get("ActiveState") == "inactive" for unit in found.values()):
            return f"ivy: the {what} is tried when the services run: ivy start", constants.EXIT_TRY_AGAIN
        if time.monotonic() >= deadline:
            updater = found.get(units.UPDATER, {})
            doing = updater.get("StatusText") or "the updater is at work"
            if updater.get("ActiveState") == "inactive":  # somebody has stopped it; systemd keeps what it said last
                doing = f"nobody watches it: sudo systemctl start {units.UPDATER}"
            late = f"after {duration(seconds)} the {what} is not decided about"
            return f"ivy: {late}: {doing}", constants.EXIT_TRY_AGAIN
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    runs, brought = Releases().current(), bundled_version()
    if runs is not None and runs == brought:
        return None, 0
    decided = (offer for offer in reversed(history.load().decisions) if offer.version == brought)
    decision = next(decided, None)
    if decision is not None and not decision.accepted:
        return f"ivy: the {decision.what} was rejected: {decision.reason}", 1
    return f"ivy: {runs} runs, and not the package's {brought}; to change that: ivy update {brought}", 1


def _releases(last_good: ForeignConfig | None) -> list[dict[str, Any]]:
    releases = Releases()
    roles = {
        "runs": releases.current(),
        "before the trial": releases.previous(),
        "for ivy rollback": last_good.general.software_version if last_good else None,
        "the package's": bundled_version(),
    }
    return [
        {
            "version": str(version),
            "config_revision": _revision(releases, version),
            "roles": [role for role, holder in roles.items() if holder == version],
        }
        for version in releases.installed()
    ]


def _revision(releases: Releases, version: Version) -> int | None:
    try:
        return ForeignConfig.load_from_string(releases.read_config(version)).general.config_revision
    except (OSError, ConfigError):
        return None


def _decision(offer: Offer) -> dict[str, Any]:
    return {
        "time": datetime.datetime.fromtimestamp(offer.time, datetime.UTC).isoformat(timespec="seconds"),
        "config_revision": offer.revision,
        "version": str(offer.version),
        "package": _package(offer),
        "accepted": offer.accepted,
        "reason": offer.reason,
    }


def _package(offer: Offer) -> str | None:
    """Of which kind the package is that an offer comes of, if it comes of one."""
    if offer.is_installed:
        return "deb"
    return offer.package.kind if offer.package else None


def _readable(found: dict[str, Any]) -> str:
    lines = [
        f"{release['version']:<16} config revision {release['config_revision']!s:<6} {', '.join(release['roles'])}"
        for release in found["releases"]
    ]
    if found["on_trial"] is not None:
        what = found["package_on_trial"] and f"package ({found['package_on_trial']})"
        lines.append(f"on trial: {what or 'config revision ' + str(found['on_trial'])}")
    for decision in found["decisions"][-_SHOWN_DECISIONS:]:
        outcome = "accepted" if decision["accepted"] else "rejected"
        first, *rest = (f"{outcome}: {decision['reason']}" if decision["reason"] else outcome).splitlines()
        what = (
            f"package ({decision['package']})" if decision["package"] else f"revision {decision['config_revision']}"
        )
        when = decision["time"].replace("+00:00", "Z")  # as in all that people read
        lines.append(f"{when}  {what} for {decision['version']}: {first}")
        lines += [f"    {line}" for line in rest]
    return "\n".join(map(output.line, lines))
