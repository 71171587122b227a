#!/usr/bin/python
"""The module ivy.fleet.soak: looks at a node for a while, and says whether it is well all the time."""

from __future__ import annotations

DOCUMENTATION = r"""
module: soak
short_description: Watch an ivy node for a while
description:
  - Looks at C(ivy status) all the time. Fails when a service starts again, when a procedure that has sent data in
    this time stops doing so, or when the node is not well for longer than I(patience).
  - What was not well before is left out, by the service or part of the node that it is about.
  - After a boot, which a power cut may bring, it begins again.
options:
  seconds:
    description:
      - For how long, and then until the node is well. 0 only tells what is not well, and fails for nothing.
    type: int
    default: 300
  patience:
    description: For how many seconds the node may be not well, as when the link is away for a moment.
    type: int
    default: 60
  tolerated:
    description: What was not well before, as C(not_well) of an earlier call tells it.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    support: full
    description: Changes nothing anyway; looks once.
  diff_mode:
    support: none
    description: There is nothing to show.
author:
  - ivy contributors (@ivy)
"""

EXAMPLES = r"""
- name: Let it run for a while
  ivy.fleet.soak:
    seconds: 300
"""

RETURN = r"""
not_well:
  description: The services and parts of the node that are not well.
  type: list
  elements: str
  returned: always
"""

import json
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ivy.fleet.plugins.module_utils.node import run_ivy

BOOT = "/proc/sys/kernel/random/boot_id"
SECONDS_BETWEEN_LOOKS = 2.0
GAPS_OF_SILENCE = 3
"""So many times as long as between two samples before, and `SECONDS_OF_SILENCE`, a procedure may send nothing."""

SECONDS_OF_SILENCE = 20.0
PASS = "ivy-updater.service"  # it starts whenever there is something to do


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "seconds": {"type": "int", "default": 300},
            "patience": {"type": "int", "default": 60},
            "tolerated": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    seconds = 0 if module.check_mode else module.params["seconds"]
    watch = Watch(module.params["patience"], set(module.params["tolerated"]))
    boot, began = boot_id(), time.monotonic()
    while True:
        found, now = status(module), time.monotonic()
        if boot_id() != boot:
            watch, boot, began = Watch(watch.patience, watch.tolerated), boot_id(), now
        why = watch.look(found, now)
        if why is not None or (watch.is_well and now - began >= seconds):
            break
        time.sleep(SECONDS_BETWEEN_LOOKS)
    not_well = sorted({part_of(problem) for problem in found["problems"]})
    if why is not None and seconds > 0:
        module.fail_json(msg=f"after {now - began:.0f} s: {why}", not_well=not_well)
    module.exit_json(changed=False, not_well=not_well)


class Watch:
    """What was seen since it began."""

    def __init__(self, patience: float, tolerated: set[str]) -> None:
        self.patience, self.tolerated = patience, tolerated
        self._lives: dict[str, Any] = {}
        self._not_well_since: float | None = None
        self._samples: dict[str, Rhythm] = {}

    @property
    def is_well(self) -> bool:
        """By the last look."""
        return self._not_well_since is None

    def look(self, found: dict[str, Any], now: float) -> str | None:
        """Take in one more status. Returns why the node is not well; None if it is, or may be so soon."""
        units = [unit for unit in found["units"] if unit["name"] not in self.tolerated and unit["name"] != PASS]
        for unit in units:
            if not unit["state"].startswith("active "):  # on its way, as after a boot; or a problem
                continue
            life = unit["restarts"], unit["invocation"]
            if self._lives.setdefault(unit["name"], life) != life:
                return f"{unit['name']} has started again: {unit['state']} {unit['status']}".strip()
        for unit in units:
            if (why := self._samples.setdefault(unit["name"], Rhythm()).look(unit, now)) is not None:
                return why
        problems = [problem for problem in found["problems"] if part_of(problem) not in self.tolerated]
        if not problems:
            self._not_well_since = None
        elif self._not_well_since is None:
            self._not_well_since = now
        since = self._not_well_since
        return "; ".join(problems) if since is not None and now - since > self.patience else None


class Rhythm:
    """When a procedure took its samples, as far as that was seen."""

    def __init__(self) -> None:
        self._last: float | None = None
        self._longest_gap: float | None = None

    def look(self, unit: dict[str, Any], now: float) -> str | None:
        """Take in one more status of it. Returns that it is silent; None if that is not known."""
        age = unit["last_sample_seconds"]
        if age is None or unit["busy_seconds"]:
            return None
        taken = now - age
        if self._last is None:
            self._last = taken
        elif taken > self._last + 0.5:  # ages are rounded
            self._longest_gap = max(self._longest_gap or 0.0, taken - self._last)
            self._last = taken
        if self._longest_gap is None or age <= GAPS_OF_SILENCE * self._longest_gap + SECONDS_OF_SILENCE:
            return None
        return f"{unit['name']} has sent nothing for {age:.0f} s"


def part_of(problem: str) -> str:
    """What a problem is about: a unit, or `backend`, `disk` …"""
    return problem.partition(":")[0]


def boot_id() -> str:
    """Another one after each boot."""
    with open(BOOT, encoding="ascii") as file:
        return file.read().strip()


def status(module: AnsibleModule) -> dict[str, Any]:
    """What `ivy status --json` says."""
    _status, said, complained = run_ivy(module, "status", "--json")
    try:
        found: dict[str, Any] = json.loads(said)
    except ValueError:
        module.fail_json(msg=f"ivy status: {(complained or said).strip()}")
    for unit in found["units"]:  # of a version before
        unit.setdefault("last_sample_seconds", None)
        unit.setdefault("busy_seconds", None)
        unit.setdefault("invocation", "")
    return found


if __name__ == "__main__":
    main()
