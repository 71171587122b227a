"""What keeps the data directory within its bounds, to be done about once a minute: archive, queue, reserve.

Reports what it dropped: to the journal at once, to the operator once an hour.
"""

import datetime
import sqlite3
import time
from collections.abc import Callable

from ivy import files
from ivy.types.config import Config
from ivy.utils.host import mounts
from ivy.utils.logger import Logger
from ivy.utils.messaging_agent import MESSAGE_ARCHIVE_DIR
from ivy.utils.storage import archive, ballast, bounds, contents
from ivy.utils.storage.database import QueueDatabase

SECONDS_BETWEEN_ROUNDS = 60.0
SECONDS_BETWEEN_REPORTS = 3600.0


class Housekeeper:
    """Keeps bounds, and remembers what the operator was told."""

    def __init__(
        self,
        config: Config,
        logger: Logger,
        database: QueueDatabase,
        free: Callable[[], int] = lambda: mounts.disk().free_bytes,
        today: Callable[[], datetime.date] = lambda: datetime.datetime.now(datetime.UTC).date(),
    ) -> None:
        self._config = config
        self._logger = logger
        self._journal = logger.without_messages()
        self._database = database
        self._last_report = -SECONDS_BETWEEN_REPORTS
        self._free = free
        self._today = today
        self._trouble = ""

    def work(self) -> None:
        """Do what is to be done. Never raises because of the disk; what could not be done is done next time."""
        troubles = []
        for duty in (self._keep_archive, self._keep_queue, lambda: ballast.keep(self._free()), self._report):
            try:
                duty()
            except (OSError, sqlite3.Error) as error:  # one that fails for ever must not stop the others
                troubles.append(str(error))
        trouble = "; ".join(dict.fromkeys(troubles))
        if trouble and trouble != self._trouble:
            self._journal.warning(f"The bounds of queue and archive could not be kept: {trouble}")
        self._trouble = trouble

    def _keep_archive(self) -> None:
        """Remove the oldest days, but never today's, nor the last one.

        Days are counted by their files, so that a clock that jumps costs the archive nothing.
        """
        days = [day for day in archive.days(MESSAGE_ARCHIVE_DIR)[:-1] if day < self._today()]
        most = self._config.archive.max_days
        too_many = days[: max(0, len(days) + 1 - most)] if most is not None else []
        if too_many:
            _remove(too_many)
            self._logger.info(f"Removed from the archive: {_range(too_many)}; {most} days are to be kept")
        removed: list[datetime.date] = []
        while (left := days[len(too_many) + len(removed) :]) and self._is_short_of_room():
            _remove(left[:1])
            removed.append(left[0])
        if removed:
            self._logger.warning(f"Removed from the archive, as the disk is full: {_range(removed)}")

    def _is_short_of_room(self) -> bool:
        return self._free() < 1_000_000 * self._config.queue.min_free_megabytes

    def _keep_queue(self) -> None:
        dropped = bounds.enforce(self._config.queue, self._database, self._free())
        if dropped:
            self._journal.warning(f"The queue is full: dropped {_readable(dropped)}")

    def _report(self) -> None:
        """Tell the operator how many messages were dropped since the last time, whoever dropped them."""
        if time.monotonic() - self._last_report < SECONDS_BETWEEN_REPORTS:
            return
        dropped = self._database.run(contents.dropped_since_report)
        if not dropped:
            return
        self._logger.warning(f"Messages were dropped from the full queue: {_readable(dropped)}")
        self._database.transaction(lambda connection: contents.note_report(connection, dropped))
        self._last_report = time.monotonic()


def _remove(days: list[datetime.date]) -> None:
    for day in days:
        files.remove(archive.file_of(MESSAGE_ARCHIVE_DIR, day))


def _range(days: list[datetime.date]) -> str:
    return f"{days[0]} to {days[-1]}" if len(days) > 1 else str(days[0])


def _readable(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {variant}" for variant, count in counts.items())
