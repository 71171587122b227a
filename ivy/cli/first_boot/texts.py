"""Files as any laptop writes them, read as text. Knows no file's form.

Notepad and PowerShell write UTF-16, byte order marks and CRLF, which is no mistake of anybody's. A card that was
pulled out too early has empty files, and zeros.
"""

import codecs
import os
from pathlib import Path

from ivy import files

_MOST_BYTES = 1_000_000
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_COPY_AGAIN = "copy it onto the card again, and eject that before you pull it out"
_SAVE_AGAIN = "save it again as UTF-8 (in Notepad: Save as, Encoding)"
_WIPED = ".ivy-taken"


class Mistake(ValueError):
    """A file that cannot be taken in: what is wrong, by line or field and without values; and what to do."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.what, self.remedy = what, remedy


def read(path: Path) -> bytes:
    """The content of a file.

    Raises:
        Mistake: It cannot be read, is not a regular file, or is too large.
    """
    try:
        return files.read(str(path), _MOST_BYTES)
    except OSError as error:
        kind = "is a folder" if path.is_dir() else f"cannot be read: {error.strerror or error}"
        raise Mistake(kind, f"put a file of this name there, of {_MOST_BYTES // 1_000_000} MB at most") from None


def text_of(content: bytes) -> str:
    """The text, with plain ends of lines, and one at its end.

    Raises:
        Mistake: It is empty, or no text.
    """
    if not content.strip(b"\0"):
        raise Mistake("is empty" if not content else "holds nothing but zeros", _COPY_AGAIN)
    encoding = "utf-16" if content.startswith(_UTF_16) else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise Mistake(f"line {line}: is not UTF-8", _SAVE_AGAIN) from None
    if "\0" in text:
        line = text.partition("\0")[0].count("\n") + 1
        is_utf_16 = b"\0\0" not in content  # as it is throughout what a power cut has left
        what = "is UTF-16 without a byte order mark" if is_utf_16 else f"line {line}: holds zeros"
        raise Mistake(what, _SAVE_AGAIN if is_utf_16 else _COPY_AGAIN)
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    if not lines.strip():
        raise Mistake("is empty", _COPY_AGAIN)
    return lines if lines.endswith("\n") else f"{lines}\n"


def wipe(path: Path) -> None:
    """Remove a file that holds secrets: on a card, what is only removed can be read for a long time.

    What it was taken into must be durable before. After a power cut it is there, under this name or another one,
    or is gone.

    Raises:
        OSError: It cannot be removed.
    """
    aside = path.with_name(f"{path.name}{_WIPED}")  # zeros under its own name would look like a mistake
    path.replace(aside)
    files.sync(aside.parent)
    _erase(aside)


def wipe_rest(card: Path, pattern: str) -> None:
    """Go on with what a power cut has interrupted.

    Raises:
        OSError: It cannot be removed.
    """
    for aside in card.glob(f"{pattern}{_WIPED}"):
        _erase(aside)


def is_being_wiped(path: Path) -> bool:
    """Whether it is what `wipe` leaves until it is done."""
    return path.name.endswith(_WIPED)


def _erase(path: Path) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.write(descriptor, bytes(os.fstat(descriptor).st_size))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    path.unlink()
    files.sync(path.parent)
