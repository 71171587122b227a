"""What keeps the data directory within its bounds, to be done about once a minute: archive, queue, ballast file.

Reports what it dropped to the journal; the backend tells the operator. While a config is on trial nothing
goes that the accepted one would keep.
"""

import datetime
import os
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass

import pydantic

from ivy import constants
from ivy.types.config import ArchiveConfig, Config, ForeignConfig, QueueConfig
from ivy.utils.host import clock, mounts
from ivy.utils.host.locks import file_lock
from ivy.utils.logger import Logger
from ivy.utils.messaging_agent import MESSAGE_ARCHIVE_DIR, MESSAGE_ARCHIVE_DIR_LOCK
from ivy.utils.storage import archive, ballast, bounds, compressed, written_order
from ivy.utils.storage.database import QueueDatabase
from ivy.utils.updates.standing import Standing

SECONDS_BETWEEN_ROUNDS = 60.0

_SECONDS_FOR_THE_LOCK = 1.0


class Housekeeper:
    """Keeps bounds, and remembers what the operator was told."""

    def __init__(
        self,
        config: Config,
        logger: Logger,
        database: QueueDatabase,
        free: Callable[[], int] = lambda: mounts.disk().free_bytes,
        free_files: Callable[[], int | None] = lambda: mounts.disk().free_files,
        device: Callable[[], int] = lambda: os.stat(constants.IVY_DATA_DIR).st_dev,
        today: Callable[[], datetime.date] = lambda: datetime.datetime.now(datetime.UTC).date(),
    ) -> None:
        self._config = config
        self._standing = Standing(config)
        self._logger = logger
        self._journal = logger.without_messages()
        self._database = database
        self._free = free
        self._free_files = free_files
        self._today = today
        self._device = device
        self._first_device = device()
        self._compressor: threading.Thread | None = None
        self._compress_trouble: OSError | None = None
        self._left_plain: set[str] = set()
        self._trouble = ""

    def work(self) -> None:
        """Do what is to be done. Never raises because of the disk; what could not be done is done next time."""
        troubles = []
        kept = _most_generous(self._config, self._standing.rivals())
        duties: list[Callable[[], object]] = [
            *(lambda: ballast.keep(self._free(), self._free_files()), self._look_for_a_late_disk),
        ]
        if kept is not None:
            duties = [
                *(lambda: self._keep_archive(kept), lambda: self._keep_queue(kept)),
                *duties,
                lambda: self._compress(kept),
            ]
        for duty in duties:
            try:
                duty()
            except (OSError, sqlite3.Error) as error:  # one that fails for ever must not stop the others
                troubles.append(str(error))
        trouble = "; ".join(dict.fromkeys(troubles))
        if trouble and trouble != self._trouble:
            self._journal.warning(f"The bounds of queue and archive could not be kept: {trouble}")
        self._trouble = trouble

    def settle(self) -> None:
        """Wait until what goes on in the background is done."""
        if self._compressor is not None:
            self._compressor.join()

    def _keep_archive(self, kept: "_Kept") -> None:
        """Remove the days that were written first, but never today's, nor the one that was written last.

        Days are counted by their files, so that a clock that jumps costs the archive nothing. As it makes more
        files, none goes for their number before it is known to be right.
        """
        order = written_order.update(MESSAGE_ARCHIVE_DIR)
        days = [day for day in order[:-1] if day != self._today()]
        most = kept.archive.max_days
        may_count = most is not None and clock.is_synchronised() is not False
        too_many = days[: max(0, len(days) + 1 - (most or 0))] if may_count else []
        if too_many:
            _remove(too_many)
            self._logger.info(f"Removed from the archive: {_range(too_many)}; {most} days are to be kept")
        removed: list[datetime.date] = []
        while (left := days[len(too_many) + len(removed) :]) and self._is_short(kept.queue):
            _remove(left[:1])
            removed.append(left[0])
        if removed:
            self._logger.warning(f"Removed from the archive, as the disk is full: {_range(removed)}")

    def _is_short(self, queue: QueueConfig) -> bool:
        files = self._free_files()
        few = files is not None and files < ballast.LEAST_FILES
        return few or self._free() < 1_000_000 * queue.min_free_megabytes

    def _compress(self, kept: "_Kept") -> None:
        """Begin to compress a day, the one that was written first; not while a trial may end with another release.

        By a thread, as it takes its time.
        """
        most = kept.archive.compress_after_days
        if self._compressor is not None and self._compressor.is_alive():
            return
        self._compressor = None
        if (error := self._compress_trouble) is not None:
            self._compress_trouble = None
            raise error
        if most is None or self._standing.is_on_trial:
            return
        paths = [
            archive.file_of(MESSAGE_ARCHIVE_DIR, day)
            for day in written_order.update(MESSAGE_ARCHIVE_DIR)[:-most]
            if day != self._today()
        ]
        path = next((path for path in paths if path not in self._left_plain and os.path.lexists(path)), None)
        if path is not None:
            self._compressor = threading.Thread(target=self._compress_day, args=(path,), daemon=True)
            self._compressor.start()

    def _compress_day(self, path: str) -> None:
        try:
            with file_lock(MESSAGE_ARCHIVE_DIR_LOCK, _SECONDS_FOR_THE_LOCK):
                archive.end_line(path)  # what comes for that day later, begins with a header
            compressed.compress(path, MESSAGE_ARCHIVE_DIR_LOCK, archive.LARGEST_DAY)
        except TimeoutError:
            pass  # somebody appends to it: again in a minute
        except OSError as error:
            self._compress_trouble = OSError(f"{path} stays as it is, and is not compressed: {error}")
            self._left_plain.add(path)

    def _look_for_a_late_disk(self) -> None:
        """Tell the operator of a disk that was mounted over the data."""
        device = self._device()
        if device != self._first_device:
            self._first_device = device
            self._logger.error(
                f"Another disk was mounted on {constants.IVY_DATA_DIR} after the services started. They use it "
                "now, and messages that waited beneath it are queued there. The archive beneath is seen with: "
                "mount --bind / /mnt"
            )

    def _keep_queue(self, kept: "_Kept") -> None:
        dropped = bounds.enforce(kept.queue, self._database, self._free())
        if dropped:
            counts = ", ".join(f"{count} {variant}" for variant, count in dropped.items())
            self._journal.warning(f"The queue is full: dropped {counts}")


@dataclass(frozen=True)
class _Kept:
    """What is kept at least."""

    queue: QueueConfig
    archive: ArchiveConfig


def _most_generous(config: Config, rivals: list[ForeignConfig] | None) -> _Kept | None:
    """What is kept whichever of the configs is decided for; None if that cannot be known, and so all is kept."""
    if rivals is None:
        return None
    try:
        others = [_kept_by(rival) for rival in rivals]
    except pydantic.ValidationError:  # of another version, which calls it something else
        return None
    kept = [_Kept(config.queue, config.archive), *others]
    days = [each.archive.max_days for each in kept]
    return _Kept(
        QueueConfig(
            max_megabytes=max(each.queue.max_megabytes for each in kept),
            min_free_megabytes=min(each.queue.min_free_megabytes for each in kept),
        ),
        ArchiveConfig(
            max_days=None if None in days else max(filter(None, days)),
            compress_after_days=config.archive.compress_after_days,
        ),
    )


def _kept_by(config: ForeignConfig) -> _Kept:
    return _Kept(
        QueueConfig.model_validate(config.section("queue")),
        ArchiveConfig.model_validate(config.section("archive")),
    )


def _remove(days: list[datetime.date]) -> None:
    for day in days:
        archive.remove_day(MESSAGE_ARCHIVE_DIR, day)


def _range(days: list[datetime.date]) -> str:
    return f"{days[0]} to {days[-1]}" if len(days) > 1 else str(days[0])
