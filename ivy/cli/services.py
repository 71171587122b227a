"""`ivy run`, `info`, `start`, `stop`, `restart`, `is-running`, `logs`."""

import argparse
import contextlib
import os
import sys
from typing import NoReturn

from ivy import constants, main
from ivy.cli.main import refuse
from ivy.types.config import Config, ConfigError
from ivy.utils.host import commands, units
from ivy.utils.mainloop_toggle import MainloopToggle


def run(arguments: argparse.Namespace) -> NoReturn:
    """Run a service in the foreground."""
    main.run_service(arguments.name)


def info(_arguments: argparse.Namespace) -> None:
    """Print version and places."""
    print(f"version:    {constants.VERSION.as_identifier()}")
    print(f"package:    {_package()}")
    print(f"software:   {constants.PROJECT_DIR}")
    print(f"python:     {sys.executable}")
    print(f"config:     {os.path.join(constants.PROJECT_DIR, 'config', 'config.json')}")
    print(f"data:       {constants.IVY_DATA_DIR}")
    print(f"releases:   {constants.IVY_ROOT_DIR}")


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
    """Stop and start all services, unless that would end in none: with a config that they cannot use."""
    try:
        Config.load()
    except ConfigError as error:
        refuse(f"nothing was stopped, as nothing could be started again: {error}", constants.EXIT_CONFIG_ERROR)
    stop(arguments)
    start(arguments)


def is_running(_arguments: argparse.Namespace) -> int:
    """Say whether the services run."""
    pids = MainloopToggle.get_mainloop_pids()
    print(f"ivy is running with process IDs {', '.join(map(str, pids))}" if pids else "ivy is not running")
    return 0 if pids else 1


def logs(arguments: argparse.Namespace) -> NoReturn:
    """Become `journalctl`."""
    unit = units.name_of(arguments.name) if arguments.name else "ivy-*.service"
    following = ["--follow"] if arguments.follow else []
    os.execvp("journalctl", ["journalctl", f"--unit={unit}", *following])
