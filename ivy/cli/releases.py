"""`ivy releases`: what is installed, and what became of the latest offers."""

import argparse
import datetime
import json
from typing import Any

from ivy.types.config import ConfigError, ForeignConfig
from ivy.types.updates import Offer
from ivy.utils.updates import history
from ivy.utils.updates.releases import BUNDLED, Releases, version_of
from ivy.version import Version

_SHOWN_DECISIONS = 10


def show(arguments: argparse.Namespace) -> None:
    """Print them."""
    past = history.load()
    found = {
        "releases": _releases(past.last_good),
        "on_trial": past.trial.revision if past.trial else None,
        "decisions": [_decision(offer) for offer in past.decisions[-_SHOWN_DECISIONS:]],
    }
    print(json.dumps(found, indent=4) if arguments.json else _readable(found))


def _releases(last_good: ForeignConfig | None) -> list[dict[str, Any]]:
    releases = Releases()
    roles = {
        "runs": releases.current(),
        "before the trial": releases.previous(),
        "for ivy rollback": last_good.general.software_version if last_good else None,
        "the package's": version_of(BUNDLED) if BUNDLED.is_dir() else None,
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
        "accepted": offer.accepted,
        "reason": offer.reason,
    }


def _readable(found: dict[str, Any]) -> str:
    lines = [
        f"{release['version']:<16} config revision {release['config_revision']!s:<6} {', '.join(release['roles'])}"
        for release in found["releases"]
    ]
    if found["on_trial"] is not None:
        lines.append(f"on trial: config revision {found['on_trial']}")
    for decision in found["decisions"]:
        outcome = "accepted" if decision["accepted"] else f"rejected: {decision['reason'].partition(chr(10))[0]}"
        lines.append(
            f"{decision['time']}  revision {decision['config_revision']} for {decision['version']}: {outcome}"
        )
    return "\n".join(lines)
