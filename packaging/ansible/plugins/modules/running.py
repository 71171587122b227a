#!/usr/bin/python
"""The module ivy.fleet.running: lets ivy's services run, and what they need be theirs."""

from __future__ import annotations

DOCUMENTATION = r"""
module: running
short_description: Let the services of an ivy node run
description:
  - Enables and starts C(ivy.target), and what it wants and somebody has stopped. What is masked, switched off by
    the config or has failed is left to itself, and so is a node that somebody holds.
  - Gives the files of releases back to root, and those of the data directory to the services.
options:
  root:
    description: Where the releases are.
    type: path
    default: /var/lib/ivy
attributes:
  check_mode:
    support: full
    description: Says what would be done.
  diff_mode:
    support: none
    description: There is nothing to show.
author:
  - ivy contributors (@ivy)
"""

EXAMPLES = r"""
- name: See that it runs
  ivy.fleet.running:
"""

RETURN = r"""
done:
  description: What was not as it should be, and what was done about it.
  type: list
  elements: str
  returned: always
"""

import grp
import os
import pwd
import stat
from collections.abc import Iterator
from typing import Any

from ansible.module_utils.basic import AnsibleModule

TARGET = "ivy.target"
HOLD = "hold.json"
"""In the directory of the releases, while somebody holds the node."""

FOR_OTHERS = stat.S_IWGRP | stat.S_IWOTH
MOST_NAMED = 3


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={"root": {"type": "path", "default": "/var/lib/ivy"}}, supports_check_mode=True
    )
    root = module.params["root"]
    done = [*give_back(module, root), *start(module, root)]
    module.exit_json(changed=bool(done), done=done)


def start(module: AnsibleModule, root: str) -> Iterator[str]:
    """Enable and start what is not."""
    if os.path.lexists(os.path.join(root, HOLD)):
        return
    if module.run_command(["systemctl", "is-enabled", "--quiet", TARGET])[0] != 0:
        yield f"{TARGET} was not enabled"
        act(module, "systemctl", "enable", "--quiet", TARGET)
    if stopped := list(stopped_units(module)):
        yield f"{some(stopped)} did not run"
        act(module, "systemctl", "start", *stopped)


def stopped_units(module: AnsibleModule) -> Iterator[str]:
    """The target and what it wants, as far as it is to run and somebody has stopped it."""
    wanted = shown(module, TARGET, "Wants")[0].get("Wants", "").split()
    for unit in shown(module, TARGET, *wanted, "Id,LoadState,ActiveState,Restart"):
        ends_by_itself = unit.get("Restart", "always") != "always"  # as a pass of the updater; timers have none
        if unit.get("LoadState") == "loaded" and unit.get("ActiveState") == "inactive" and not ends_by_itself:
            yield unit["Id"]


def shown(module: AnsibleModule, *units_and_properties: str) -> list[dict[str, str]]:
    """The properties of units; their names are the last argument."""
    *names, properties = units_and_properties
    status, said, complained = module.run_command(["systemctl", "show", f"--property={properties}", "--", *names])
    if status != 0:
        module.fail_json(msg=f"systemctl show: {complained.strip()}")
    blocks = str(said).strip().split("\n\n")
    return [dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in blocks]


def give_back(module: AnsibleModule, root: str) -> Iterator[str]:
    """Let releases be root's, and data the services'."""
    strange = list(strange_files(os.path.realpath(os.path.join(root, "current"))))
    if strange:
        yield f"{some(strange)} was not only root's"
        for path in [] if module.check_mode else strange:
            make_roots(path)
    rules = os.path.join(root, "current", "units", "ivy.tmpfiles")
    locked = list(locked_files(root)) if os.path.exists(rules) else []
    if locked:
        yield f"{some(locked)} was not for the services to write"
        act(module, "systemd-tmpfiles", "--create", rules)


def strange_files(release: str) -> Iterator[str]:
    """What of a release somebody else than root may change."""
    for path, status in all_in(release):
        is_open = bool(status.st_mode & FOR_OTHERS) and not stat.S_ISLNK(status.st_mode)
        if status.st_uid != 0 or is_open:
            yield path


def make_roots(path: str) -> None:
    """Of a link, the link itself."""
    os.lchown(path, 0, -1)
    if not os.path.islink(path):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            os.fchmod(descriptor, stat.S_IMODE(os.fstat(descriptor).st_mode) & ~FOR_OTHERS)
        finally:
            os.close(descriptor)


def locked_files(root: str) -> Iterator[str]:
    """What procedures and backends could not write."""
    try:
        group, backend = grp.getgrnam("ivy").gr_gid, pwd.getpwnam("ivy-backend").pw_uid
    except KeyError:  # a version without such users
        return
    for path, status in all_in(os.path.join(root, "data")):
        is_closed = stat.S_ISDIR(status.st_mode) and not status.st_mode & stat.S_IWGRP
        if (status.st_gid != group or is_closed) and os.path.basename(path) != "lost+found":
            yield path
    for path, status in all_in(os.path.join(root, "backend")):
        if status.st_uid != backend:
            yield path


def all_in(directory: str) -> Iterator[tuple[str, os.stat_result]]:
    """A directory and all that is in it, without following links; nothing where it does not exist."""
    try:
        yield directory, os.lstat(directory)
    except FileNotFoundError:
        return
    for parent, directories, files in os.walk(directory):
        for path in (os.path.join(parent, name) for name in [*directories, *files]):
            try:
                yield path, os.lstat(path)
            except FileNotFoundError:  # a file that was renamed meanwhile
                continue


def some(names: list[str]) -> str:
    """The first of them, and how many more there are."""
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def act(module: AnsibleModule, *command: Any) -> None:
    """Run a command, but not in check mode; fails the module where that fails."""
    if module.check_mode:
        return
    status, said, complained = module.run_command(list(command))
    if status != 0:
        module.fail_json(msg=f"{' '.join(command)}: {(complained or said).strip()}")


if __name__ == "__main__":
    main()
