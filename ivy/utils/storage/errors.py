"""What an error of the queue's database means: one that cannot take anything now, or a file that is damaged."""

import errno
import sqlite3

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_SICK_DISK = {errno.EROFS, errno.EIO, errno.EUCLEAN, errno.EBADMSG, errno.EACCES, errno.EPERM}
_TROUBLE = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}
_SICK_FILE = {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY}
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
# What we insert breaks no rule of our tables: these are others of the same name.
_OTHER_TABLES = {sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH}
_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, *_OTHER_TABLES}
# These say "disk I/O error" as a full disk does, but what cannot be read today cannot be read tomorrow.
_UNREADABLE = {sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_IOERR_SHORT_READ, sqlite3.SQLITE_IOERR_CORRUPTFS}


class OtherDisk(sqlite3.OperationalError):
    """Another disk was mounted over the queue: numbers of messages are those of another one now."""

    def __init__(self) -> None:
        super().__init__("another disk was mounted over the data directory")


def is_busy(error: Exception) -> bool:
    """Whether another process is at it: worth waiting for."""
    return isinstance(error, TimeoutError) or _code(error) & 0xFF in _BUSY


def is_damage(error: Exception) -> bool:
    """Whether the file is no longer what it was. Python cannot decode what SQLite says of a name that rotted."""
    return isinstance(error, UnicodeDecodeError) or _code(error) & 0xFF in _DAMAGE or _code(error) in _UNREADABLE


def is_other_schema(error: Exception) -> bool:
    """Whether tables may be missing, as somebody dropped or renamed them: whoever opens the file makes them."""
    return _code(error) == sqlite3.SQLITE_ERROR


def damage(text: str) -> sqlite3.DatabaseError:
    """An error for damage that SQLite has not noticed."""
    error = sqlite3.DatabaseError(text)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error


def is_disk_trouble(error: Exception) -> bool:
    """Whether the disk cannot take anything now: full, read-only, sick, or another's. May pass by itself."""
    if isinstance(error, OSError):
        return error.errno in _NO_ROOM | _SICK_DISK
    return _code(error) & 0xFF in _TROUBLE and not is_damage(error)


def may_pass(error: Exception) -> bool:
    """Whether the queue may take later what it does not take now: the disk is in trouble, or others are at it."""
    return is_disk_trouble(error) or is_busy(error)


def is_sick_file(error: Exception) -> bool:
    """Whether it may be this file that cannot be read or written (its mode may forbid it), and not all of them."""
    return _code(error) & 0xFF in _SICK_FILE and not is_damage(error)


def is_lack_of_room(error: Exception) -> bool:
    """Whether more room on the disk could help. SQLite does not always say so."""
    if isinstance(error, OSError):
        return error.errno in _NO_ROOM
    return is_disk_trouble(error) and _code(error) & 0xFF != sqlite3.SQLITE_READONLY


def _code(error: Exception) -> int:
    """SQLite's extended code; 0 if the error is not SQLite's own."""
    return int(getattr(error, "sqlite_errorcode", 0))
