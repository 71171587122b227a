"""`ivy import`: lets a new board be a node that was on another one, and keeps what the new one has sampled since.

Before anything is changed all of it is read and checked. Then the services stop. Archive and history come first,
then the config, and the queue last, in one transaction: killed at any instant and begun again, nothing is lost, and
nothing is there twice.
"""

import argparse
import contextlib
import os
import shutil
import sys
from collections.abc import Generator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import pydantic

from ivy import constants, files
from ivy.cli import update
from ivy.cli.board import card, leave, package
from ivy.cli.main import refuse
from ivy.types.config import Config, ConfigError, ForeignConfig, as_text
from ivy.types.messages import LogMessageBody
from ivy.types.secrets import UnknownSecretError
from ivy.types.state import State
from ivy.types.updates import History
from ivy.utils.host import rights
from ivy.utils.mainloop_toggle import MainloopToggle
from ivy.utils.messaging_agent import (
    ACTIVE_QUEUE_FILE,
    LAST_MESSAGE_NOTE,
    MESSAGE_ARCHIVE_DIR,
    MESSAGE_ARCHIVE_DIR_LOCK,
    MessagingAgent,
)
from ivy.utils.state_interface import StateInterface
from ivy.utils.storage import aside, moving, written_order
from ivy.utils.storage.turns import Turns
from ivy.utils.updates import history
from ivy.utils.updates.releases import Releases

_UNPACKED = ".import.new"  # what a power cut leaves of it goes with all that is unfinished
_SECONDS = 3600.0
_FOR_ALL, _FOR_ROOT = 0o644, 0o600


@dataclass(frozen=True)
class _Came:
    """What came of queue and archive."""

    days: int
    messages: int | None
    """None if they had come before."""


def run(arguments: argparse.Namespace) -> int:
    """Import from a file, or from a card."""
    if (arguments.file is None) == (arguments.card is None):
        refuse("name a FILE that ivy export has made (- reads standard input), or --from DIRECTORY, a card")
    update.require_admin()
    with contextlib.ExitStack() as afterwards, update.alone(), _directory() as directory:
        try:
            arrived = _read(arguments, directory)
            config = _checked(arrived, is_sure=arguments.yes)
        except package.PackageError as error:
            refuse(f"nothing was changed: {arguments.file or arguments.card}: {error}", 1)
        # Not before others may change what runs again: a pass of the updater waits for that, and its start for it.
        afterwards.callback(MainloopToggle.start_mainloop)
        MainloopToggle.stop_mainloop()
        came = _take_over(arrived, config)
    queued = "what was queued had come before" if came.messages is None else f"{came.messages} messages that wait"
    if arrived.has_damaged_queue:
        queued = "a damaged queue, of which what can be read is queued again in the background"
    print(f"Imported {arrived.board.system_identifier}: {came.days} days of the archive, {queued}")
    if config is None:
        print("There was no config: this node keeps its own.")
    print("Whether all is well: ivy status. The other board must not run any more under this name.")
    return 0


@contextlib.contextmanager
def _directory() -> Generator[Path, None, None]:
    directory = Path(constants.IVY_ROOT_DIR, _UNPACKED)
    if os.path.lexists(directory):
        files.remove(str(directory))
    directory.mkdir(mode=0o700)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _read(arguments: argparse.Namespace, directory: Path) -> package.Contents:
    if arguments.card is not None:
        return card.read(arguments.card, directory)
    with _input(arguments.file) as file:
        return package.read(file, directory)


@contextlib.contextmanager
def _input(name: str) -> Generator[BinaryIO, None, None]:
    if name == "-":
        yield sys.stdin.buffer
        return
    with open(name, "rb") as file:
        yield file


def _checked(arrived: package.Contents, *, is_sure: bool) -> ForeignConfig | None:
    """The config as it will run here; None where there is none.

    Raises:
        PackageError: What arrived cannot be used on this board.
    """
    releases = Releases()
    if history.load().trial is not None:
        raise package.PackageError("a change of this node is on trial; see ivy releases, and try again")
    for text, model in ((package.STATE, State), (package.HISTORY, History)):
        try:
            model.model_validate_json(arrived.texts.get(text, b"{}"))
        except pydantic.ValidationError:
            print(f"ivy: {text} is damaged and left out", file=sys.stderr)
            del arrived.texts[text]
    own = releases.active_config()
    name, present = arrived.board.system_identifier, own.system_identifier
    if own.section("backend") and name != present and not is_sure:
        raise package.PackageError(
            f"it is of {name}, and this node is {present}: what waits here would be sent as {name}; if so, --yes"
        )
    if package.CONFIG not in arrived.texts:
        return None
    try:
        config = ForeignConfig.load_from_string(arrived.texts[package.CONFIG].decode("utf-8", "replace"))
        config, _ = releases.fill(config.for_version(own.general.software_version))
        if own.general.software_version == constants.VERSION:
            Config.load_from_string(as_text(config))
    except UnknownSecretError as error:
        raise package.PackageError(
            f"it has no secrets, and nor has this node: {error}. Export with --secrets, or run ivy setup here first"
        ) from None
    except ConfigError as error:
        raise package.PackageError(
            f"its config, of version {arrived.board.version}, does not fit {own.general.software_version}: {error}"
        ) from None
    return config


def _take_over(arrived: package.Contents, config: ForeignConfig | None) -> _Came:
    _hand_over(arrived.directory)
    state, order = arrived.texts.get(package.STATE), arrived.texts.get(package.ORDER)
    came = rights.ask(partial(_take_archive, arrived, state, order), seconds=_SECONDS)
    _write_files(arrived)
    _write_history(arrived, config)
    key = f"imported {arrived.board.identifier}"
    messages = rights.ask(partial(_take_queue, arrived, key), seconds=_SECONDS)
    return _Came(days=int(came), messages=None if messages is None else int(messages))


def _hand_over(directory: Path) -> None:
    """Give what was unpacked to the owner of the data, who puts it there."""
    owner = os.stat(constants.IVY_DATA_DIR)
    for path in (*directory.rglob("*"), directory):
        path.chmod(0o700 if path.is_dir() else 0o660)
        if os.geteuid() == 0:
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def _take_archive(arrived: package.Contents, state: bytes | None, order: bytes | None) -> int:
    days = moving.put_days_before(str(arrived.days), MESSAGE_ARCHIVE_DIR)
    written_order.put_before(MESSAGE_ARCHIVE_DIR, days, order)
    if state is not None:
        with StateInterface.update() as own:
            own.procedures = {**own.procedures, **State.model_validate_json(state).procedures}
    return len(days)


def _write_files(arrived: package.Contents) -> None:
    """The admin's files that this board has not; those that it has are its own."""
    for name, content in arrived.texts.items():
        path = leave.ETC / name.removeprefix(f"{package.ETC}/")
        if not name.startswith(f"{package.ETC}/"):
            continue
        if not os.path.lexists(path):
            files.write_atomically(path, content, mode=_FOR_ROOT if name in arrived.private else _FOR_ALL)
        elif files.read(str(path)) != content:
            print(f"{path} is this board's own, and stays as it is")


def _write_history(arrived: package.Contents, config: ForeignConfig | None) -> None:
    """What was decided on the other board, and its config, which was accepted there."""
    releases = Releases()
    before = releases.active_config()
    with history.update() as own:
        if package.HISTORY in arrived.texts:
            other = History.model_validate_json(arrived.texts[package.HISTORY])
            known = {each.identifier for each in own.decisions}
            own.decisions = [*(each for each in other.decisions if each.identifier not in known), *own.decisions][
                -50:
            ]
            own.accepted_revision, own.old_revision = other.accepted_revision, other.old_revision
            own.former_connections, own.connected_since = other.former_connections, other.connected_since
        if config is not None and config != before:
            own.last_good = before
    if config is not None:
        version = config.general.software_version
        releases.write_config(version, as_text(config))
        releases.keep_accepted(is_new=True)


def _take_queue(arrived: package.Contents, key: str) -> int | None:
    if not os.path.exists(arrived.queue):
        return 0
    agent = MessagingAgent()
    turns = Turns(MESSAGE_ARCHIVE_DIR_LOCK, LAST_MESSAGE_NOTE)
    try:
        if arrived.has_damaged_queue:
            aside.bring(str(arrived.queue), ACTIVE_QUEUE_FILE)  # salvaged as if it had been this board's
            return 0
        count = moving.put_before(agent.database, turns, str(arrived.queue), key)
        agent.store.open()  # gives the archive what that lacks
        subject = f"import - WARNING - This board has taken over {arrived.board.system_identifier} from another one"
        body = f"{count} messages waited there, and come now" if count else ""
        agent.add_once(f"told {key}", [LogMessageBody(level="WARNING", subject=subject, body=body)])
        return count
    finally:
        turns.close()
        agent.teardown()
