"""The form in which a node leaves its board: a tar file, of few names, with a checksum of each.

Not what is in it for the node; see `leave` and `arrive`. What is read is believed when all of it was read: what
is damaged, cut off, of another form or of a newer one is refused.
"""

import hashlib
import io
import re
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal

import pydantic

from ivy import constants
from ivy.types.config import describe
from ivy.types.model import Model

BOARD, CONFIG, HISTORY, STATE, ORDER = "board.json", "config.json", "history.json", "state.json", "order.json"
QUEUE, DAYS, ETC = "queue.sqlite3", "messages", "etc"

_FORMAT = 1
_CHECKSUMS = "checksums.json"
_TEXTS = (BOARD, CONFIG, HISTORY, STATE, ORDER, _CHECKSUMS)
_IS_DAY = re.compile(rf"{DAYS}/\d{{4}}-\d{{2}}-\d{{2}}\.csv(\.gz)?", re.ASCII)
_IS_ETC = re.compile(rf"{ETC}/[A-Za-z0-9_][A-Za-z0-9_.@-]{{0,200}}", re.ASCII)
_LARGEST_TEXT = 16_000_000
_PIECE = 1 << 16


class PackageError(RuntimeError):
    """A file that cannot be used; the text says why."""


class Board(Model):
    """What the first file in it says of all others."""

    form: Literal[1] = pydantic.Field(default=1, description="Raised when a version could not read what comes.")
    identifier: str = pydantic.Field(pattern="^[0-9a-f]{1,64}$", description="By it an import is known again.")
    system_identifier: str | None = pydantic.Field(default=None, description="What the platform calls the node.")
    version: str = pydantic.Field(description="Of the release that ran.")
    time: float = pydantic.Field(default_factory=time.time, description="When it was made: Unix time in seconds.")


@dataclass
class Contents:
    """What was read: texts are in memory, queue and days in a directory."""

    board: Board
    directory: Path
    texts: dict[str, bytes] = field(default_factory=dict)
    """Also the files of /etc/ivy, as `etc/NAME`."""
    private: set[str] = field(default_factory=set)
    """Of those, the names of which only root may read."""
    has_damaged_queue: bool = False
    """Whether the queue must be salvaged; there are files of SQLite's beside it then."""

    @property
    def queue(self) -> Path:
        """The file with what was not sent, if it exists."""
        return self.directory / QUEUE

    @property
    def days(self) -> Path:
        """The directory with the archive."""
        return self.directory / DAYS


class Writer:
    """Writes one, a file after the other; `close` makes it whole."""

    def __init__(self, file: BinaryIO, board: Board) -> None:
        self._tar = tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT)  # noqa: SIM115 (see close)
        self._checksums: dict[str, str] = {}
        self.add_text(BOARD, board.model_dump_json(indent=4).encode())

    def add_text(self, name: str, content: bytes, mode: int = 0o600) -> None:
        """Add a small file."""
        self.add(name, io.BytesIO(content), len(content), mode)

    def add(self, name: str, file: BinaryIO, size: int, mode: int = 0o600) -> None:
        """Add the first bytes of an open file.

        Raises:
            OSError: It has fewer, or cannot be read; or the whole cannot be written.
        """
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode, entry.mtime = size, mode, round(time.time())
        hashing = _Hashing(file)
        self._tar.addfile(entry, hashing)
        self._checksums[name] = hashing.digest()

    def close(self) -> None:
        """Write the checksums, without which it counts as cut off."""
        self.add_text(_CHECKSUMS, pydantic.TypeAdapter(dict[str, str]).dump_json(self._checksums, indent=4))
        self._tar.close()


class _Hashing:
    """A file that knows what was read of it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._sum = file, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        piece = self._file.read(size)
        self._sum.update(piece)
        return piece

    def digest(self) -> str:
        return self._sum.hexdigest()


def read(file: BinaryIO, directory: Path) -> Contents:
    """Read one from a file, or from what comes through a pipe.

    Args:
        file: It is read once, from the beginning to its end.
        directory: Exists and is empty; nothing is written anywhere else.

    Raises:
        PackageError: It cannot be used.
        OSError: What is in it cannot be stored.
    """
    checksums: dict[str, str] = {}
    texts: dict[str, bytes] = {}
    private: set[str] = set()
    board: Board | None = None
    (directory / DAYS).mkdir(mode=0o700)
    try:
        with tarfile.open(fileobj=file, mode="r|") as tar:
            for entry in tar:
                _check(entry, checksums, is_first=board is None)
                content = tar.extractfile(entry)
                assert content is not None  # it is a regular file
                hashing = _Hashing(content)  # type: ignore[arg-type]
                if entry.name in _TEXTS or _IS_ETC.fullmatch(entry.name):
                    texts[entry.name] = hashing.read(_LARGEST_TEXT + 1)
                else:
                    _store(hashing, directory / entry.name)
                if not entry.mode & 0o004:
                    private.add(entry.name)
                checksums[entry.name] = hashing.digest()
                board = board or _board(texts[BOARD])
    except tarfile.TarError as error:
        raise PackageError(f"it is damaged, or not an export of a node: {error}") from None
    except EOFError as error:
        raise PackageError(f"it is cut off: {error}") from None
    if board is None:
        raise PackageError("it is empty")
    _compare(texts.pop(_CHECKSUMS, b""), checksums)
    return Contents(board, directory, texts, private)


def _check(entry: tarfile.TarInfo, known: dict[str, str], *, is_first: bool) -> None:
    """Nothing but what this version knows: no link, no device, no path that leads anywhere else, no name twice."""
    name = entry.name
    if is_first and name != BOARD:
        raise PackageError(f"it is not an export of a node: it begins with {name!r:.80}")
    is_known = name in _TEXTS or name == QUEUE or _IS_DAY.fullmatch(name) or _IS_ETC.fullmatch(name)
    if not is_known or not entry.isreg() or entry.issparse():
        raise PackageError(f"it holds {name!r:.80}, which version {constants.VERSION} does not know")
    if name in known or _CHECKSUMS in known:
        raise PackageError(f"it is damaged: {name} comes twice, or behind the end")
    if name != QUEUE and not _IS_DAY.fullmatch(name) and entry.size > _LARGEST_TEXT:
        raise PackageError(f"it is damaged: {name} is too large")


def _board(text: bytes) -> Board:
    try:
        return Board.model_validate_json(text)
    except pydantic.ValidationError as error:
        reason = describe(error)
        if reason.startswith("form:"):
            reason = (
                f"its form is not {_FORMAT}: a newer version than {constants.VERSION} has made it; update this node"
            )
        raise PackageError(f"it cannot be read: {reason}") from None


def _store(content: _Hashing, path: Path) -> None:
    with path.open("xb") as file:
        while piece := content.read(_PIECE):
            file.write(piece)


def _compare(text: bytes, found: dict[str, str]) -> None:
    try:
        said = pydantic.TypeAdapter(dict[str, str]).validate_json(text)
    except pydantic.ValidationError:
        raise PackageError("it is cut off: its end is missing") from None
    wrong = sorted(_differing(said, {name: checksum for name, checksum in found.items() if name != _CHECKSUMS}))
    if wrong:
        raise PackageError(f"it is damaged: {', '.join(wrong)}")


def _differing(said: dict[str, str], found: dict[str, str]) -> Iterator[str]:
    for name in {*said, *found}:
        if said.get(name) != found.get(name):
            yield name
