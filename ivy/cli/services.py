"""`ivy run`, `info`, `start`, `stop`, `restart`, `is-running`, `logs`."""

import argparse
import contextlib
import math
import os
import sys
import time
from typing import NoReturn

from ivy import constants, main
from ivy.cli.main import refuse, refuse_config
from ivy.types import accepted_config
from ivy.types.config import Config, ConfigError
from ivy.utils.host import commands, journal, rights, units
from ivy.utils.mainloop_toggle import MainloopToggle

_SECONDS_FOR_THE_JOURNAL = 60.0
"""It may be large, on a slow card."""

_TIMES = ("--utc", "--output=short-iso")
"""As all that `ivy` prints, so that they can be given to `--since`."""


def run(arguments: argparse.Namespace) -> NoReturn:
    """Run a service in the foreground."""
    if os.geteuid() != 0 and not journal.is_attached():  # by hand, maybe of somebody who may not read the config
        _refuse_strangers()
    if arguments.make_safe:
        main.make_safe(arguments.name)
    main.run_service(arguments.name)


def _refuse_strangers() -> None:
    try:
        accepted_config.load()
    except ConfigError as error:
        if (why := rights.why_not_permitted(error)) is not None:
            refuse(why, 1)


def info(_arguments: argparse.Namespace) -> None:
    """Print version and places."""
    print(f"version:    {constants.VERSION.as_identifier()}")
    print(f"package:    {_package()}")
    print(f"software:   {constants.PROJECT_DIR}")
    print(f"python:     {sys.executable}")
    print(f"config:     {os.path.join(constants.PROJECT_DIR, 'config', 'config.json')}")
    print(f"data:       {constants.IVY_DATA_DIR}")
    print(f"releases:   {constants.IVY_ROOT_DIR}")
    print(f"users:      {_users()}")


def _users() -> str:
    """Which services run as whom."""
    from ivy import overview
    from ivy.utils.host import commands

    try:
        found = overview.services()
    except commands.CommandError:
        return "unknown, as there is no systemd to ask"
    users: dict[str, list[str]] = {}
    for service in found:
        users.setdefault(service.user or "root", []).append(service.name.removesuffix(".service"))
    return (
        "; ".join(f"{user}: {', '.join(names)}" for user, names in sorted(users.items())) or "no service is wanted"
    )


def _package() -> str:
    """The version of the Debian package, with its epoch."""
    with contextlib.suppress(commands.CommandError):
        return commands.run(["dpkg-query", "--show", "--showformat=${Version}", constants.NAME], timeout=10)
    return "none"


def start(_arguments: argparse.Namespace) -> None:
    """Start all services."""
    MainloopToggle.start_mainloop()


def stop(_arguments: argparse.Namespace) -> None:
    """Stop all services."""
    MainloopToggle.stop_mainloop()


def restart(arguments: argparse.Namespace) -> None:
    """Stop and start all services, unless they cannot use the config that they are to start with."""
    try:
        Config.load()
    except ConfigError as error:
        refuse_config(error, "nothing was stopped, as the services cannot use it: ")
    from ivy import overview  # not at the top: `ivy run` is of this module, too
    from ivy.utils.host import hold

    if (held := hold.refusal()) is not None:
        refuse(held, 1)
    if (why := overview.config_link_trouble()) is not None:
        print(f"ivy: {why}; {overview.LINK_REMEDY}", file=sys.stderr)
    if not arguments.now:
        _wait(arguments.wait)
    stop(arguments)
    start(arguments)


def _wait(most_seconds: float | None) -> None:
    """Until all may be disturbed; the command ends where that takes longer than it may."""
    from ivy.utils.host import waiting

    limit = math.inf if most_seconds is None else most_seconds
    began = time.monotonic()

    def look() -> None:
        if time.monotonic() - began >= limit:
            refuse("nothing was restarted: who is not to be disturbed takes longer", constants.EXIT_TRY_AGAIN)

    waiting.wait(
        waiting.everybody(),
        lambda words: print(f"W{words[1:]}; --now does not wait", flush=True),
        look,
        seconds_between_looks=min(waiting.SECONDS_BETWEEN_LOOKS, limit),
    )


def is_running(_arguments: argparse.Namespace) -> int:
    """Say whether the services run."""
    pids = MainloopToggle.get_mainloop_pids()
    print(f"ivy is running with process IDs {', '.join(map(str, pids))}" if pids else "ivy is not running")
    return 0 if pids else 1


def logs(arguments: argparse.Namespace) -> NoReturn:
    """Become `journalctl`, unless nobody knows the service: that would print nothing, and succeed."""
    unit = "ivy-*.service"
    if arguments.name:
        unit = units.name_of(units.service_of(arguments.name))
        if not _is_known(unit):
            names = ", ".join(main.service_names())
            refuse(f"there is no service {arguments.name!r}, nor does the journal know one; there are: {names}")
    options = [] if arguments.lines is None else [f"--lines={arguments.lines}"]
    options += [] if arguments.since is None else [f"--since=@{arguments.since:.0f}"]  # whatever zone it thinks in
    options += ["--follow"] if arguments.follow else []
    os.execvp("journalctl", ["journalctl", f"--unit={unit}", *_TIMES, *options])


def _is_known(unit: str) -> bool:
    """Whether systemd or the journal has a service, maybe one of a former release; also if nobody can tell."""
    if units.service_of(unit) in main.service_names():
        return True
    try:
        if units.show(unit, "LoadState").get("LoadState") != "not-found":
            return True
        look = ["journalctl", "--quiet", "--lines=1", "--output=cat", f"--unit={unit}"]
        return bool(commands.run(look, timeout=_SECONDS_FOR_THE_JOURNAL).strip())
    except commands.CommandError:
        return True
