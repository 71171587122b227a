"""Starts and stops all of ivy: `ivy.target` and the services that it wants."""

import os
from pathlib import Path

from ivy import constants
from ivy.utils.host import units

SCRIPT_PATH: str = os.path.join(constants.PROJECT_DIR, "ivy", "__main__.py")
"""The program that the units run."""

CONTROL_GROUPS = "/sys/fs/cgroup"
"""Where the kernel lists the processes of each unit."""


class MainloopToggle:
    """Starts and stops all of ivy. Each method raises `CommandError` where systemd refuses or is not there."""

    @staticmethod
    def get_mainloop_pids() -> list[int]:
        """The process IDs of all running services of ivy, sorted; none if it does not run."""
        pids = set[int]()
        for found in units.show_each(units.wanted_by_target(), "ControlGroup").values():
            if group := found.get("ControlGroup", ""):
                pids |= _pids_in(Path(CONTROL_GROUPS + group))
        return sorted(pids)

    @staticmethod
    def start_mainloop() -> None:
        """Start what the current release and config want, and print the process IDs."""
        try:
            units.reload()
        except units.NoRoomError as error:  # what systemd knows from before is better than nothing
            print(f"Going on without a reload: {error}")
        units.control("start", units.TARGET)
        print(f"Started ivy, process IDs {_listed(MainloopToggle.get_mainloop_pids())}")

    @staticmethod
    def stop_mainloop() -> None:
        """Stop everything, and print the process IDs of what was stopped."""
        pids = MainloopToggle.get_mainloop_pids()
        found = units.show_each(units.wanted_by_target(), "PartOf")
        units.control("stop", units.TARGET)
        for unit, properties in found.items():  # the target is stopped before they are, and does not wait for them
            if units.TARGET in properties.get("PartOf", "").split():
                units.control("stop", unit)
        print(f"Stopped ivy, process IDs {_listed(pids)}" if pids else "ivy was not running")


def _pids_in(group: Path) -> set[int]:
    try:
        return {int(line) for line in (group / "cgroup.procs").read_text().split()}
    except OSError:  # it ended meanwhile
        return set()


def _listed(pids: list[int]) -> str:
    return ", ".join(map(str, pids)) or "none yet"
