"""In which order the days of the archive were written, whatever their names say: those come from the clock.

A node without a battery for its clock begins many a boot in 1970, and a file's own time comes from the same clock.
What does not is which file has grown since somebody looked last. That is kept beside the archive, and written when
it changes: once a day, mostly.
"""

import contextlib
import datetime
import os

import pydantic

from ivy import constants
from ivy.types.model import Model
from ivy.utils.host.json_file import JsonFile
from ivy.utils.storage import archive

ORDER_FILE = os.path.join(constants.IVY_DATA_DIR, "archive-order.json")


class _Day(Model):
    day: datetime.date
    size: int = pydantic.Field(description="Bytes of the plain file; 0 where there is only a compressed one.")


class _Order(Model):
    days: tuple[_Day, ...] = ()


_FILE = JsonFile(ORDER_FILE, _Order)


def update(directory: str) -> list[datetime.date]:
    """See what was written since the last time. One process does this, now and then.

    Returns: All days, those that were written last at the end; what nobody had seen before by name.
    """
    sizes = {day: _size(archive.file_of(directory, day)) for day in archive.days(directory)}
    found = list(sizes)
    with contextlib.suppress(OSError), _FILE.update() as order:  # on a full disk it is wanted all the more
        known = {each.day: each.size for each in order.days}
        latest = next(reversed(known), None)  # it grows all the time, which is nothing new
        # A plain file that is gone was compressed.
        moved = [day for day in sizes if day not in known or (day != latest and sizes[day] not in (known[day], 0))]
        found = [*(day for day in known if day in sizes and day not in moved), *moved]
        if found != list(known) or any(not sizes[day] and known[day] for day in found):
            order.days = tuple(_Day(day=day, size=sizes[day]) for day in found)
    return found


def put_before(directory: str, arrived: list[datetime.date], text: bytes | None) -> None:
    """Let days that came from another board count as written before this one's own.

    Args:
        directory: Of the archive, where they are now.
        arrived: The days.
        text: What the other board knew of their order; None where it knew nothing.
    """
    known: list[datetime.date] = []
    with contextlib.suppress(ValueError):
        known = [each.day for each in _Order.model_validate_json(text or b"").days]
    first = [*(day for day in known if day in arrived), *(day for day in arrived if day not in known)]
    with _FILE.update() as order:
        own = {each.day for each in order.days}
        days = [*(day for day in first if day not in own), *(each.day for each in order.days)]
        order.days = tuple(_Day(day=day, size=_size(archive.file_of(directory, day))) for day in days)


def _size(path: str) -> int:
    with contextlib.suppress(OSError):
        return os.lstat(path).st_size
    return 0
