"""`ivy export`: all that makes a node, in one file, taken while it runs."""

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from ivy import constants, files
from ivy.cli import update
from ivy.cli.board import package
from ivy.cli.main import refuse
from ivy.types.config import ForeignConfig
from ivy.types.updates import History
from ivy.utils.host import rights
from ivy.utils.messaging_agent import (
    ACTIVE_QUEUE_FILE,
    LAST_MESSAGE_NOTE,
    MESSAGE_ARCHIVE_DIR,
    MESSAGE_ARCHIVE_DIR_LOCK,
)
from ivy.utils.state_interface import STATE_FILE
from ivy.utils.storage import archive, compressed, moving
from ivy.utils.storage.turns import Turns
from ivy.utils.storage.written_order import ORDER_FILE
from ivy.utils.updates import history, source
from ivy.utils.updates.releases import Releases

ETC = source.ALLOWED_SIGNERS.parent
"""Where the admin's files are."""

_SECONDS = 3600.0  # a long queue on a slow card
_COPY = os.path.join(constants.IVY_DATA_DIR, ".export.sqlite3")
_LARGEST = 1_000_000
_FOR_ALL = 0o644


def run(arguments: argparse.Namespace) -> int:
    """Write the file."""
    update.require_admin()
    with output(arguments.file) as file:
        days = _write(file, with_secrets=arguments.secrets)
    hint = "" if arguments.secrets else ", without secrets: the next board must have them, or export with --secrets"
    print(f"Exported with {days} days of the archive{hint}", file=sys.stderr)
    return 0


def describe(text: str, version: str) -> package.Board:
    """What is said of a board with a config of this text."""
    name = None
    with contextlib.suppress(ValueError):
        name = ForeignConfig.load_from_string(text).system_identifier
    return package.Board(
        identifier=os.urandom(16).hex(),
        system_identifier=name if isinstance(name, str) else None,
        version=version,
    )


def kept_history(known: History, *, with_secrets: bool) -> bytes:
    """What another board should know: not what is on trial here, nor what this one could go back to."""
    decisions = known.decisions if with_secrets else [each.without_content() for each in known.decisions]
    changed = {"trial": None, "last_good": None, "decisions": decisions}
    if not with_secrets:
        changed["former_connections"] = []
    return known.model_copy(update=changed).model_dump_json(by_alias=True, indent=4).encode()


def files_of_admin(text: str, etc: Path) -> Iterator[tuple[str, bytes, int]]:
    """Name, content and mode of what a config names in /etc/ivy, and of the list of who may sign."""
    wanted = {source.ALLOWED_SIGNERS.name}
    with contextlib.suppress(ValueError, RecursionError):
        wanted |= {Path(each).name for each in _texts(json.loads(text)) if Path(each).parent == ETC}
    for name in sorted(wanted):
        with contextlib.suppress(OSError):
            yield name, files.read(str(etc / name), _LARGEST), (etc / name).lstat().st_mode & _FOR_ALL


def _texts(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, dict | list):
        for each in content.values() if isinstance(content, dict) else content:
            yield from _texts(each)


@contextlib.contextmanager
def output(name: str) -> Generator[BinaryIO, None, None]:
    """For root only. Nobody finds half of it under its name."""
    if name == "-":
        stream = getattr(sys.stdout, "stream", sys.stdout)
        if stream.isatty():
            refuse("a terminal can do nothing with it; name a file")
        yield stream.buffer
        stream.buffer.flush()
        return
    path = Path(name)
    if os.path.lexists(path):
        refuse(f"{path} exists already")
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.rename(path)
        files.sync(path.parent)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def _write(file: BinaryIO, *, with_secrets: bool) -> int:
    """Returns how many days of the archive there are."""
    releases = Releases()
    text = releases.active_text() if with_secrets else releases.shown_text()
    writer = package.Writer(file, describe(text, f"{releases.current()}"))
    writer.add_text(package.CONFIG, text.encode())
    writer.add_text(package.HISTORY, kept_history(history.load(), with_secrets=with_secrets))
    for name, content, mode in files_of_admin(text, ETC):
        if with_secrets or mode & 0o004:
            writer.add_text(f"{package.ETC}/{name}", content, mode)
    try:
        sizes = rights.ask(_take, seconds=_SECONDS)
        for name, path in ((package.STATE, STATE_FILE), (package.ORDER, ORDER_FILE), (package.QUEUE, _COPY)):
            _add(writer, name, path)
    finally:
        with files.as_owner_of(constants.IVY_DATA_DIR):
            files.remove(_COPY)
    days = archive.days(MESSAGE_ARCHIVE_DIR)
    for day in days:
        _add_day(writer, archive.file_of(MESSAGE_ARCHIVE_DIR, day), sizes)
    writer.close()
    return len(days)


def _take() -> dict[str, int]:
    turns = Turns(MESSAGE_ARCHIVE_DIR_LOCK, LAST_MESSAGE_NOTE)
    with contextlib.closing(turns):
        return moving.take(ACTIVE_QUEUE_FILE, MESSAGE_ARCHIVE_DIR, turns, _COPY)


def _add_day(writer: package.Writer, path: str, sizes: dict[str, int]) -> None:
    """Add what there was of a day when the queue was taken."""
    with contextlib.ExitStack() as stack:
        # In this order, as whoever reads a day: if it is compressed meanwhile, one of both has it.
        plain, packed = _open(path), _open(path + compressed.SUFFIX)
        for each, suffix in ((packed, compressed.SUFFIX), (plain, "")):
            if each is None:
                continue
            stack.enter_context(each)
            name = os.path.basename(path) + suffix
            size = os.fstat(each.fileno()).st_size
            if suffix or name in sizes:
                writer.add(f"{package.DAYS}/{name}", each, size if suffix else min(size, sizes[name]))


def _add(writer: package.Writer, name: str, path: str) -> None:
    if (file := _open(path)) is not None:
        with file:
            writer.add(name, file, os.fstat(file.fileno()).st_size)


def _open(path: str) -> BinaryIO | None:
    """A file of the data, opened as their owner: he could have put a link there."""
    try:
        with files.as_owner_of(constants.IVY_DATA_DIR):
            return os.fdopen(files.open_regular(path), "rb")
    except FileNotFoundError:
        return None
