"""`ivy forget-node`: for a card that was cloned from a used one. What made that node is gone; the software stays.

What lets it in at a platform goes first, certificate and key before the config that names them, so that whatever is
left after a power cut is sent nowhere under the old name. Each step may be done twice.
"""

import argparse
import contextlib
import os
import sqlite3
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ivy import constants, files, overview, update_pass
from ivy.cli import update
from ivy.cli.first_boot import host_name
from ivy.cli.main import refuse
from ivy.types.config import ForeignConfig
from ivy.utils.host import commands, rights, units
from ivy.utils.mainloop_toggle import MainloopToggle
from ivy.utils.messaging_agent import MESSAGE_ARCHIVE_DIR
from ivy.utils.storage import archive
from ivy.utils.updates import bundled
from ivy.utils.updates.releases import Releases

_SECONDS = 600.0
_NOTES = ("updates.json*", "registration.json", "announced", "hold.json", "card-noted", ".env")
_OF_A_CONFIG = ("config.accepted.json", "config.previous.json", "config.json.damaged*", "secrets*.json", ".env")
_IN_MEMORY = ("", "-backend", "-answers", "-ends", "-restarted", "-samples", "-busy")
_UNITS = ("ivy-first-config.service", "ivy-provision.service", "ivy-salvage.service", "ivy-lost.service")
_HOST_KEYS = "etc/ssh/ssh_host_*_key*"
_UNNAMED = host_name.BY_DEFAULT[0]


def run(arguments: argparse.Namespace) -> int:
    """Ask, and forget."""
    update.require_admin()
    releases = Releases()
    name = releases.active_config().system_identifier or os.uname().nodename
    _warn(name)
    if not arguments.yes:
        if not sys.stdin.isatty():
            refuse("nothing was forgotten: nobody is at the terminal to confirm it; if you are sure: --yes")
        if input(f"To forget all of it, type the name of this node ({name}): ").strip() != name:
            refuse("nothing was forgotten: that is another name", 1)
    with update.alone():
        update.TalkingUpdater(update_pass.running_config()).trials.resume("this node is to be forgotten")
        for unit in _UNITS:
            with contextlib.suppress(commands.CommandError):  # not on every node
                units.control("stop", unit)
        try:
            MainloopToggle.stop_mainloop()
            forget(releases)
            if arguments.machine:
                forget_machine()
        finally:  # whoever asked may be gone with the network, and nothing else starts them before the next boot
            MainloopToggle.start_mainloop()
    print("This node is as one that was just installed. To connect it: ivy setup, or ivy.json on its card.")
    if arguments.machine:
        print("It has another number, name and SSH keys from the next boot on: reboot it, and only then clone it.")
    return 0


def forget(releases: Releases) -> None:
    """Let a node, whose services are stopped, be as newly installed. May be done twice.

    Args:
        releases: Stay, all of them, without their configs.

    Raises:
        OSError: Something cannot be removed; do it again.
    """
    for path in (constants.PROVISION_FILE, *_keys_of_this_node(releases)):
        files.remove(str(path))
    os.sync()
    _forget_configs(releases)
    for pattern in _NOTES:
        for path in releases.root.glob(pattern):
            files.remove(str(path))
    os.sync()  # the config is another one: what is left now can be removed in any order
    in_memory = (f"{constants.IVY_RUN_DIR}{suffix}" for suffix in _IN_MEMORY)  # as after a boot
    for directory in (constants.IVY_DATA_DIR, constants.BACKEND_DIR, *in_memory, constants.MACHINE_DIR):
        if os.path.isdir(directory):
            rights.ask(partial(_empty, directory), directory, _SECONDS)
    os.sync()


def forget_machine(root: Path = Path("/")) -> None:
    """Let the next boot make another machine of it: its number, its host's name, its SSH keys. May be done twice.

    Args:
        root: Below which all of these are.

    Raises:
        OSError: Something cannot be written or removed; do it again.
    """
    host_name.choose(_UNNAMED, root)
    for path in root.glob(_HOST_KEYS):
        files.remove(str(path))
    files.write_atomically(root / "etc/machine-id", "", mode=0o444)
    os.sync()


def _warn(name: str) -> None:
    try:
        waiting = f"{overview.queue().length} messages wait to be sent, and are lost"
    except (OSError, sqlite3.Error) as error:
        waiting = f"what waits to be sent is lost, and nobody can tell how much that is ({error})"
    days = len(archive.days(MESSAGE_ARCHIVE_DIR))
    print(f"{name}: {waiting}; so is the archive, of {days} days. To keep both: ivy export FILE", flush=True)


def _keys_of_this_node(releases: Releases) -> Iterator[Path]:
    """What its config names in /etc/ivy as its own: certificate and key. The authority's are the operator's."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        config = ForeignConfig.load_from_string(releases.active_text())
        tls = config.section("backend").get("mqtt_connection", {}).get("tls") or {}
        for field in ("certificate_file", "key_file"):
            path = Path(tls.get(field) or "/")
            if path.parent == Path(constants.CONFIG_LINK).parent:
                yield path


def _forget_configs(releases: Releases) -> None:
    current = releases.current()
    for version in releases.installed():
        config = releases.config_file(version)
        if version == current:
            releases.write_config(version, bundled.new_config(releases.directory(version), version))
        else:
            files.remove(str(config))
        for pattern in _OF_A_CONFIG:
            for path in config.parent.glob(pattern):
                files.remove(str(path))
        files.sync(config.parent)
    releases.keep_accepted(is_new=True)
    link = Path(constants.CONFIG_LINK)
    if link.parent.is_dir() and not link.is_symlink():
        update.make_link()


def _empty(directory: str) -> None:
    for name in os.listdir(directory):
        files.remove(os.path.join(directory, name))
