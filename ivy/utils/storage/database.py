"""A queue's database as every process uses it: waits for others, survives being replaced. Knows no messages."""

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any, TypeVar

from ivy import files
from ivy.utils import notify
from ivy.utils.host.locks import file_lock
from ivy.utils.storage import ballast, errors, schema

SECONDS_TO_WAIT = 2.0
"""How long another process may hold the database; one that hangs in it is killed by the watchdog much later."""

SECONDS_BETWEEN_TRIES = 5.0
"""How often a queue is opened on a disk that cannot take it."""

SECONDS_OF_ERRORS = 60.0
"""How long the disk may fail to read or write the database before that is made again."""

_SECONDS_IF_IMPATIENT = 0.05
_BUSY_TIMEOUT = 0.1
_PROBE = bytes(65_536)
_MOST_REPLACEMENTS = 3

_Result = TypeVar("_Result")


class QueueDatabase:
    """A connection to the database that stands at a path, even if another process replaces it."""

    def __init__(self, path: str, *, spare_tables: Sequence[str] = ()) -> None:
        """Nothing is opened yet.

        Args:
            path: Where it is, or will be.
            spare_tables: What makes the other tables of a spare queue, which need survive no power cut.
        """
        self._path = path
        self._directory = os.path.dirname(path)
        self.is_spare = bool(spare_tables)
        self._spare_tables = spare_tables
        self._lock = threading.RLock()
        self._inode: int | None = None
        self._device: int | None = None
        self._failure: OSError | sqlite3.Error | None = None
        self._last_try = 0.0
        self._failing_since: float | None = None
        self._was_checkpointed = False
        self.connection: sqlite3.Connection | None = None
        self.beneath: sqlite3.Connection | None = None
        """To what others cannot reach any more, as another disk was mounted over it."""
        self.is_of_other_disk = False
        """Whether that ever happened: numbers from before are not those of this database."""
        self.is_impatient = False
        """Whether others need not be waited for as long as usual."""
        self.floor = 0
        """The largest number that a message is known to have: those in a new database begin after it."""

    def execute(self, statement: str, parameters: tuple[Any, ...] = ()) -> list[Any]:
        """Run one statement, a transaction of its own. Waits for other processes, with heartbeats.

        Raises:
            sqlite3.Error: It cannot be run.
            OSError: The database cannot be opened.
        """
        return self.run(lambda connection: connection.execute(statement, parameters).fetchall())

    def transaction(self, work: Callable[[sqlite3.Connection], _Result], *, is_synced: bool = True) -> _Result:
        """Run several statements in one transaction; otherwise as `execute`.

        Args:
            work: The statements.
            is_synced: Whether a power cut must not undo it. If not, the next one that is synced makes both durable.
        """

        def all_or_nothing(connection: sqlite3.Connection) -> _Result:
            with self._synced(connection, is_synced), connection:  # commits, or rolls back
                connection.execute("BEGIN IMMEDIATE")
                return work(connection)

        return self.run(all_or_nothing)

    def run(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        """Do something with the connection, again if the database was replaced meanwhile.

        So work may be done twice, the first time on a file that nobody reads any more, or only for its salvage.

        Raises:
            OtherDisk: It was replaced by that of a disk that was mounted over it: see `beneath`.
        """
        deadline = time.monotonic() + self.patience()
        replacements = 0
        while True:
            try:
                with self._lock, self._as_owner():
                    connection = self.connection or self._open()
                    before = connection.total_changes
                    result = work(connection)
                    if not self._was_replaced():
                        if connection.total_changes != before:  # what can only be read is not well
                            self._failing_since = None
                        return result
                    self._leave()
            except errors.OtherDisk:
                raise
            except (OSError, sqlite3.Error, UnicodeDecodeError) as error:
                if self.connection is not None and self._was_replaced():
                    self._leave()
                elif replacements < _MOST_REPLACEMENTS and (errors.is_damage(error) or self._is_incurable(error)):
                    if self._replace(error):
                        replacements += 1
                    elif time.monotonic() > deadline:
                        raise
                elif replacements < _MOST_REPLACEMENTS and errors.is_other_schema(error):
                    replacements += 1
                    self.close()
                elif not self._may_pass(error) or time.monotonic() > deadline:
                    raise
            notify.heartbeat()

    @contextlib.contextmanager
    def _synced(self, connection: sqlite3.Connection, is_synced: bool) -> Generator[None, None, None]:
        if is_synced or self.is_spare:
            yield
            return
        connection.execute(schema.UNSYNCED)
        try:
            yield
        finally:
            try:
                connection.execute(schema.SYNCED)
            except sqlite3.Error:  # the next one is opened as it should be
                self.close()
                raise

    def patience(self) -> float:
        """For how many seconds others are waited for."""
        return _SECONDS_IF_IMPATIENT if self.is_impatient else SECONDS_TO_WAIT

    def _may_pass(self, error: Exception) -> bool:
        if not self.is_spare and errors.is_lack_of_room(error) and ballast.release():
            self._failure = None
            return True
        return errors.is_busy(error)

    def _is_incurable(self, error: Exception) -> bool:
        """Whether the disk has failed for so long that only another file helps, and takes one.

        No class of error waits for ever: of a sector that cannot be written SQLite says what it says of a disk that
        is away for a moment. Before that, its log is begun again.
        """
        if not errors.is_sick_file(error):
            return False
        now = time.monotonic()
        self._failing_since = now if self._failing_since is None else self._failing_since
        if now - self._failing_since < SECONDS_OF_ERRORS:
            return False
        if not self._was_checkpointed:
            self._was_checkpointed = True
            if self._begin_log_anew():
                return False
        return self._takes_files()

    def _begin_log_anew(self) -> bool:
        try:
            with self._lock, self._as_owner():
                connection = self.connection or self._open_now()
                [[is_busy, *_]] = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                return not is_busy
        except (OSError, sqlite3.Error):
            return False

    def _takes_files(self) -> bool:
        """Whether the disk takes what the database cannot write."""
        probe = f"{self._path}.probe"
        try:
            with self._as_owner():
                descriptor = files.open_shared(probe)
                try:
                    os.write(descriptor, _PROBE)
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
                    files.remove(probe)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Close the connection. It is opened again by whatever comes next."""
        with self._lock, self._as_owner():
            if self.connection is not None:
                # If the file was moved, SQLite notices, and leaves alone what stands under its old name.
                self.connection.close()
            self.connection = None

    def _leave(self) -> None:
        """Let go of a file that stands no more where it stood."""
        if self.is_spare or os.stat(self._directory).st_dev == self._device:
            return self.close()
        self.close_beneath()
        self.beneath, self.connection = self.connection, None
        self.is_of_other_disk = True
        raise errors.OtherDisk

    def close_beneath(self) -> None:
        """Nothing is wanted any more of what lies beneath."""
        if self.beneath is not None:
            self.beneath.close()
        self.beneath = None

    def size_of_log(self) -> int:
        """Bytes of the write-ahead log."""
        try:
            return os.lstat(f"{self._path}-wal").st_size
        except FileNotFoundError:
            return 0

    def _as_owner(self) -> contextlib.AbstractContextManager[None]:
        return files.as_owner_of(self._directory)

    def _was_replaced(self) -> bool:
        try:
            return os.lstat(self._path).st_ino != self._inode
        except FileNotFoundError:
            return True
        except OSError:  # a directory that is another's now: what is open can still be used
            return False

    def _open(self) -> sqlite3.Connection:
        if self._failure is not None and time.monotonic() - self._last_try < SECONDS_BETWEEN_TRIES:
            raise self._failure
        try:
            self.connection = self._open_now()
        except (OSError, sqlite3.Error) as error:
            self._failure = error if errors.is_disk_trouble(error) else None
            self._last_try = time.monotonic()
            raise
        self._failure = None
        return self.connection

    def _open_now(self) -> sqlite3.Connection:
        files.make_directory(self._directory)
        with _alone(self._path):
            # Only if there is none yet: closing a descriptor of the database that is not SQLite's own would release
            # the locks of this process's other connections (see "How To Corrupt An SQLite Database File", 2.2).
            if not os.path.lexists(self._path) or os.path.lexists(schema.salvaging_path(self._path)):
                self._make()
            status = os.lstat(self._path)
            self._inode, self._device = status.st_ino, status.st_dev
            schema.check_files(self._path)
            return schema.connect(
                self._path, _BUSY_TIMEOUT, is_synced=not self.is_spare, more_tables=self._spare_tables
            )

    def _make(self) -> None:
        if not self.is_spare:
            from ivy.utils.storage import aside  # not at the top: hardly ever wanted

            aside.finish_moving(self._path)
        if not os.path.lexists(self._path):
            os.close(files.open_shared(self._path))

    def _replace(self, error: Exception) -> bool:
        """Go on with a new one, unless another process has begun it. Returns whether this one did."""
        from ivy.utils.storage import aside

        with contextlib.suppress(TimeoutError), self._lock, self._as_owner():
            with _alone(self._path):
                if not self._was_replaced():
                    if self.is_spare:
                        aside.remove(self._path)
                    else:
                        aside.move_aside(self._path, str(error), self.floor)
                self.close()
            self._failing_since, self._was_checkpointed = None, False
            return True
        return False


@contextlib.contextmanager
def _alone(path: str) -> Generator[None, None, None]:
    """Nobody opens what somebody replaces.

    Raises:
        TimeoutError: Somebody does either.
    """
    with file_lock(schema.lock_path(path), _BUSY_TIMEOUT):
        yield
