"""What of the archive is to be sent again: the request for it, how far that is, and what it finds in the archive.

Nothing of it is put into the queue: it stands in the archive, durably, and would only be written a second time.

Two files, each with one writer, so that neither waits for the other: the command writes the request and removes it,
the backend writes how far it is. An earlier release knows neither of them.
"""

import datetime
import os
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import pydantic

from ivy import constants, files
from ivy.types.model import Model
from ivy.utils.host import clock, locks
from ivy.utils.storage import archive

REQUEST_FILE = os.path.join(constants.IVY_DATA_DIR, "resend.json")
PROGRESS_FILE = os.path.join(constants.IVY_DATA_DIR, "resend-progress.json")

MOST_KEYS = 100
"""Of each sample all are compared with all of its keys, by a backend that should send."""

LONGEST_KEY = 1000

_MOST_BYTES = 1_000_000
_SECONDS_FOR_THE_LOCK = 2.0

_Content = TypeVar("_Content", bound=Model)


class Request(Model):
    """What is to be sent again. Whole messages: what a platform calls a key may depend on the others beside it."""

    token: str = pydantic.Field(default_factory=lambda: os.urandom(8).hex(), description="Tells it from others.")
    since: float = pydantic.Field(allow_inf_nan=False, description="Unix time of the first, in seconds.")
    until: float = pydantic.Field(allow_inf_nan=False, description="That of the first that is not wanted.")
    kind: Literal["data", "log", "config"] | None = pydantic.Field(default=None, description="None: all of them.")
    keys: tuple[Annotated[str, pydantic.Field(max_length=LONGEST_KEY)], ...] = pydantic.Field(
        default=(), max_length=MOST_KEYS, description="Patterns, one of which a sample must have."
    )
    messages: int = pydantic.Field(default=0, ge=0, description="How many those are.")

    def wants(self, timestamp: float, body: dict[str, Any]) -> bool:
        """Whether a record of the archive is to be sent again."""
        if not self.since <= timestamp < self.until or self.kind not in (None, body.get("variant")):
            return False
        if not self.keys:
            return True
        data = body.get("data")
        return isinstance(data, dict) and any(fnmatchcase(key, pattern) for key in data for pattern in self.keys)

    def paths(self, directory: str) -> dict[datetime.date, str]:
        """The days of the archive in a directory that may hold what is wanted, the oldest first, and their files.

        Raises:
            OSError: They cannot be listed.
        """
        first, last = _day_of(self.since), _day_of(self.until)
        return {day: archive.file_of(directory, day) for day in archive.days(directory) if first <= day <= last}


class Progress(Model):
    """How far a request is: all before a line of a day was sent."""

    token: str = ""
    day: datetime.date | None = None
    line: int = pydantic.Field(default=0, ge=0)
    sent: int = pydantic.Field(default=0, ge=0, description="How many messages those are.")
    is_done: bool = False


class Line(NamedTuple):
    """A line of a day, and its record, if that is wanted."""

    day: datetime.date
    number: int
    size: int
    record: archive.Record | None


class RefusedError(RuntimeError):
    """It cannot be done now; the text says why."""


def request() -> Request | None:
    """What was asked for last, if it was not cancelled; also if it is done."""
    return _read(REQUEST_FILE, Request)


def progress(of: Request) -> Progress:
    """How far it is."""
    found = _read(PROGRESS_FILE, Progress)
    return found if found is not None and found.token == of.token else Progress(token=of.token)


def keep(reached: Progress) -> None:
    """Keep how far a request is, durably.

    Raises:
        OSError: It could not be written.
    """
    _write(PROGRESS_FILE, reached)


def begin(wanted: Request) -> None:
    """Ask for messages to be sent again.

    Raises:
        RefusedError: Others are.
        OSError: It could not be written, or somebody else holds the lock.
    """
    with locks.file_lock(f"{REQUEST_FILE}.lock", _SECONDS_FOR_THE_LOCK):
        refuse_second()
        _write(REQUEST_FILE, wanted)


def refuse_second() -> None:
    """Raise `RefusedError` if messages are being sent again."""
    if (running := request()) is not None and not (reached := progress(running)).is_done:
        raise RefusedError(
            f"{reached.sent} of {running.messages} messages were sent again, the others are still to come;"
            " wait for them (ivy queue), or end that first: ivy resend --cancel"
        )


def cancel() -> Progress | None:
    """End what was asked for. Returns how far it was; None if there was nothing to end.

    Raises:
        OSError: It could not be done.
    """
    with locks.file_lock(f"{REQUEST_FILE}.lock", _SECONDS_FOR_THE_LOCK):
        wanted = request()
        files.remove(REQUEST_FILE)
        files.sync(Path(REQUEST_FILE).parent)
        reached = progress(wanted) if wanted is not None else None
        return None if reached is None or reached.is_done else reached


def lines(
    wanted: Request, paths: Mapping[datetime.date, str], after: Progress, report: Callable[[str], object]
) -> Iterator[Line]:
    """Go through the archive, so that whoever has other things to do can do them in between.

    Args:
        wanted: What is to be sent again.
        paths: The days that may hold it, see `Request.paths`.
        after: Where to begin.
        report: Is told of a day, the rest of which cannot be read.
    """
    for day, path in paths.items():
        if after.day is not None and day < after.day:
            continue
        first = after.line if day == after.day else 0
        try:
            for number, line in enumerate(archive.stored_lines(path)):
                record = archive.record_of(path, line.decode(errors="replace")) if number >= first else None
                is_wanted = record is not None and wanted.wants(*record)
                yield Line(day, max(number, first), len(line), record if is_wanted else None)
        except OSError as error:
            report(f"{path} cannot be read, the rest of it is not sent again: {error.strerror or error}")


def _read(path: str, model: type[_Content]) -> _Content | None:
    """What a file says; None where it says nothing that can be used: any service can write there."""
    try:
        return model.model_validate_json(files.read(path, _MOST_BYTES))
    except (OSError, ValueError):
        return None


def _write(path: str, content: Model) -> None:
    # Whatever link a service has put there is replaced: the backend can write where others cannot.
    files.write_atomically(Path(path), content.model_dump_json(indent=4) + "\n", mode=0o660, follow=False)


def _day_of(timestamp: float) -> datetime.date:
    return datetime.datetime.fromtimestamp(clock.or_epoch(timestamp), datetime.UTC).date()
