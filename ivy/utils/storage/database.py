"""The queue's database as every process uses it: waits for others, survives being replaced. Knows no messages."""

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Generator
from typing import Any, TypeVar

from ivy import constants, files
from ivy.utils import notify
from ivy.utils.host.locks import file_lock
from ivy.utils.storage import ballast, errors, schema

SECONDS_TO_WAIT = 2 * constants.WATCHDOG_SECONDS
"""How long another process may hold the database: one that hangs in it is killed by the watchdog before."""

SECONDS_BETWEEN_TRIES = 10.0
"""How often a queue is opened on a disk that cannot take it: a salvage reads the whole file."""

SECONDS_FOR_A_SALVAGE = 5.0
"""How long to wait for that of another process, of some megabytes. Who waits for more takes no samples."""

_MOST_REPLACEMENTS = 3

_Result = TypeVar("_Result")


class QueueDatabase:
    """A connection to the database that stands at a path, even if another process replaces it."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.RLock()
        self._inode: int | None = None
        self._failure: OSError | sqlite3.Error | None = None
        self._last_try = 0.0
        self.connection: sqlite3.Connection | None = None

    def execute(self, statement: str, parameters: tuple[Any, ...] = ()) -> list[Any]:
        """Run one statement, a transaction of its own. Waits for other processes, with heartbeats.

        Raises:
            sqlite3.Error: It cannot be run.
            OSError: The database cannot be opened.
        """
        return self.run(lambda connection: connection.execute(statement, parameters).fetchall())

    def transaction(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        """Run several statements in one transaction; otherwise as `execute`."""

        def all_or_nothing(connection: sqlite3.Connection) -> _Result:
            with connection:  # commits, or rolls back
                connection.execute("BEGIN IMMEDIATE")
                return work(connection)

        return self.run(all_or_nothing)

    def run(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        """Do something with the connection, again if the database was replaced meanwhile.

        So work may be done twice, the first time on a file that nobody reads any more, or only for its salvage.
        """
        deadline = time.monotonic() + SECONDS_TO_WAIT
        replacements = 0
        while True:
            try:
                with self._lock, self._as_owner():
                    result = work(self.connection or self._open())
                    if not self._was_replaced():
                        return result
                    self.close()
            except (OSError, sqlite3.Error, UnicodeDecodeError) as error:
                if self.connection is not None and self._was_replaced():
                    self.close()
                elif errors.is_damage(error) and replacements < _MOST_REPLACEMENTS:
                    replacements += self._replace(error)
                elif not self._may_pass(error) or time.monotonic() > deadline:
                    raise
            notify.heartbeat()

    def _may_pass(self, error: Exception) -> bool:
        if errors.is_lack_of_room(error) and ballast.release():
            self._failure = None
            return True
        return errors.is_busy(error)

    def close(self) -> None:
        """Close the connection. It is opened again by whatever comes next."""
        with self._lock, self._as_owner():
            if self.connection is not None:
                # If the file was moved, SQLite notices, and leaves alone what stands under its old name.
                self.connection.close()
            self.connection = None

    def _as_owner(self) -> contextlib.AbstractContextManager[None]:
        return files.as_owner_of(os.path.dirname(self._path))

    def _was_replaced(self) -> bool:
        try:
            return os.stat(self._path).st_ino != self._inode
        except FileNotFoundError:
            return True

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
        files.make_directory(os.path.dirname(self._path))
        with _alone(self._path, SECONDS_FOR_A_SALVAGE if self._failure is None else 0):
            if os.path.exists(schema.salvaging_path(self._path)):
                from ivy.utils.storage import salvage  # not at the top: hardly ever wanted

                salvage.finish(self._path, "a salvage was interrupted")
            # Only if there is none yet: closing a descriptor of the database that is not SQLite's own would release
            # the locks of this process's other connections (see "How To Corrupt An SQLite Database File", 2.2).
            if not os.path.isfile(self._path):
                os.close(files.open_shared(self._path))
            self._inode = os.stat(self._path).st_ino
            return schema.connect(self._path, min(2, notify.SECONDS_BETWEEN_HEARTBEATS))

    def _replace(self, error: Exception) -> bool:
        """Put what can be read into a new file, unless another process does. Returns whether this one did."""
        from ivy.utils.storage import salvage

        with contextlib.suppress(TimeoutError), self._lock, self._as_owner():
            with _alone(self._path, SECONDS_FOR_A_SALVAGE):
                if not self._was_replaced():
                    salvage.begin(self._path)
                self.close()
                if os.path.exists(schema.salvaging_path(self._path)):
                    salvage.finish(self._path, str(error))
            return True
        return False


@contextlib.contextmanager
def _alone(path: str, patience: float) -> Generator[None, None, None]:
    """Nobody opens what somebody replaces.

    Raises:
        OSError: Somebody is replacing it; as `TimeoutError`, if somebody only opens it.
    """
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(file_lock(schema.lock_path(path), min(patience, notify.SECONDS_BETWEEN_HEARTBEATS)))
        except TimeoutError as error:
            if os.path.exists(schema.salvaging_path(path)):
                raise errors.salvage_elsewhere() from error
            raise
        yield
