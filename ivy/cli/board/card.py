"""A dead board's card as what `arrive` imports. Nothing is written there, no link followed that leads away."""

import contextlib
import hashlib
import os
import shutil
import sqlite3
from pathlib import Path

from ivy import files
from ivy.cli.board import leave, package
from ivy.types.updates import History
from ivy.utils.storage import archive, compressed, elsewhere, schema
from ivy.utils.updates.releases import Releases

_PIECE = 1 << 16
_STATE, _ORDER, _HISTORY = "state.json", "archive-order.json", "updates.json"


def read(root: str, directory: Path) -> package.Contents:
    """Copy what there is of a node.

    Args:
        root: Of the card, or a directory of a node's data.
        directory: Exists and is empty.

    Raises:
        PackageError: It cannot be used.
        OSError: There is nothing, it cannot be read, or not be copied.
    """
    data = elsewhere.find(root)
    releases = Releases(Path(data.directory).parent)
    text, version = "", "an unknown one"
    if (current := releases.current()) is not None and _is_within(releases.config_file(current), Path(root)):
        text, version = releases.active_text(), f"{current}"
    # The same each time: what was imported from this card before is known again.
    board = leave.describe(text, version).model_copy(update={"identifier": _known_by(data.queue)})
    arrived = package.Contents(board, directory)
    arrived.days.mkdir(mode=0o700, parents=True)
    if text:
        arrived.texts[package.CONFIG] = text.encode()
    for name, path in (
        (package.STATE, Path(data.directory, _STATE)),
        (package.ORDER, Path(data.directory, _ORDER)),
    ):
        _take_text(arrived, name, path)
    _take_text(arrived, package.HISTORY, releases.root / _HISTORY)
    with contextlib.suppress(LookupError, ValueError):
        known = History.model_validate_json(arrived.texts[package.HISTORY])
        arrived.texts[package.HISTORY] = leave.kept_history(known, with_secrets=True)
    etc = Path(os.path.realpath(root), *leave.ETC.parts[1:])
    if _is_within(etc, Path(root)):
        for name, content, mode in leave.files_of_admin(text, etc):
            arrived.texts[f"{package.ETC}/{name}"] = content
            if not mode & 0o004:
                arrived.private.add(f"{package.ETC}/{name}")
    for day in archive.days(data.archive):
        for suffix in ("", compressed.SUFFIX):
            _copy(archive.file_of(data.archive, day) + suffix, arrived.days)
    _take_queue(data.queue, arrived)
    return arrived


def _known_by(queue: str) -> str:
    known = hashlib.sha256()
    for suffix in ("", "-wal"):
        with contextlib.suppress(FileNotFoundError), os.fdopen(files.open_regular(queue + suffix), "rb") as file:
            while piece := file.read(_PIECE):
                known.update(piece)
    return known.hexdigest()


def _is_within(path: Path, root: Path) -> bool:
    return path.resolve().is_relative_to(root.resolve())


def _take_text(arrived: package.Contents, name: str, path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        arrived.texts[name] = files.read(str(path))


def _copy(path: str, directory: Path) -> None:
    try:
        source = os.fdopen(files.open_regular(path), "rb")
    except FileNotFoundError:
        return
    with source, (directory / os.path.basename(path)).open("xb") as target:
        shutil.copyfileobj(source, target)


def _take_queue(path: str, arrived: package.Contents) -> None:
    if not os.path.lexists(path):
        return
    elsewhere.copy_queue(path, str(arrived.queue))
    try:
        with contextlib.closing(schema.connect(str(arrived.queue), timeout=0)) as database:
            database.execute("PRAGMA journal_mode = DELETE").fetchall()  # one file, as that of an export
            [[found]] = database.execute("PRAGMA quick_check(1)").fetchall()
    except sqlite3.Error as error:
        found = str(error)
    arrived.has_damaged_queue = found != "ok"
